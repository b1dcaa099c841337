// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// hook is a bundle with one hook.
func hook(program string, args ...string) *setup.Hooks {
	return &setup.Hooks{Hooks: &specs.Hooks{Poststop: []specs.Hook{{Path: program, Args: args}}}}
}

// moved is the set-up with its paths in a directory.
func moved(st *setup.Setup, in func(string) string, policy *hostpolicy.Policy) *setup.Setup {
	out := &setup.Setup{Policy: policy, Containers: []setup.Container{{Bundle: in(st.App().Bundle)}}}
	if st.App().Hooks != nil {
		h := st.App().Hooks.Hooks.Poststop[0]
		args := make([]string, len(h.Args))
		for i, a := range h.Args {
			args[i] = in(a)
		}
		out.App().Hooks = hook(in(h.Path), args...)
	}
	return out
}

// Every tree is compared with what is never shared, wherever it is named: volumes,
// roots, bundles and the view of the host.
func TestServedNeverShared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bindAt string // where the state is seen, too
		serve  setup.Source
		want   string
		st     setup.Setup
	}{
		"a volume":              {"WORK/allowed/v", setup.Source{Path: "WORK/allowed/v", Field: "spec.volumes[0].hostPath"}, "spec.volumes[0].hostPath: open WORK/allowed/v: it is part of WORK/state", setup.Setup{Containers: []setup.Container{{}}}},
		"a root":                {"WORK/allowed/v", setup.Source{Path: "WORK/allowed", ReadOnly: true, Field: "spec.root.dir"}, "spec.root.dir: open WORK/allowed: WORK/allowed/v is mounted there, and it is part of WORK/state", setup.Setup{Containers: []setup.Container{{}}}},
		"an allowed path":       {"WORK/allowed/v", setup.Source{Path: "WORK/allowed/v", Allowed: "WORK/allowed", ReadOnly: true, Field: "f"}, "f: open", setup.Setup{Containers: []setup.Container{{}}}},
		"the view of the host":  {"/usr/share", setup.Source{Host: true, ReadOnly: true}, "spec.root.host: open /usr: /usr/share is mounted there, and it is part of WORK/state", setup.Setup{Containers: []setup.Container{{}}}},
		"the host without it":   {"", setup.Source{Host: true, ReadOnly: true}, "", setup.Setup{Containers: []setup.Container{{}}}},
		"a volume of others":    {"WORK/allowed/v", setup.Source{Path: "WORK/other", Field: "f"}, "", setup.Setup{Containers: []setup.Container{{}}}},
		"another policy's link": {"WORK/allowed/v", setup.Source{Path: "WORK/links", Field: "f"}, "f: open WORK/links: it holds WORK/links/manifests", setup.Setup{Containers: []setup.Container{{}}}},
		"its own bundle":        {"", setup.Source{Path: "WORK/other", Field: "f"}, "f: open WORK/other: it holds WORK/other/config.json, which no sandbox may write", setup.Setup{Containers: []setup.Container{{Bundle: "WORK/other"}}}},
		"its own bundle, read":  {"", setup.Source{Path: "WORK/other", Field: "f", ReadOnly: true}, "", setup.Setup{Containers: []setup.Container{{Bundle: "WORK/other"}}}},
		"beside its bundle":     {"", setup.Source{Path: "WORK/allowed", Field: "f"}, "", setup.Setup{Containers: []setup.Container{{Bundle: "WORK/other"}}}},
		"the program of a hook": {"", setup.Source{Path: "WORK/other", Field: "f"}, "it holds WORK/other/hook, which no sandbox may write", setup.Setup{Containers: []setup.Container{{Hooks: hook("WORK/other/hook")}}}},
		"the script of a hook":  {"", setup.Source{Path: "WORK/other", Field: "f"}, "it holds WORK/other/hook, which no sandbox may write", setup.Setup{Containers: []setup.Container{{Hooks: hook("/bin/sh", "sh", "WORK/other/hook")}}}},
		"what a hook writes":    {"", setup.Source{Path: "WORK/other", Field: "f"}, "", setup.Setup{Containers: []setup.Container{{Hooks: hook("/bin/touch", "touch", "WORK/other/hook")}}}},
		"a caFile":              {"", setup.Source{Path: "WORK/tls", Field: "f"}, "it holds WORK/tls/ca.pem, which no sandbox may write", setup.Setup{Containers: []setup.Container{{}}}},
		"a caFile, read":        {"", setup.Source{Path: "WORK/tls", Field: "f", ReadOnly: true}, "", setup.Setup{Containers: []setup.Container{{}}}},
		"plugins of CNI":        {"", setup.Source{Path: "WORK/plugins", Field: "f"}, "it is part of WORK/plugins, which no sandbox may write", setup.Setup{Containers: []setup.Container{{}}}},
		"a network of CNI":      {"", setup.Source{Path: "WORK/net.d", Field: "f"}, "it is part of WORK/net.d, which no sandbox may write", setup.Setup{Containers: []setup.Container{{}}}},
		"plugins of CNI, read":  {"", setup.Source{Path: "WORK/plugins", Field: "f", ReadOnly: true}, "", setup.Setup{Containers: []setup.Container{{}}}},
		"a hook elsewhere":      {"", setup.Source{Path: "WORK/other", Field: "f"}, "", setup.Setup{Containers: []setup.Container{{Hooks: hook("/bin/sh", "sh", "-c", "exit 0")}}}},
	} {
		check := func() error {
			work, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				return err
			}
			in := func(s string) string { return strings.ReplaceAll(s, "WORK", work) }
			for _, d := range []string{"allowed/v", "other", "links", "manifests", "tls", "plugins", "net.d"} {
				err = errors.Join(err, os.MkdirAll(filepath.Join(work, d), 0o755))
			}
			if err := errors.Join(err, os.Symlink("../manifests", filepath.Join(work, "links/manifests"))); err != nil {
				return err
			}
			store, err := actual.OpenStore(filepath.Join(work, "state"))
			if err != nil {
				return err
			}
			defer store.Close()
			if c.bindAt != "" {
				if err := unix.Mount(store.Path(), in(c.bindAt), "", unix.MS_BIND, ""); err != nil {
					return err
				}
			}
			if err := os.WriteFile(filepath.Join(work, "policy.yaml"), []byte(in("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\nnetwork: {cni: {networks: [lab], configDir: WORK/net.d, pluginDirs: [WORK/plugins]}}\n")), 0o600); err != nil {
				return err
			}
			policy, err := hostpolicy.NewFile(hostpolicy.Options{
				Path: filepath.Join(work, "policy.yaml"), Protected: []string{filepath.Join(work, "links/manifests"), store.Path()},
				Trusted: func() ([]string, error) { return []string{filepath.Join(work, "tls/ca.pem")}, nil },
			}).Load()
			if err != nil {
				return err
			}
			s := c.serve
			s.Path, s.Allowed = in(s.Path), in(s.Allowed)
			var toGofer, toSentry proc.Donation
			defer func() { _ = errors.Join(toGofer.Close(), toSentry.Close()) }()
			host := &Host{State: store.RootDir(), StatePath: store.Path(), Programs: []string{filepath.Join(work, "bin/sentry"), filepath.Join(work, "bin/gofer")}}
			files, err := OpenSources([]setup.Source{s}, nil, &toGofer, &toSentry)
			if err != nil {
				return err
			}
			never, _, err := files.Check(moved(&c.st, in, policy), host)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), in(c.want)) {
				t.Errorf("%s: %v, expected %q", name, err, in(c.want))
			}
			if err == nil && len(never) < 4 {
				t.Errorf("%s: the gofer is told of %+v only", name, never)
			}
			// Who is root may have everything, but for the kernel's filesystems.
			if _, _, err := files.Check(&setup.Setup{Containers: []setup.Container{{}}}, host); err != nil {
				t.Errorf("%s: without a policy: %v", name, err)
			}
			return nil
		}
		inMountNS(t, func() {
			if err := check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The data of a named volume is served when it was opened as one, and never by a path that
// leads to it. Nothing else of the state directory passes for one.
func TestServedVolumes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		serve setup.Source
		open  string // what is open as the volume
		want  string
	}{
		"a volume":              {setup.Source{Volume: "v", Field: "f"}, "state/volumes/v/data", ""},
		"a directory of it":     {setup.Source{Volume: "v", SubPath: "a", Field: "f"}, "state/volumes/v/data/a", ""},
		"not open":              {setup.Source{Volume: "v", Field: "f"}, "", "f: open volume v: the volume v is not open"},
		"by its path":           {setup.Source{Path: "WORK/state/volumes/v/data", Field: "f"}, "", "f: open WORK/state/volumes/v/data: it is part of WORK/state"},
		"by its path, read":     {setup.Source{Path: "WORK/state/volumes/v/data", ReadOnly: true, Field: "f"}, "", "it is part of WORK/state"},
		"a part, by its path":   {setup.Source{Path: "WORK/state/volumes/v/data/a", Field: "f"}, "", "it is part of WORK/state"},
		"by a mount":            {setup.Source{Path: "WORK/bound", Field: "f"}, "", "it is part of WORK/state"},
		"by a mount in it":      {setup.Source{Path: "WORK/allowed", Field: "f"}, "", "WORK/allowed/v is mounted there, and it is part of WORK/state"},
		"as a root":             {setup.Source{Path: "WORK/bound", ReadOnly: true, Field: "spec.root.dir"}, "", "it is part of WORK/state"},
		"what is beside it":     {setup.Source{Volume: "v", Field: "f"}, "state/volumes/v", "it is part of WORK/state"},
		"all volumes":           {setup.Source{Volume: "v", Field: "f"}, "state/volumes", "it is part of WORK/state"},
		"the records":           {setup.Source{Volume: "v", Field: "f"}, "state/sandboxes", "it is part of WORK/state"},
		"others in the state":   {setup.Source{Volume: "v", Field: "f"}, "state/sandboxes/v/data", "it is part of WORK/state"},
		"names":                 {setup.Source{Names: true, ReadOnly: true}, "state/sandboxes/v/names", ""},
		"names, not open":       {setup.Source{Names: true, ReadOnly: true}, "", "open directory of names: the directory of names is not open"},
		"names, to write":       {setup.Source{Names: true}, "state/sandboxes/v/names", "it is part of WORK/state"},
		"a sandbox as names":    {setup.Source{Names: true, ReadOnly: true}, "state/sandboxes/v", "it is part of WORK/state"},
		"names by their path":   {setup.Source{Path: "WORK/state/sandboxes/v/names", ReadOnly: true, Field: "f"}, "", "it is part of WORK/state"},
		"the state":             {setup.Source{Volume: "v", Field: "f"}, "state", "it is part of WORK/state"},
		"what holds the state":  {setup.Source{Volume: "v", Field: "f"}, ".", "it holds WORK/"},
		"manifests in a volume": {setup.Source{Volume: "m", Field: "f"}, "state/volumes/m/data", "it holds WORK/state/volumes/m/data/manifests"},
	} {
		check := func() error {
			work, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				return err
			}
			in := func(s string) string { return strings.ReplaceAll(s, "WORK", work) }
			store, err := actual.OpenStore(filepath.Join(work, "state"))
			if err != nil {
				return err
			}
			defer store.Close()
			for _, d := range []string{"state/volumes/v/data/a", "state/volumes/m/data/manifests", "state/sandboxes/v/data", "state/sandboxes/v/names", "bound", "allowed/v"} {
				err = errors.Join(err, os.MkdirAll(filepath.Join(work, d), 0o755))
			}
			for _, d := range []string{"bound", "allowed/v"} {
				err = errors.Join(err, unix.Mount(filepath.Join(work, "state/volumes/v/data"), filepath.Join(work, d), "", unix.MS_BIND, ""))
			}
			policy, perr := hostpolicy.NewFile(hostpolicy.Options{
				Path: filepath.Join(work, "policy.yaml"), Optional: true, Protected: []string{filepath.Join(work, "state/volumes/m/data/manifests"), store.Path()},
			}).Load()
			if err = errors.Join(err, perr); err != nil {
				return err
			}
			s := c.serve
			s.Path = in(s.Path)
			if c.open != "" {
				dir, err := os.Open(filepath.Join(work, c.open))
				if err != nil {
					return err
				}
				defer dir.Close()
				s.Dir = dir
			}
			var toGofer, toSentry proc.Donation
			defer func() { _ = errors.Join(toGofer.Close(), toSentry.Close()) }()
			files, err := OpenSources([]setup.Source{s}, nil, &toGofer, &toSentry)
			if err == nil {
				_, _, err = files.Check(&setup.Setup{Policy: policy, Containers: []setup.Container{{}}}, &Host{State: store.RootDir(), StatePath: store.Path()})
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), in(c.want)) {
				t.Errorf("%s: %v, expected %q", name, err, in(c.want))
			}
			if at := ""; err == nil {
				if at = files.Mounts[0].Volume; !strings.HasSuffix(at, strings.TrimPrefix(c.open, ".")) {
					t.Errorf("%s: the gofer is told that the volume is at %q", name, at)
				}
			}
			return nil
		}
		inMountNS(t, func() {
			if err := check(); err != nil {
				t.Error(err)
			}
		})
	}
}
