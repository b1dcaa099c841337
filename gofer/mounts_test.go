// SPDX-License-Identifier: Apache-2.0

package gofer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What came along below a served tree is judged by the mount itself: no path
// tells the gofer of it, so none that is swapped can hide it.
func TestJailRefusesKernelFilesystems(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{"proc", "tmpfs"} {
		inMountNS(t, func() {
			dir := t.TempDir()
			below := filepath.Join(dir, "a", "b")
			if err := os.MkdirAll(below, 0o755); err != nil {
				t.Error(err)
				return
			}
			if err := unix.Mount(typ, below, typ, 0, ""); err != nil {
				t.Errorf("mount %s: %v", typ, err)
				return
			}
			fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
			if err != nil {
				t.Error(err)
				return
			}
			// As after a swap: the path does not lead there any more.
			if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "elsewhere")); err != nil {
				t.Error(err)
				return
			}
			err = enterJail(&Config{Mounts: []Mount{{FD: fd, IsDir: true}}})
			switch {
			case typ == "tmpfs" && err != nil:
				t.Error(err)
			case typ == "proc" && (err == nil || !strings.Contains(err.Error(), "proc is mounted at /m0/elsewhere/b of what is to be served")):
				t.Errorf("proc below a served tree: %v", err)
			}
		})
	}
}

func TestJudgeMounts(t *testing.T) {
	t.Parallel()
	const root = "29 1 0:26 / / ro - tmpfs none ro\n"
	for list, want := range map[string]string{
		root: "",
		root + "30 29 8:1 /srv/a /m0 rw shared:3 - ext4 /dev/sda1 rw\n": "",
		root + "30 29 0:5 / /m0/x rw - cgroup2 cgroup2 rw\n":            "cgroup2 is mounted at /m0/x",
		"30 29 8:1 /srv/a /m0 rw - ext4 /dev/sda1 rw\n":                 "there is no root",
		"":                                 "there is no root",
		root + "30 29 8:1 /srv/a /m0 rw\n": "is no mount",
		root + "\n":                        "is no mount",
		root + strings.Repeat("x", 1<<17):  "token too long",
	} {
		err := judgeMounts(strings.NewReader(list))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.100q: %v, expected %q", list, err, want)
		}
	}
}
