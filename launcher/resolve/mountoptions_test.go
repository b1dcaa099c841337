// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/setup"
)

// The options of a bind mount reach the sentry, the gofer and the host's mount, by
// every way in, and stay when the mount is made read-only.
func TestMountOptionsReach(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"rootfs", "vol/in"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	vol := filepath.Join(dir, "vol")
	options := []string{"rbind", "noexec", "nodev", "nosuid", "noatime"}
	cfg := container(func(c *specs.Spec) {
		c.Root.Path = filepath.Join(dir, "rootfs")
		c.Mounts = []specs.Mount{{Destination: "/vol", Type: "bind", Source: vol, Options: options}}
		c.Linux = &specs.Linux{ReadonlyPaths: []string{"/vol/in", "/vol"}}
	})
	client, err := FromContainer(cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := FromManifest(manifest(func(s *desired.Spec) {
		s.Volumes = []desired.Volume{{Name: "v", MountPath: "/vol", HostPath: vol, Options: options[1:]}, {Name: "t", MountPath: "/t", Tmpfs: &desired.Tmpfs{}, Options: []string{"noexec"}}}
	}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, st := range map[string]*setup.Setup{"config.json": client, "manifest": manifest} {
		n := 0
		for _, m := range st.App().Spec.Mounts {
			if !strings.HasPrefix(m.Destination, "/vol") {
				continue
			}
			n++
			for _, o := range []string{"noexec", "nosuid", "noatime"} {
				if !slices.Contains(m.Options, o) {
					t.Errorf("%s: %s lacks %s: %v", name, m.Destination, o, m.Options)
				}
			}
		}
		if n == 0 || !st.App().Volumes[0].Options.NoDev || st.App().Volumes[0].Options.Atime != unix.MOUNT_ATTR_NOATIME {
			t.Errorf("%s: %d mounts, %+v", name, n, st.App().Volumes)
		}
	}
	if m := manifest.App().Spec.Mounts[len(manifest.App().Spec.Mounts)-1]; m.Destination != "/t" || !slices.Contains(m.Options, "noexec") || !slices.Contains(m.Options, "nosuid") {
		t.Errorf("%+v", m)
	}
	if got := fmt.Sprint(client.App().Spec.Mounts[0].Options); !strings.Contains(got, "ro") || strings.Contains(got, "rw") {
		t.Errorf("made read-only: %s", got)
	}
}

// A tmpfs that should start with a copy of the root's files is refused if there
// are some.
func TestCopyUp(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, d := range []string{"empty", "full/x"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for dest, good := range map[string]bool{"/empty": true, "/none": true, "/full": false, "/full/": false, "/full/x": true} {
		st := &setup.Setup{Containers: []setup.Container{{Root: setup.Source{Path: root}, CopyUp: []string{dest}}}}
		if err := checkCopyUp(st); (err == nil) != good {
			t.Errorf("%s: %v", dest, err)
		}
	}
}
