// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/hostpolicy"
)

const (
	passwd = "root:x:0:0::/root:/bin/sh\napp:x:101:102:An app:/srv/app:/bin/sh\nhome:x:7:7::relative:/bin/sh\nfar:x:4294967295:1::/:\n"
	group  = "root:x:0:\napp:x:102:\nextra:x:200:root,app\nwww:x:33:\n"
)

func imageOf(c ImageConfig, files map[string]string) *Image {
	img := &Image{ImageSource: ImageSource{Ref: "docker.io/library/a:1", Digest: "sha256:aa"}, Config: c}
	if s, ok := files["etc/passwd"]; ok {
		img.Passwd = []byte(s)
	}
	if s, ok := files["etc/group"]; ok {
		img.Group = []byte(s)
	}
	return img
}

func fromImage(t *testing.T, img *Image, policy *hostpolicy.Policy, change func(*desired.Spec)) (*Setup, error) {
	t.Helper()
	sb := &desired.Sandbox{Metadata: desired.Metadata{Name: "web"}}
	sb.Spec.Root.Image = &desired.ImageRoot{Ref: "a:1"}
	if change != nil {
		change(&sb.Spec)
	}
	desired.Default(sb)
	return FromManifest(sb, policy, img, nil)
}

// What runs follows from manifest and image as in Kubernetes: a command replaces the
// entrypoint and with it the arguments of the image, args alone replace these.
func TestImageCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		entrypoint, cmd, command, args []string
		want                           string
	}{
		{[]string{"/e"}, nil, nil, nil, "/e"},
		{[]string{"/e"}, []string{"c"}, nil, nil, "/e c"},
		{nil, []string{"/c", "d"}, nil, nil, "/c d"},
		{[]string{"/e", "f"}, []string{"c"}, nil, []string{"a", "$(B)"}, "/e f a b"},
		{nil, []string{"/c"}, nil, []string{"/a"}, "/a"},
		{[]string{"/e"}, []string{"c"}, []string{"/m"}, nil, "/m"},
		{[]string{"/e"}, []string{"c"}, []string{"/m", "$(B)"}, []string{"a"}, "/m b a"},
		// References are the manifest's: what an image has is taken as it is.
		{[]string{"/e", "$(B)"}, nil, nil, nil, "/e $(B)"},
		{nil, nil, nil, nil, ""},
		{[]string{""}, nil, nil, nil, ""},
		{nil, []string{"/c\x00"}, nil, nil, ""},
	} {
		st, err := fromImage(t, imageOf(ImageConfig{Entrypoint: c.entrypoint, Cmd: c.cmd}, nil), nil, func(s *desired.Spec) {
			s.Command, s.Args, s.Env = c.command, c.args, []desired.EnvVar{{Name: "B", Value: "b"}}
		})
		if c.want == "" {
			if err == nil {
				t.Errorf("%+v: %q", c, st.App().Spec.Process.Args)
			}
			continue
		}
		if err != nil || strings.Join(st.App().Spec.Process.Args, " ") != c.want {
			t.Errorf("%+v: %v, expected %q", c, err, c.want)
		}
	}
}

func TestImageEnv(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		image []string
		given []desired.EnvVar
		want  []string
	}{
		"nothing":        {nil, nil, []string{"HOME=/root", DefaultPath}},
		"the image's":    {[]string{"PATH=/opt", "A=1", "HOME=/h"}, nil, []string{"PATH=/opt", "A=1", "HOME=/h"}},
		"the manifest's": {[]string{"PATH=/opt", "A=1"}, []desired.EnvVar{{Name: "A", Value: "2"}, {Name: "PATH", Value: "/m"}, {Name: "HOME", Value: "/x"}}, []string{"A=2", "PATH=/m", "HOME=/x"}},
		"the default":    {nil, []desired.EnvVar{{Name: "PATH", Value: strings.TrimPrefix(DefaultPath, "PATH=")}}, []string{"HOME=/root", DefaultPath}},
		"beginnings":     {[]string{"AB=1", "HOMER=2"}, []desired.EnvVar{{Name: "A", Value: "3"}}, []string{"HOME=/root", "AB=1", "HOMER=2", "A=3", DefaultPath}},
		"broken ones":    {[]string{"", "=x", "NOVALUE", "E="}, nil, []string{"HOME=/root", "E=", DefaultPath}},
		"a reference":    {[]string{"A=1"}, []desired.EnvVar{{Name: "B", Value: "$(A)"}}, []string{"HOME=/root", "A=1", "B=$(A)", DefaultPath}},
	} {
		st, err := fromImage(t, imageOf(ImageConfig{Cmd: []string{"/c"}, Env: c.image}, map[string]string{"etc/passwd": passwd}), nil, func(s *desired.Spec) { s.Env = c.given })
		if err != nil || !slices.Equal(st.App().Spec.Process.Env, c.want) {
			t.Errorf("%s: %q %v, expected %q", name, st.App().Spec.Process.Env, err, c.want)
		}
	}
}

