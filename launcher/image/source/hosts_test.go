// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// answers is a network on which everybody answers.
type answers struct{}

func (answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
}

// Nobody is spoken to without TLS unless that is allowed: neither a registry, nor where it
// leads to.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	g := guarded{answers{}, Hosts{"plain.example:5000": {PlainHTTP: true}}, "127.0.0.1:5000"}
	for url, ok := range map[string]bool{
		"http://10.1.2.3:5000/v2/": false, "http://192.168.0.1/": false, "http://registry.local:80/": false, "http://example.org/": false,
		"http://plain.example/": false, "http://127.0.0.1.example.org/": false, "http://localhost.example.org/": false,
		"http://127.0.0.1:5000/": true, "http://127.8.8.8/": true, "http://[::1]:5000/": true, "http://localhost:5000/": true,
		"http://plain.example:5000/": true, "https://10.1.2.3/": true, "https://example.org/": true,
	} {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.RoundTrip(r)
		if (err == nil) != ok || !ok && !errors.Is(err, errPlain) {
			t.Errorf("%s: %v", url, err)
		}
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
	}
}

// A caFile that somebody else could write, or replace, is not believed.
func TestCAFile(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, c := range map[string]struct {
		make func(dir string) error
		want string
	}{
		"a file of ours": {func(string) error { return nil }, ""},
		"a link to it": {func(dir string) error {
			return errors.Join(os.Rename(dir+"/ca.pem", dir+"/x"), os.Symlink("x", dir+"/ca.pem"))
		}, ""},
		"a file that all may write": {func(dir string) error { return os.Chmod(dir+"/ca.pem", 0o666) }, "ca.pem can be written by others (mode 0666)"},
		"a file of a group":         {func(dir string) error { return os.Chmod(dir+"/ca.pem", 0o664) }, "remove that with chmod go-w"},
		"a directory all may write": {func(dir string) error { return os.Chmod(dir, 0o777) }, "can be written by others (mode 0777)"},
		"no file":                   {func(dir string) error { return os.Remove(dir + "/ca.pem") }, "no such file"},
		"a directory":               {func(dir string) error { return errors.Join(os.Remove(dir+"/ca.pem"), os.Mkdir(dir+"/ca.pem", 0o755)) }, "expected a regular file"},
		"a fifo": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/ca.pem"), unix.Mkfifo(dir+"/ca.pem", 0o600))
		}, "expected a regular file"},
		"what has no end": {func(dir string) error { return os.Truncate(dir+"/ca.pem", 1<<40) }, "more than 4194304 bytes"},
		"no certificate":  {func(dir string) error { return os.Truncate(dir+"/ca.pem", 10) }, "has no certificate"},
	} {
		dir := t.TempDir()
		err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/ca.pem", cert, 0o644), c.make(dir))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Hosts{}.transport(Host{CAFile: dir + "/ca.pem"})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "registries: caFile")) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
}

// One that another user owns neither: root alone may have it, or a link to it.
func TestCAFileOfAnother(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "giving files away needs root")
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/ca.pem", nil, 0o644), os.Symlink("ca.pem", dir+"/link"), os.Lchown(dir+"/link", 1000, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := (Hosts{}).transport(Host{CAFile: dir + "/link"}); err == nil || !strings.Contains(err.Error(), "is a symbolic link that belongs to user 1000") {
		t.Errorf("a link: %v", err)
	}
	if err := os.Chown(dir+"/ca.pem", 1000, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := (Hosts{}).transport(Host{CAFile: dir + "/ca.pem"}); err == nil || !strings.Contains(err.Error(), "belongs to user 1000") {
		t.Errorf("a file: %v", err)
	}
}

