// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strings"
	"testing"

	"sandboxctl.dev/desired/imageref"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func withImage(image string, lines ...string) string {
	return strings.Replace(strings.Replace(with(lines...), "{host: {}}", "{image: "+image+"}", 1), "  command: [sh]\n", "", 1)
}

func TestDecodeImage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"a name":             {withImage("{ref: nginx}"), ""},
		"all":                {withImage("{ref: nginx, pullPolicy: Always, digest: "+digestA+"}", "args: [a]", "user: {name: nginx}", "overlay: none"), ""},
		"a pinned name":      {withImage("{ref: nginx@" + digestA + ", digest: " + digestA + "}"), ""},
		"never":              {withImage("{ref: 'oci:/srv/l', pullPolicy: Never}", "command: [a]", "user: {name: 'nginx:www-data', groups: [5]}"), ""},
		"nothing":            {withImage("{}"), "f.yaml:5:17: spec.root.image.ref: is missing"},
		"empty":              {withImage("{ref: ''}"), `f.yaml:5:18: spec.root.image.ref: is missing`},
		"text":               {withImage("nginx"), "f.yaml:5:17: spec.root.image: expected"},
		"misspelt field":     {withImage("{reff: nginx}"), `did you mean "ref"?`},
		"tag":                {withImage("{ref: nginx, tag: x}"), "f.yaml:5:30: spec.root.image.tag: unknown field"},
		"upper case":         {withImage("{ref: Nginx:1}"), `did you mean "nginx:1"?`},
		"a scheme":           {withImage("{ref: 'docker://nginx:1'}"), `did you mean "nginx:1"?`},
		"skopeo's word":      {withImage("{ref: 'docker-archive:/srv/a.tar'}"), `did you mean "archive:/srv/a.tar"?`},
		"relative layout":    {withImage("{ref: 'oci:layout'}"), `f.yaml:5:18: spec.root.image.ref: expected an absolute path, got "layout"`},
		"out of a layout":    {withImage("{ref: 'oci:/srv/../etc'}"), `did you mean "/etc"?`},
		"policy":             {withImage("{ref: nginx, pullPolicy: always}"), `f.yaml:5:30: spec.root.image.pullPolicy: expected one of IfNotPresent, Always, Never, got "always"; did you mean "Always"?`},
		"digest":             {withImage("{ref: nginx, digest: abc}"), `f.yaml:5:30: spec.root.image.digest: expected sha256: and 64 of 0-9a-f, got "abc"`},
		"two digests":        {withImage("{ref: nginx@" + digestA + ", digest: " + digestB + "}"), "is not the one in ref"},
		"two roots":          {withImage("{ref: nginx}, host: {}"), "spec.root: expected exactly one of host, dir, bundle, image, got 2"},
		"direct, no files":   {withImage("{ref: nginx}", "fileAccess: direct", "volumes: [{name: a, mountPath: /a, tmpfs: {}}, {name: b, mountPath: /b, emptyDir: {}}]"), "spec.fileAccess: direct is for files of the host"},
		"direct host path":   {withImage("{ref: nginx}", "fileAccess: direct", "volumes: [{name: a, mountPath: /a, hostPath: /srv/a}]"), ""},
		"direct volume":      {withImage("{ref: nginx}", "fileAccess: direct", "volumes: [{name: a, mountPath: /a, volume: {name: a}}]"), ""},
		"relative directory": {withImage("{ref: nginx}", "workingDir: a"), `spec.workingDir: expected an absolute path, got "a"`},
		"empty program":      {withImage("{ref: nginx}", "command: ['']"), "spec.command[0]: expected a program"},
		"name and ids":       {withImage("{ref: nginx}", "user: {name: a, uid: 1, gid: 1}"), "spec.user.uid: can't be set beside name"},
		"name, no image":     {with("user: {name: a}"), "spec.user.name: is for root.image"},
		"no gid":             {with("user: {uid: 5}"), "spec.user.gid: is missing: expected a number"},
		"no uid":             {withImage("{ref: nginx}", "user: {gid: 5}"), "spec.user.uid: is missing: expected a number"},
		"nobody at all":      {with("user: {}"), "spec.user.uid: is missing: expected a number"},
		"odd name":           {withImage("{ref: nginx}", "user: {name: 'a:b:c'}"), "spec.user.name: expected a name such as nginx"},
		"a line of passwd":   {withImage("{ref: nginx}", `user: {name: "a\nroot"}`), "spec.user.name: expected a name such as nginx"},
	} {
		got := problems(t, c.text)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got\n%s\nexpected\n%s", name, got, c.want)
		}
	}
}

// What the image says is not known when a manifest is read: nothing stands in its
// place. When it is fetched is no part of what runs.
func TestImageDefaults(t *testing.T) {
	t.Parallel()
	of := func(text string) *Sandbox {
		docs, ps := Decode("f.yaml", []byte(text))
		if len(ps) > 0 {
			t.Fatal(ps)
		}
		return docs[0].Sandbox
	}
	s := of(withImage("{ref: nginx}")).Spec
	if s.StopSignal != "" || s.WorkingDir != "" || s.User != nil || s.Root.Image.PullPolicy != imageref.PullIfNotPresent || s.Hostname != "web" {
		t.Errorf("%+v", s)
	}
	base := Hash(of(withImage("{ref: nginx}")))
	for _, image := range []string{"{ref: nginx, pullPolicy: Always}", "{ref: nginx, pullPolicy: IfNotPresent}", "{ref: nginx, pullPolicy: Never}"} {
		if sb := of(withImage(image)); Hash(sb) != base || !HashMatches(base, sb) {
			t.Errorf("%s changes the hash", image)
		}
	}
	for _, image := range []string{"{ref: nginx:1}", "{ref: nginx, digest: " + digestA + "}", "{ref: 'oci:/srv/l'}"} {
		if Hash(of(withImage(image))) == base {
			t.Errorf("%s does not change the hash", image)
		}
	}
	// The manifest is on record as it was written.
	sb := of(withImage("{ref: nginx, pullPolicy: Always}"))
	b, err := Canonical(sb)
	if err != nil {
		t.Fatal(err)
	}
	e, err := FromCanonical(b, "f.yaml")
	if err != nil || e.Sandbox.Spec.Root.Image.PullPolicy != imageref.PullAlways || e.Hash != base {
		t.Errorf("%+v %v", e, err)
	}
}

func TestImageReference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		image    ImageRoot
		full, at string
	}{
		{ImageRoot{Ref: "nginx"}, "docker.io/library/nginx:latest", "docker.io/library/nginx:latest@" + digestB},
		{ImageRoot{Ref: "nginx", Digest: digestA}, "docker.io/library/nginx:latest@" + digestA, "docker.io/library/nginx:latest@" + digestB},
		{ImageRoot{Ref: "nginx@" + digestA}, "docker.io/library/nginx@" + digestA, "docker.io/library/nginx@" + digestB},
		{ImageRoot{Ref: "archive:/a:b/l.tar:web:v1", Digest: digestA}, "archive:/a:b/l.tar:web:v1", "archive:/a:b/l.tar:web:v1"},
		{ImageRoot{Ref: "oci:/l:v1", Digest: digestA}, "oci:/l:v1", "oci:/l:v1"},
	} {
		if got := c.image.Reference(); got != c.full {
			t.Errorf("%+v is %s", c.image, got)
		}
		if got := c.image.At(digestB); got != c.at {
			t.Errorf("%+v is %q at another digest", c.image, got)
		}
	}
}