// Variables whose values are not written down win over those of the image as others do, and
// are the first ones: the sentry does not log these, and knows them by their number.
func TestImagePrivate(t *testing.T) {
	t.Parallel()
	sb := &desired.Sandbox{}
	sb.Spec.Args = []string{"$(B)"}
	st, err := fromImage(t, imageOf(ImageConfig{Entrypoint: []string{"/e"}, Env: []string{"PATH=/opt", "A=image", "C=image"}}, map[string]string{"etc/passwd": passwd}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.UsePrivate(sb, []envfile.Variable{{Name: "A", Value: "secret"}, {Name: "B", Value: "b"}}); err != nil {
		t.Fatal(err)
	}
	p := st.Process()
	if !slices.Equal(p.Args, []string{"/e", "b"}) || !slices.Equal(p.Env, []string{"A=secret", "B=b", "HOME=/root", "PATH=/opt", "C=image"}) || st.PrivateVariables() != 2 {
		t.Errorf("%q %q", p.Args, p.Env)
	}
}

// Names are those of the image, and nobody becomes root because a name or a number is
// odd.
func TestImageUser(t *testing.T) {
	t.Parallel()
	files := map[string]string{"etc/passwd": passwd, "etc/group": group}
	named := func(name string, groups ...uint32) *desired.User { return &desired.User{Name: name, Groups: groups} }
	for _, c := range []struct {
		image    string
		manifest *desired.User
		files    map[string]string
		uid, gid uint32
		groups   []uint32
		home     string
		err      string
	}{
		{"", nil, files, 0, 0, []uint32{200}, "/root", ""},
		{"app", nil, files, 101, 102, []uint32{200}, "/srv/app", ""},
		{"app:www", nil, files, 101, 33, nil, "/srv/app", ""},
		{"app:5", nil, files, 101, 5, nil, "/srv/app", ""},
		{"101", nil, files, 101, 102, []uint32{200}, "/srv/app", ""},
		{"4242", nil, files, 4242, 0, nil, "/", ""},
		{"4242:4343", nil, files, 4242, 4343, nil, "/", ""},
		{"home", nil, files, 7, 7, nil, "/", ""},
		{"", nil, nil, 0, 0, nil, "/", ""},
		{"1000", nil, nil, 1000, 0, nil, "/", ""},
		{"app", named("root:www", 9, 33, 9), files, 0, 33, []uint32{9, 33}, "/root", ""},
		{"root", named("app", 5), files, 101, 102, []uint32{5, 200}, "/srv/app", ""},
		{"app", &desired.User{UID: new(uint32(0)), GID: new(uint32(3)), Groups: []uint32{4}}, files, 0, 3, []uint32{4}, "/root", ""},
		{"nosuch", &desired.User{UID: new(uint32(4294967294)), GID: new(uint32(3))}, nil, 4294967294, 3, nil, "/", ""},
		{"nosuch", nil, files, 0, 0, nil, "", "spec.root.image: the user of the image: unable to find user nosuch"},
		{"app", nil, nil, 0, 0, nil, "", "unable to find user app"},
		{"app:nosuch", nil, files, 0, 0, nil, "", "unable to find group nosuch"},
		{"-1", nil, files, 0, 0, nil, "", "the user of the image"},
		{"4294967295", nil, files, 0, 0, nil, "", "the user of the image"},
		{"99999999999999999999", nil, files, 0, 0, nil, "", "the user of the image"},
		{"far", nil, files, 0, 0, nil, "", "the user of the image"},
		{"", named("nosuch"), files, 0, 0, nil, "", "spec.user.name: unable to find user nosuch"},
	} {
		st, err := fromImage(t, imageOf(ImageConfig{Cmd: []string{"/c"}, User: c.image}, c.files), nil, func(s *desired.Spec) { s.User = c.manifest })
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %+v: %v, expected %q", c.image, c.manifest, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q, %+v: %v", c.image, c.manifest, err)
			continue
		}
		p := st.App().Spec.Process
		if p.User.UID != c.uid || p.User.GID != c.gid || !slices.Equal(p.User.AdditionalGids, c.groups) || !slices.Contains(p.Env, "HOME="+c.home) {
			t.Errorf("%q, %+v: %+v %q", c.image, c.manifest, p.User, p.Env)
		}
		if (len(p.Capabilities.Effective) > 0) != (c.uid == 0) {
			t.Errorf("%q, %+v: effective %q", c.image, c.manifest, p.Capabilities.Effective)
		}
	}
}

