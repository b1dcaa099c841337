// SPDX-License-Identifier: Apache-2.0

package imageref

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-containerregistry/pkg/name"
)

const digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// Short names mean what they mean to docker: a manifest that was written for it
// fetches the same image here.
func TestParse(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string]string{
		"nginx":                            "docker.io/library/nginx:latest",
		"nginx:1.27":                       "docker.io/library/nginx:1.27",
		"nginx:1.27-alpine_x":              "docker.io/library/nginx:1.27-alpine_x",
		"nginx@" + digestA:                 "docker.io/library/nginx@" + digestA,
		"nginx:1@" + digestA:               "docker.io/library/nginx:1@" + digestA,
		"grafana/grafana:11":               "docker.io/grafana/grafana:11",
		"docker.io/nginx":                  "docker.io/library/nginx:latest",
		"index.docker.io/library/nginx":    "docker.io/library/nginx:latest",
		"docker:24-dind":                   "docker.io/library/docker:24-dind",
		"dir:1":                            "docker.io/library/dir:1",
		"oci-archive:1":                    "docker.io/library/oci-archive:1",
		"localhost/a":                      "localhost/a:latest",
		"localhost:5000/a/b:v1":            "localhost:5000/a/b:v1",
		"GHCR.io/Acme":                     "",
		"GHCR.io/acme/app":                 "ghcr.io/acme/app:latest",
		"127.0.0.1:5000/a":                 "127.0.0.1:5000/a:latest",
		"[::1]:5000/a":                     "[::1]:5000/a:latest",
		"registry.example:5000/a__b/c-d.e": "registry.example:5000/a__b/c-d.e:latest",
		"oci:/srv/sandboxctl/layout":       "oci:/srv/sandboxctl/layout",
		"oci:/srv/l:v1":                    "oci:/srv/l:v1",
		"archive:/srv/a.tar":               "archive:/srv/a.tar",
		"archive:/my files/a.tar":          "archive:/my files/a.tar",
		"archive:/srv/a.tar:app:v1":        "archive:/srv/a.tar:app:v1",
		"local:app":                        "local:app",
		"local:team/app:v1":                "local:team/app:v1",
		// What means nothing.
		"oci:latest": "", "oci:": "", "oci:a:/b": "", "archive:./a": "", "archive:/a\x00b": "", "archive:/a\u202eb": "", "oci:/a:\xff": "", "[::1%lo]:5000/a": "", "[127.0.0.1]:1/a": "", "[::x]:1/a": "",
		"local:": "", "local:a b": "", "local:a;b": "",
		"": "", " ": "", "a b": "", "a\nb": "", "\x1b[2J": "", "/nginx": "", "nginx/": "", "a//b": "", "nginx:": "", ":1": "",
		"nginx:a:b": "", "nginx@": "", "nginx@sha256:12": "", "nginx@md5:" + digestA[7:]: "", "nginx@" + strings.ToUpper(digestA): "",
		"-a": "", "a-": "", "a..b": "", "a___b": "", "Nginx": "", "localhost:99999999/a": "", "a_b.c/d": "", "docker://nginx": "",
		"https://docker.io/nginx": "", "docker-archive:/a.tar": "", "oci-archive:/a.tar": "", "../a": "", "a/../b": "", ".": "",
		strings.Repeat("a", 256): "", "a:" + strings.Repeat("b", 129): "", strings.Repeat("a/", 5000): "",
	} {
		r, err := Parse(ref)
		if (err != nil) != (want == "") || err == nil && r.String() != want {
			t.Errorf("%.80q is %q, %v; expected %q", ref, r, err, want)
		}
		if err != nil {
			if !errors.Is(err, ErrInvalid) || strings.ContainsFunc(err.Error(), unicode.IsControl) || len(err.Error()) > 300 {
				t.Errorf("%.80q: the error is %.400q", ref, err)
			}
			continue
		}
		// The whole reference means the same again.
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("%q is read as %+v, %v", r, again, err)
		}
	}
}

