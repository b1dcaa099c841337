// SPDX-License-Identifier: Apache-2.0

package launcher

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
)

// Every option is honoured, has no meaning in a sandbox, or is refused.
func TestMountOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ, options string
		client       bool
		want         string // what the sentry is told, "single" and "nodev" for the rest; or the error
	}{
		{"bind", "", true, ""},
		{"bind", "rbind,rw", true, ""},
		{"bind", "bind", true, "single"},
		{"bind", "bind,rbind", true, ""},
		{"none", "bind,ro", true, "ro single"},
		{"bind", "rbind,ro", true, "ro"},
		{"bind", "rbind,rro", true, "ro"},
		{"bind", "rbind,rro,rw", true, ""},
		{"bind", "rbind,noexec,nosuid,nodev,noatime", true, "noexec nosuid noatime nodev"},
		{"bind", "rbind,rnoexec,rnosuid,rnodev,rnoatime", false, "noexec nosuid noatime nodev"},
		{"bind", "rbind,noexec,exec,nodev,dev,nosuid,suid,noatime,atime", true, ""},
		{"bind", "rbind,exec,rnoexec", true, "noexec"},
		{"bind", "rprivate,unbindable,relatime,nodiratime,strictatime,defaults", true, ""},
		{"bind", "rslave", true, ""},
		{"bind", "shared", true, ""},
		{"bind", "rslave", false, `"rslave" can't be honoured`},
		{"bind", "rshared", false, `"rshared" can't be honoured`},
		{"bind", "sync", true, `"sync" can't be honoured for a mount of type bind`},
		{"bind", "dirsync", true, "dirsync"},
		{"bind", "nosymfollow", true, "nosymfollow"},
		{"bind", "idmap", true, "idmap"},
		{"bind", "ridmap", true, "ridmap"},
		{"bind", "remount", true, "remount"},
		{"bind", "mand", true, "mand"},
		{"bind", "mode=755", true, ""},
		{"bind", "dcache=1", true, ""}, // and never for the sentry
		{"bind", "mode=755", false, "mode=755"},
		{"bind", "dcache=1", false, "dcache=1"},
		{"bind", "disable_file_handle_sharing", true, "disable_file_handle_sharing"},
		{"bind", "NOEXEC", true, "NOEXEC"},
		{"bind", " noexec", true, "noexec"},
		{"bind", "rrbind", true, "rrbind"},
		{"bind", "rbind,tmpcopyup", true, "tmpcopyup"},
		{"tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k,uid=1,gid=2,rprivate", true, "noexec nosuid mode=1777 size=65536k uid=1 gid=2 nodev"},
		{"tmpfs", "ro,strictatime", true, "ro"},
		{"tmpfs", "tmpcopyup", true, "copyUp"},
		{"tmpfs", "notmpcopyup", true, ""},
		{"tmpfs", "tmpcopyup", false, "tmpcopyup"},
		{"tmpfs", "nr_inodes=5", true, "nr_inodes=5"},
		{"tmpfs", "huge=always", true, "huge"},
		{"devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5", true, "noexec nosuid newinstance ptmxmode=0666 mode=0620 gid=5"},
		{"proc", "nosuid,noexec,nodev", true, "noexec nosuid nodev"},
		{"proc", "hidepid=2", true, "hidepid=2"},
		{"sysfs", "nosuid,noexec,nodev,ro", true, "ro noexec nosuid nodev"},
		{"mqueue", "nosuid,noexec,nodev", true, "noexec nosuid nodev"},
		{"cgroup", "nosuid,noexec,nodev,relatime,ro", true, "ro noexec nosuid nodev"},
		{"cgroup2", "nsdelegate,memory_recursiveprot", true, "nsdelegate memory_recursiveprot"},
	} {
		m := &specs.Mount{Type: c.typ, Options: strings.Split(c.options, ",")}
		o, err := parseMountOptions(m, c.client)
		got := strings.Join(o.forSentry(), " ")
		for _, f := range []struct {
			set  bool
			name string
		}{{o.noDev, "nodev"}, {o.single, "single"}, {o.copyUp, "copyUp"}} {
			if f.set {
				got = strings.TrimSpace(got + " " + f.name)
			}
		}
		switch {
		case err == nil && got != c.want:
			t.Errorf("%s %s: %q, expected %q", c.typ, c.options, got, c.want)
		case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "can't be honoured")):
			t.Errorf("%s %s: %v, expected %q", c.typ, c.options, err, c.want)
		}
	}
	// What clients are told is so.
	for _, n := range MountOptionNames() {
		if _, err := parseMountOptions(&specs.Mount{Type: "bind", Options: []string{n}}, true); err != nil {
			t.Errorf("listed: %v", err)
		}
	}
	for _, n := range []string{"bind", "rbind", "ro", "rro", "noexec", "nosuid", "nodev"} {
		if !slices.Contains(MountOptionNames(), n) {
			t.Errorf("%s is not listed", n)
		}
	}
	for _, n := range desired.VolumeOptions {
		if _, err := parseMountOptions(&specs.Mount{Type: "bind", Options: []string{n}}, false); err != nil {
			t.Errorf("a manifest's volume: %v", err)
		}
	}
}

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
	client, err := fromContainer(cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := fromManifest(manifest(func(s *desired.Spec) {
		s.Volumes = []desired.Volume{{Name: "v", MountPath: "/vol", HostPath: vol, Options: options[1:]}, {Name: "t", MountPath: "/t", Tmpfs: &desired.Tmpfs{}, Options: []string{"noexec"}}}
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, st := range map[string]*setup{"config.json": client, "manifest": manifest} {
		n := 0
		for _, m := range st.spec.Mounts {
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
		if n == 0 || !st.volumes[0].options.noDev || st.volumes[0].options.atime != unix.MOUNT_ATTR_NOATIME {
			t.Errorf("%s: %d mounts, %+v", name, n, st.volumes)
		}
	}
	if m := manifest.spec.Mounts[len(manifest.spec.Mounts)-1]; m.Destination != "/t" || !slices.Contains(m.Options, "noexec") || !slices.Contains(m.Options, "nosuid") {
		t.Errorf("%+v", m)
	}
	if got := fmt.Sprint(client.spec.Mounts[0].Options); !strings.Contains(got, "ro") || strings.Contains(got, "rw") {
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
		st := &setup{root: source{path: root}, copyUp: []string{dest}}
		if err := st.checkCopyUp(); (err == nil) != good {
			t.Errorf("%s: %v", dest, err)
		}
	}
}