// The policy that wants no root judges the user that the image has.
func TestImageRootUser(t *testing.T) {
	t.Parallel()
	policy, problems := hostpolicy.Decode("p.yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\nrootUser: false\n"))
	if policy == nil {
		t.Fatal(problems)
	}
	files := map[string]string{"etc/passwd": passwd}
	for user, allowed := range map[string]bool{"": false, "root": false, "0": false, "0:5": false, "app": true, "101": true} {
		_, err := fromImage(t, imageOf(ImageConfig{Cmd: []string{"/c"}, User: user}, files), policy, nil)
		if (err == nil) != allowed {
			t.Errorf("%q: %v", user, err)
		}
	}
}

func TestImageSetup(t *testing.T) {
	t.Parallel()
	img := imageOf(ImageConfig{Cmd: []string{"/c"}, WorkingDir: "srv/../app", StopSignal: "SIGQUIT"}, nil)
	st, err := fromImage(t, img, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st.MountConfs() != "erofs:memory" || st.App().Spec.Root.Readonly || st.App().Spec.Process.Cwd != "/app" || img.StopSignal() != "SIGQUIT" {
		t.Errorf("%s %+v %+v", st.MountConfs(), st.App().Spec.Root, st.App().Spec.Process)
	}
	st, err = fromImage(t, img, nil, func(s *desired.Spec) {
		s.Overlay, s.WorkingDir = desired.OverlayNone, "/w"
		s.Volumes = []desired.Volume{{Name: "v", MountPath: "/v", HostPath: "/srv/v"}}
	})
	if err != nil || st.MountConfs() != "erofs:memory,lisafs:none" || !st.App().Spec.Root.Readonly || st.App().Spec.Process.Cwd != "/w" {
		t.Errorf("%s %+v %v", st.MountConfs(), st.App().Spec.Root, err)
	}
	for _, sig := range []string{"", "NOSUCH", "0", "-1"} {
		if got := (&Image{Config: ImageConfig{StopSignal: sig}}).StopSignal(); got != "" {
			t.Errorf("%q is the signal %q", sig, got)
		}
	}
	if _, err := fromImage(t, nil, nil, nil); err == nil {
		t.Error("it is built without its image")
	}
}

// What no program can be started with is told before anything is started, in a short
// message.
func TestImageStrings(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("/a", n/2) }
	for name, c := range map[string]struct {
		config ImageConfig
		want   string
	}{
		"most of all":           {ImageConfig{Entrypoint: []string{long(maxPath), long(maxArgument)}, Env: []string{"A=" + long(maxArgument-2)}, WorkingDir: long(maxPath)}, ""},
		"a program":             {ImageConfig{Entrypoint: []string{long(maxPath + 1)}}, "names a program of 4096 bytes, a path has at most 4095"},
		"a working directory":   {ImageConfig{Entrypoint: []string{"/a"}, WorkingDir: long(1 << 20)}, "of 1048576 bytes"},
		"a directory to refuse": {ImageConfig{Entrypoint: []string{"/a"}, WorkingDir: long(maxPath + 1)}, "names a working directory of 4096 bytes"},
		"an argument":           {ImageConfig{Entrypoint: []string{"/a"}, Cmd: []string{long(maxArgument + 1)}}, "an argument, variable or path of 131072 bytes"},
		"a variable":            {ImageConfig{Entrypoint: []string{"/a"}, Env: []string{"A=" + long(maxArgument)}}, "an argument, variable or path of 131072 bytes"},
		"a NUL":                 {ImageConfig{Entrypoint: []string{"/a"}, Env: []string{"A=\x00"}}, "holds a NUL"},
		"a user":                {ImageConfig{Entrypoint: []string{"/a"}, User: long(1 << 20)}, "its name has 1048576 bytes"},
	} {
		_, err := fromImage(t, imageOf(c.config, nil), nil, nil)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !operation.Permanent(err) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500):
			t.Errorf("%s: %.500v, expected %q", name, err, c.want)
		}
	}
}
