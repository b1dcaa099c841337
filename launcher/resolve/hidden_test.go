// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/setup"
)

func TestHidden(t *testing.T) {
	t.Parallel()
	// Links in the way of the temporary directory would be resolved.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root, vol := filepath.Join(dir, "root"), filepath.Join(dir, "vol")
	for _, d := range []string{"root/etc/deep", "root/sys/firmware", "root/tmpfs/x", "vol/in", "root/vol/in", "root/out"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"root/etc/file", "vol/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// It leads out of the root and is to stay in it.
	if err := os.Symlink("/etc", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	all := "/vol=" + vol + " ro=false, /tmpfs tmpfs, /vol/late=" + vol + " ro=false"
	for name, want := range map[string]struct {
		masked, readonly []string
		want             string
		root             bool
	}{
		"nothing":   {nil, nil, all, false},
		"not there": {[]string{"/nosuch", "/etc/file/x"}, []string{"/nosuch"}, all, false},
		"the sentry's": {
			[]string{"/sys/firmware", "/proc/kcore", "/tmpfs/x"},
			[]string{"/proc/sys", "/tmpfs/x", "/dev"},
			all, false,
		},
		"masked": {
			[]string{"/etc/deep", "/etc/deep/er", "/etc/file", "/vol/in", "/vol/file"},
			nil,
			all + ", /etc/deep tmpfs, /etc/file=empty ro=true, /vol/in tmpfs, /vol/file=empty ro=true", false,
		},
		"a mount is masked": {[]string{"/vol"}, []string{"/vol/in"}, "/tmpfs tmpfs, /vol tmpfs", false},
		"read-only": {
			nil,
			[]string{"/etc", "/etc/file", "/vol/in/"},
			all + ", /etc=" + root + "/etc ro=true, /vol/in=" + vol + "/in ro=true", false,
		},
		"by a link":            {nil, []string{"/link"}, all + ", /etc=" + root + "/etc ro=true", false},
		"a mount is read-only": {nil, []string{"/vol/late"}, "/vol=" + vol + " ro=false, /tmpfs tmpfs, /vol/late=" + vol + " ro=true", false},
		"all is read-only":     {nil, []string{"/"}, all, true},
		"both":                 {[]string{"/etc"}, []string{"/etc/deep"}, all + ", /etc tmpfs", false},
	} {
		st, err := FromContainer(container(func(c *specs.Spec) {
			c.Root.Path = root
			c.Mounts = []specs.Mount{
				{Destination: "/vol", Type: "bind", Source: vol},
				{Destination: "/tmpfs", Type: "tmpfs", Source: "tmpfs"},
				{Destination: "/vol/late", Type: "bind", Source: vol},
			}
			c.Linux.MaskedPaths, c.Linux.ReadonlyPaths = want.masked, want.readonly
		}), "/")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := mountsText(t, name, st); text != want.want || st.App().Root.ReadOnly != want.root || st.App().Spec.Root.Readonly != want.root {
			t.Errorf("%s:\n%s,\nexpected\n%s", name, text, want.want)
		}
	}
	for _, bad := range []*specs.Linux{{MaskedPaths: []string{"a"}}, {MaskedPaths: []string{"/"}}, {ReadonlyPaths: []string{"../a"}}} {
		if _, err := FromContainer(container(func(c *specs.Spec) { c.Linux = bad }), "/"); err == nil || !strings.Contains(err.Error(), "expected an absolute path") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A path is hidden where its links lead in the container: in other mounts too, and with
// what is mounted below it.
func TestHiddenThroughLinks(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"root/run", "root/var", "vol/in"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "vol/key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"root/var/run": "/run", "root/var/lock": "../run/in", "root/top": "var/run/in", "root/key": "/var/run/other",
		"vol/other": "key", "vol/gone": "/nowhere", "root/all": "/", "root/loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	vol := filepath.Join(dir, "vol")
	all := "/run=" + vol + " ro=false, /tmp tmpfs, /run/in/deep=" + vol + " ro=false"
	for name, c := range map[string]struct {
		masked, readonly []string
		want             string
	}{
		"a file of a volume":      {[]string{"/var/run/key"}, nil, all + ", /run/key=empty ro=true"},
		"a link of a volume":      {[]string{"/var/run/other", "/key"}, nil, all + ", /run/key=empty ro=true"},
		"a mount below":           {[]string{"/var/lock"}, nil, "/run=" + vol + " ro=false, /tmp tmpfs, /run/in tmpfs"},
		"a mount below, by two":   {[]string{"/top", "/var/run/in/deep"}, nil, "/run=" + vol + " ro=false, /tmp tmpfs, /run/in tmpfs"},
		"a mount":                 {[]string{"/var/run"}, nil, "/tmp tmpfs, /run tmpfs"},
		"leads nowhere":           {[]string{"/var/run/gone"}, []string{"/run/gone/x"}, all},
		"a mount read-only":       {nil, []string{"/var/run"}, "/run=" + vol + " ro=true, /tmp tmpfs, /run/in/deep=" + vol + " ro=false"},
		"a directory read-only":   {nil, []string{"/top"}, all + ", /run/in=" + vol + "/in ro=true"},
		"masked, else read-only":  {[]string{"/run/in"}, []string{"/top", "/var/lock/deep"}, "/run=" + vol + " ro=false, /tmp tmpfs, /run/in tmpfs"},
		"everything":              {[]string{"/all"}, nil, "error: leads to the root"},
		"a circle":                {[]string{"/loop"}, nil, "error: mask /loop: .*circle"},
		"a circle, and read-only": {nil, []string{"/loop/x"}, "error: read-only: /loop/x: .*circle"},
	} {
		st, err := FromContainer(container(func(cfg *specs.Spec) {
			cfg.Root.Path = filepath.Join(dir, "root")
			cfg.Mounts = []specs.Mount{
				{Destination: "/run", Type: "bind", Source: vol},
				{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
				{Destination: "/run/in/deep", Type: "bind", Source: vol},
			}
			cfg.Linux.MaskedPaths, cfg.Linux.ReadonlyPaths = c.masked, c.readonly
		}), "/")
		if want, fails := strings.CutPrefix(c.want, "error: "); fails {
			if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
				t.Errorf("%s: %v, expected %s", name, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := mountsText(t, name, st); got != c.want {
			t.Errorf("%s:\n%s,\nexpected\n%s", name, got, c.want)
		}
	}
}

// mountsText lists the mounts of a set-up, and checks that gofer and sentry are told
// the same.
func mountsText(t *testing.T, name string, st *setup.Setup) string {
	t.Helper()
	var got []string
	volumes := st.App().Volumes
	for _, m := range st.App().Spec.Mounts {
		if !setup.IsBind(m) {
			got = append(got, m.Destination+" "+m.Type)
			continue
		}
		v := volumes[0]
		volumes = volumes[1:]
		if v.Empty {
			v.Path = "empty"
		}
		if v.ReadOnly != slices.Contains(m.Options, "ro") {
			t.Errorf("%s: %s: gofer and sentry are told different things", name, m.Destination)
		}
		got = append(got, fmt.Sprintf("%s=%s ro=%t", m.Destination, v.Path, v.ReadOnly))
	}
	return strings.Join(got, ", ")
}

// A tree that is away for a moment is no tree in which there is nothing to hide: what
// is below it would be open once it is back.
func TestHiddenTreeAway(t *testing.T) {
	t.Parallel()
	for _, away := range []string{"root", "vol"} {
		for _, readonly := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, read-only %t", away, readonly), func(t *testing.T) {
				t.Parallel()
				dir, err := filepath.EvalSymlinks(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range []string{"root/vol", "vol"} {
					if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				st, err := FromContainer(container(func(c *specs.Spec) {
					c.Root.Path = filepath.Join(dir, "root")
					c.Mounts = []specs.Mount{{Destination: "/vol", Type: "bind", Source: filepath.Join(dir, "vol")}}
				}), "/")
				if err != nil {
					t.Fatal(err)
				}
				path := map[string]string{"root": "/secret", "vol": "/vol/secret"}[away]
				if readonly {
					st.App().Readonly = []string{path}
				} else {
					st.App().Masked = []string{path}
				}
				if err := os.Rename(filepath.Join(dir, away), filepath.Join(dir, "away")); err != nil {
					t.Fatal(err)
				}
				if err := hide(st, nil); err == nil || !strings.Contains(err.Error(), path) {
					t.Errorf("%v: the sandbox would start without", err)
				}
			})
		}
	}
}
