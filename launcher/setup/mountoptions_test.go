// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

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
		}{{o.NoDev, "nodev"}, {o.Single, "single"}, {o.CopyUp, "copyUp"}} {
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
