// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/setup"
)

// A mount point that is a link is where the link leads, in the container, also if
// there is nothing.
func TestResolveMountPoints(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"root/etc", "root/run", "root/real/deep", "root/vol", "vol"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"root/etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf", // systemd-resolved's
		"root/etc/absolute":    "/run/there",
		"root/etc/chain":       "chain2",
		"root/etc/chain2":      "/etc/absolute",
		"root/var":             "real/nowhere",
		"root/there":           "/real/deep",
		"root/etc/out":         "../../../../etc/passwd",
		"root/etc/here":        ".",
		"root/up":              "/..",
		"root/etc/loop":        "loop2",
		"root/etc/loop2":       "loop",
		"root/etc/self":        "self",
		"root/in":              "/vol/link",
		"vol/link":             "gone/x",
		"vol/back":             "/run/back",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for dest, want := range map[string]string{
		"/etc/resolv.conf":     "/run/systemd/resolve/stub-resolv.conf",
		"/etc/absolute":        "/run/there",
		"/etc/chain":           "/run/there",
		"/etc/none":            "/etc/none",
		"/none/at/all":         "/none/at/all",
		"/var/log/x":           "/real/nowhere/log/x",
		"/there/x":             "/real/deep/x",
		"/there":               "/real/deep",
		"/etc/out":             "/etc/passwd",
		"/etc/here/resolv.new": "/etc/resolv.new",
		"/in":                  "/vol/gone/x",
		"/vol/link/y":          "/vol/gone/x/y",
		"/vol/back":            "/run/back",
		"/tmp/link":            "/tmp/link",
		"/etc/loop":            "error: links lead in a circle",
		"/etc/self/x":          "error: links lead in a circle",
		"/up":                  "error: it leads to the root",
	} {
		st := &setup.Setup{Containers: []setup.Container{{Root: setup.Source{Path: filepath.Join(dir, "root")}, Spec: &specs.Spec{Mounts: []specs.Mount{{Destination: "/tmp", Type: "tmpfs"}}}}}}
		st.AddBind("/vol", setup.Source{Path: filepath.Join(dir, "vol")})
		st.AddBind(dest, setup.Source{Path: dir})
		err := mountPoints(st, nil)
		last := st.App().Spec.Mounts[len(st.App().Spec.Mounts)-1]
		if msg, fails := strings.CutPrefix(want, "error: "); fails {
			if err == nil || !strings.Contains(err.Error(), msg) {
				t.Errorf("%s: %v, expected %q", dest, err, msg)
			}
		} else if err != nil || last.Destination != want {
			t.Errorf("%s: %s, expected %s; %v", dest, last.Destination, want, err)
		}
		if st.App().Spec.Mounts[0].Destination != "/tmp" || st.App().Spec.Mounts[1].Destination != "/vol" {
			t.Errorf("%s: %+v", dest, st.App().Spec.Mounts)
		}
	}
	// In a view of the host there is nothing to look up.
	st := &setup.Setup{Containers: []setup.Container{{Root: setup.Source{Host: true}, Spec: &specs.Spec{}}}}
	st.AddBind("/etc/resolv.conf", setup.Source{Path: dir})
	if err := mountPoints(st, nil); err != nil || st.App().Spec.Mounts[0].Destination != "/etc/resolv.conf" {
		t.Errorf("%v %+v", err, st.App().Spec.Mounts)
	}
}