// Two references to the same image are the same to the store.
func TestNormalize(t *testing.T) {
	t.Parallel()
	digest := "@sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for ref, want := range map[string]string{
		"nginx": "docker.io/library/nginx:latest", "nginx:1.27": "docker.io/library/nginx:1.27", "docker.io/nginx:1": "docker.io/library/nginx:1",
		"index.docker.io/library/nginx:1": "docker.io/library/nginx:1", "me/web": "docker.io/me/web:latest",
		"localhost:5000/web:1": "localhost:5000/web:1", "ghcr.io/a/b/c" + digest: "ghcr.io/a/b/c" + digest,
		"oci:/srv/web": "oci:/srv/web", "oci:/srv//x/../web/:v1": "oci:/srv/web:v1", "archive:/a/b.tar": "archive:/a/b.tar", "archive:/a/b.tar:v1": "archive:/a/b.tar:v1",
		"archive:/a.tar:web:1": "archive:/a.tar:web:1", "archive:/a:b/c.tar:web:1": "archive:/a:b/c.tar:web:1", "oci:/": "oci:/", "oci:/:1": "oci:/:1",
		"archive:/a:b/c.tar": "archive:/a:b/c.tar", "local:web": "local:web", "local:team/web:1": "local:team/web:1",
		// Refused.
		"": "", "UPPER": "", "a b": "", "oci:web": "", "archive:": "", "archive:a.tar": "", "local:": "", "local:a b": "", "nginx@sha256:12": "", "http://nginx": "", "docker://nginx": "",
		"archive:/a\x00b": "", "nginx:": "", "nginx@": "", "a.example/": "", "/nginx": "", "nginx" + digest + digest: "", "nginx@sha512:" + digest[8:] + digest[8:]: "", "a.example:port/web": "", "a.example/Web": "", "nginx:a/b c": "",
		// A digest says more than a tag beside it.
		"nginx:1.27" + digest: "docker.io/library/nginx" + digest, "[::1]:5000/web": "[::1]:5000/web:latest", "a.example:5000/b/c:1": "a.example:5000/b/c:1", "localhost/web": "localhost/web:latest",
	} {
		r, err := Normalize(ref)
		if err == nil && r.String() != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %q, %v, expected %q", ref, r, err, want)
		}
	}
}

func TestParseTag(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string][2]string{
		"oci:/srv/web": {"/srv/web", ""}, "oci:/srv/web:1": {"/srv/web", "1"}, "oci:/srv/web:web:1": {"/srv/web", "web:1"},
		"archive:/a:b/c.tar": {"/a:b/c.tar", ""}, "archive:/a:b/c.tar:web:1": {"/a:b/c.tar", "web:1"},
	} {
		if r, err := Parse(ref); err != nil || r.Path != want[0] || r.Tag != want[1] {
			t.Errorf("%s: path %q, tag %q, %v; expected %q", ref, r.Path, r.Tag, err, want)
		}
	}
}

// Whatever the text is: an error, or a reference that is the same when it is read again.
// The program that fetches takes the name apart once more, with a library of registries'
// clients: both must mean the same image, or a tag is not found again, or is that of
// another image.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"nginx", "nginx:1.27", "docker.io/nginx", "index.docker.io/a/b:1", "docker.io/library/x", "library/x", "localhost/web", "localhost:5000/web:1", "a.b:5000/c",
		"web@" + digestA, "a.b/web:1@" + digestA, "a.b:80/c/d/e@" + digestA, "[::1]:5000/web", "127.0.0.1:5000/a", "a:b:c", "a/b:c/d", "x@y@z", "_/x", "A/b", "a.b:/c", "A.b/c",
		"oci:/l:t", "oci:/l/../m/:t:u", "archive:/a", "oci:/:/", "oci:/a:b/", "archive:/a:b/.", "oci:/a:b/c/..:t",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Fatalf("%q is %+v, and then %+v, %v", s, r, again, err)
		}
		n, err := Normalize(s)
		if err != nil {
			t.Fatalf("%q is %+v, and has no normal form: %v", s, r, err)
		}
		if again, err := Normalize(n.String()); err != nil || again != n {
			t.Fatalf("%q is %+v, and then %+v, %v", s, n, again, err)
		}
		if r.Kind != Registry {
			return
		}
		texts := []string{r.String(), n.String()}
		// The client takes the case of a host for a difference.
		if host, _, _ := strings.Cut(s, "/"); host == strings.ToLower(host) {
			texts = append(texts, s)
		}
		for _, text := range texts {
			there, err := name.ParseReference(text)
			if err != nil {
				t.Fatalf("%q is %s here, and refused there: %v", text, n, err)
			}
			full := there.Name()
			if rest, ok := strings.CutPrefix(full, name.DefaultRegistry+"/"); ok {
				full = DockerHub + "/" + rest
			}
			d, pinned := there.(name.Digest)
			if n.String() != full || pinned != (r.Digest != "") || pinned && d.DigestStr() != r.Digest {
				t.Errorf("%q is %s here, and %s there", text, n, full)
			}
		}
	})
}