func TestHostsCheck(t *testing.T) {
	t.Parallel()
	for _, bad := range []Hosts{{"a b": {}}, {"docker.io": {Mirrors: []string{"https://m"}}}, {"docker.io": {Mirrors: []string{"m m"}}}, {"docker.io": {CAFile: "x"}}} {
		if bad.Check() == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
	good := Hosts{"docker.io": {Mirrors: []string{"mirror.example:5000/hub", "m"}}, "a.example:5000": {PlainHTTP: true, CAFile: "/etc/ca.pem"}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}

// Which image of an archive or a layout is meant, and that none is guessed.
func TestChoice(t *testing.T) {
	t.Parallel()
	const one, other, elsewhere = "docker.io/library/web:1", "docker.io/library/db:1", "registry.example/web:1"
	several := [][]string{{one}, {other, "db:latest"}, {"3"}}
	for name, c := range map[string]struct {
		tag  string
		all  [][]string
		want []int
		says string
	}{
		"the only one":                {"", [][]string{{one}}, []int{0}, ""},
		"the only one, without a tag": {"", [][]string{{}}, []int{0}, ""},
		"of all platforms":            {"", [][]string{{one}, {one}}, []int{0, 1}, ""},
		"a name and no name":          {"", [][]string{{one}, {}}, nil, "several images"},
		"none is said":                {"", several, nil, "3, db:1, db:latest, web:1"},
		"by its tag":                  {"3", several, []int{2}, ""},
		"by another tag of it":        {"latest", several, []int{1}, ""},
		"by its name":                 {"db:1", several, []int{1}, ""},
		"by its whole name":           {one, several, []int{0}, ""},
		"a tag that two have":         {"1", several, nil, "several images"},
		"a name that two have":        {"web:1", [][]string{{one}, {elsewhere}}, nil, "several images"},
		"the end of a name":           {"b:1", several, nil, "no tag"},
		"no such tag":                 {"2", several, nil, "no tag \"2\", but 3, db:1"},
		"a tag where none are":        {"2", [][]string{{""}}, nil, "but none"},
	} {
		got, err := choice("archive", c.tag, c.all)
		if !slices.Equal(got, c.want) || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; expected %v, %q", name, got, err, c.want, c.says)
		}
	}
}

// A registry elsewhere leads nobody to services of this host, over TLS or not.
func TestInside(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		registry, url string
		ok            bool
	}{
		{"registry.example", "http://127.0.0.1:8080/admin", false},
		{"registry.example:5000", "https://127.1.2.3/", false},
		{"registry.example", "http://localhost:5000/", false},
		{"registry.example", "http://[::1]:80/", false},
		{"registry.example", "https://blobs.example/", true},
		{"registry.example", "https://registry.example/", true},
		{"registry.example", "http://127.0.0.1:7000/", true}, // which the host allows
		{"127.0.0.1:5000", "http://127.0.0.1:6000/", true},
		{"[::1]:5000", "http://[::1]:5000/", true},
		{"localhost:5000", "http://127.0.0.1:6000/", true},
	} {
		g := guarded{answers{}, Hosts{"127.0.0.1:7000": {PlainHTTP: true}}, c.registry}
		r, err := http.NewRequest(http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.RoundTrip(r)
		if (err == nil) != c.ok || !c.ok && !errors.Is(err, errInside) {
			t.Errorf("%s to %s: %v", c.registry, c.url, err)
		}
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
	}
}

// drip gives a few bytes every second, and never ends.
type drip struct {
	bytes  int
	closed chan struct{}
}

func (d drip) Read(b []byte) (int, error) {
	select {
	case <-d.closed:
		return 0, errors.New("closed")
	case <-time.After(time.Second):
		return min(d.bytes, len(b)), nil
	}
}

func (d drip) Close() error {
	close(d.closed)
	return nil
}

// A registry that gives next to nothing is given up, and one that is slow is not.
func TestDrip(t *testing.T) {
	t.Parallel()
	for bytes, ok := range map[int]bool{0: false, 1: false, 500: false, 2 << 10: true, 100 << 10: true} {
		synctest.Test(t, func(t *testing.T) {
			r := guardStall(drip{bytes, make(chan struct{})})
			defer r.Close()
			began := time.Now()
			var err error
			for err == nil && time.Since(began) < time.Hour {
				_, err = r.Read(make([]byte, 256<<10))
			}
			if (err == nil) != ok || err != nil && (!errors.Is(err, ErrUnreachable) || time.Since(began) > 5*time.Minute) {
				t.Errorf("%d bytes a second: %v after %v", bytes, err, time.Since(began))
			}
		})
	}
}

// dripping is a registry that answers everything with a status, and then gives next to
// nothing. It leads to itself.
type dripping int

func (d dripping) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: int(d), Header: http.Header{"Location": {r.URL.String()}}, ContentLength: -1,
		Body: drip{1, make(chan struct{})}, Request: r,
	}, nil
}

// Also what is no document of a repository has an end: the client reads errors and
// redirections by itself.
func TestDripOfErrors(t *testing.T) {
	t.Parallel()
	repo, err := name.NewRepository("registry.example/a")
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 408, 416, 429, 500, 503, 504} {
		synctest.Test(t, func(t *testing.T) {
			e := &endpoint{repo: repo, scheme: "https", client: &http.Client{Transport: guarded{dripping(status), nil, "registry.example"}}}
			began := time.Now()
			resp, err := e.get(t.Context(), Options{}, "manifests/1", http.Header{}, http.StatusOK)
			if err == nil {
				resp.Body.Close()
				t.Errorf("%d: no error", status)
			}
			if took := time.Since(began); took > 15*time.Minute {
				t.Errorf("%d: it took %v", status, took)
			}
		})
	}
}
