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
		"a hook elsewhere":      {"", setup.Source{Path: "WORK/other", Field: "f"}, "", setup.Setup{Containers: []setup.Container{{Hooks: hook("/bin/sh", "sh", "-c", "exit 0")}}}},
	} {
		check := func() error {
			work, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				return err
			}
			in := func(s string) string { return strings.ReplaceAll(s, "WORK", work) }
			for _, d := range []string{"allowed/v", "other", "links", "manifests"} {
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
			policy, err := hostpolicy.NewFile(hostpolicy.Options{
				Path: filepath.Join(work, "policy.yaml"), Optional: true, Protected: []string{filepath.Join(work, "links/manifests"), store.Path()},
			}).Load()
			if err != nil {
				return err
			}
			s := c.serve
			s.Path, s.Allowed = in(s.Path), in(s.Allowed)
			var toGofer, toSentry proc.Donation
			defer func() { _ = errors.Join(toGofer.Close(), toSentry.Close()) }()
			host := &Host{State: store.RootDir(), StatePath: store.Path(), Programs: []string{filepath.Join(work, "bin/sentry"), filepath.Join(work, "bin/gofer")}}
			files, err := OpenSources([]setup.Source{s}, &toGofer, &toSentry)
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
