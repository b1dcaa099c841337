// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/setup"
)

// root is a tree with bin/tool, and sbin as a link to it in the terms of the
// container.
func commandRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"bin", "etc"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/tool"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/bin", filepath.Join(root, "sbin")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestCheckCommand(t *testing.T) {
	t.Parallel()
	root := commandRoot(t)
	for _, c := range []struct{ name, env, cwd, mount, want string }{
		{"/bin/tool", "", "/", "", ""},
		{"/sbin/tool", "", "/", "/proc", ""},
		{"./tool", "", "/bin", "", ""},
		{"tool", "PATH=/nosuch:/sbin", "/", "", ""},
		{"/bin/none", "", "/", "/etc/hosts", `exec: "/bin/none": stat /bin/none: no such file or directory`},
		{"bin/none", "", "/", "", "stat /bin/none"},
		{"none", "PATH=/bin:/sbin", "/", "", `exec: "none": executable file not found in $PATH`},
		// Not sure: it may be in a mount, or relative to what is not known.
		{"/opt/none", "", "/", "/opt", ""},
		{"none", "PATH=/bin", "/", "/usr", ""},
		{"none", "PATH=bin", "/", "", ""},
		{"none", "X=y", "/", "", `exec: "none": executable file not found in $PATH`},
		{"/tmp/none", "", "/", "", ""},
		// The host has it, the container does not.
		{"/usr/bin/env", "", "/", "", "no such file"},
	} {
		cfg := &specs.Spec{Process: &specs.Process{Args: []string{c.name}, Env: []string{c.env}, Cwd: c.cwd}}
		if c.mount != "" {
			cfg.Mounts = []specs.Mount{{Destination: c.mount}}
		}
		err := checkCommand(cfg, root)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Mount points are made where a read-only root lacks them, and nowhere else.
func TestMakeMountPoints(t *testing.T) {
	t.Parallel()
	root, host := commandRoot(t), t.TempDir()
	if err := os.Symlink(host, filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(host, "f")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	st := &setup.Setup{Containers: []setup.Container{{Root: setup.Source{Path: root, ReadOnly: true}, Spec: &specs.Spec{Mounts: []specs.Mount{
		{Destination: "/proc", Type: "proc"}, {Destination: "/a/b/c", Type: "tmpfs"}, {Destination: "/proc/x", Type: "tmpfs"},
	}}}}}
	st.AddBind("/etc/hosts", setup.Source{Path: file, ReadOnly: true})
	st.AddBind("/data", setup.Source{Path: host})
	st.AddBind("/bin/tool", setup.Source{Path: file, ReadOnly: true})
	// In the place of masked files, whose source is nowhere on the host.
	st.AddBind("/bin/masked", setup.Source{ReadOnly: true, Empty: true})
	st.AddBind("/not/there", setup.Source{ReadOnly: true, Empty: true})
	for range 2 {
		if err := makeMountPoints(st); err != nil {
			t.Fatal(err)
		}
	}
	for name, dir := range map[string]bool{"proc": true, "a/b/c": true, "etc/hosts": false, "data": true, "not/there": false} {
		if info, err := os.Lstat(filepath.Join(root, name)); err != nil || info.IsDir() != dir {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(root, "proc/x")); err == nil {
		t.Error("a mount point is made below another mount")
	}
	st.AddBind("/out/escape", setup.Source{Path: host, ReadOnly: true})
	if err := makeMountPoints(st); err == nil {
		if _, err := os.Lstat(filepath.Join(host, "escape")); err == nil {
			t.Error("a link led out of the root")
		}
	}
}

// A command that can't be executed is tried again only where somebody could put it right
// without the daemon seeing that.
func TestLasting(t *testing.T) {
	t.Parallel()
	image := desired.Root{Image: &desired.ImageRoot{Ref: "app:1"}}
	volume := func(v desired.Volume) desired.Spec {
		return desired.Spec{Root: image, Volumes: []desired.Volume{v}}
	}
	of := func(onChange string) desired.Spec {
		return volume(desired.Volume{Config: &desired.FileSet{Files: map[string]string{"run": "/srv/run"}, OnChange: onChange}})
	}
	broken := operation.Precondition(errors.New("command not found"))
	for name, c := range map[string]struct {
		spec desired.Spec
		err  error
		want bool
	}{
		"an image":                   {desired.Spec{Root: image}, broken, true},
		"what may come right":        {desired.Spec{Root: image}, errors.New("input/output error"), false},
		"a directory":                {desired.Spec{Root: desired.Root{Dir: "/srv/root"}}, broken, false},
		"the host":                   {desired.Spec{Root: desired.Root{Host: &desired.HostRoot{}}}, broken, false},
		"a bundle":                   {desired.Spec{Root: desired.Root{Bundle: "/srv/b"}}, broken, false},
		"a path of the host":         {volume(desired.Volume{HostPath: "/srv/tools"}), broken, false},
		"a named volume":             {volume(desired.Volume{Volume: &desired.NamedVolume{Name: "tools"}}), broken, false},
		"an empty directory":         {volume(desired.Volume{EmptyDir: &desired.EmptyDir{}}), broken, true},
		"text of the manifest":       {volume(desired.Volume{Config: &desired.FileSet{Data: map[string]string{"a": "x"}}}), broken, true},
		"a file that restarts it":    {of(desired.OnChangeRestart), broken, true},
		"a file that is ignored":     {of(desired.OnChangeIgnore), broken, false},
		"a file that sends a signal": {of(desired.OnChangeSignal), broken, false},
		"a variable that is ignored": {desired.Spec{Root: image, EnvFrom: []desired.EnvFrom{{File: "/srv/env", OnChange: desired.OnChangeIgnore}}}, broken, false},
	} {
		err := Lasting(c.err, &c.spec)
		if operation.Permanent(err) != c.want || !errors.Is(err, c.err) || operation.PreconditionFailed(err) != operation.PreconditionFailed(c.err) {
			t.Errorf("%s: permanent is %v, %v", name, !c.want, err)
		}
	}
}
