// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
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
			err = serveInJail(&gofer.Config{Mounts: []gofer.Mount{{FD: fd, IsDir: true}}})
			switch {
			case typ == "tmpfs" && err != nil:
				t.Error(err)
			case typ == "proc" && (err == nil || !strings.Contains(err.Error(), "refuse to serve the mount at /m0/elsewhere/b: proc is never shared")):
				t.Errorf("proc below a served tree: %v", err)
			}
		})
	}
}

func TestJudgeMounts(t *testing.T) {
	t.Parallel()
	const root = "29 1 0:26 / / ro - tmpfs none ro\n"
	cfg := &gofer.Config{
		NeverShared: []gofer.Place{
			{Device: "8:1", Path: "/var/lib/s b", Name: "/var/lib/s b"},
			{Device: "8:1", Path: "/usr/bin/sandboxctl", Name: "/usr/bin/sandboxctl", Writes: true},
		},
		Overlays: []string{"0:50"},
	}
	mount := func(device, root, options, typ string) string {
		return "30 29 " + device + " " + root + " /m0 " + options + " - " + typ + " x rw\n"
	}
	for list, want := range map[string]string{
		root: "",
		root + "30 29 8:1 /srv/a /m0 rw shared:3 - ext4 /dev/sda1 rw\n": "",
		root + "30 29 0:5 / /m0/x rw - cgroup2 cgroup2 rw\n":            "the mount at /m0/x: cgroup2 is never shared",
		"30 29 8:1 /srv/a /m0 rw - ext4 /dev/sda1 rw\n":                 "there is no root",
		"":                                 "there is no root",
		root + "30 29 8:1 /srv/a /m0 rw\n": "list mounts",
		root + "\n":                        "list mounts",
		root + strings.Repeat("x", 1<<17):  "token too long",
		// What is never shared: told by the filesystem and the place in it.
		root + mount("8:1", `/var/lib/s\040b`, "rw", "ext4"):               "it is part of /var/lib/s b",
		root + mount("8:1", `/var/lib/s\040b/sandboxes/web`, "ro", "ext4"): "it is part of /var/lib/s b",
		root + mount("8:1", "/var", "ro", "ext4"):                          "it holds /var/lib/s b",
		root + mount("8:1", "/", "ro", "ext4"):                             "it holds /var/lib/s b",
		root + mount("8:1", `/var/lib/s\040b2`, "rw", "ext4"):              "",
		root + mount("8:1", "/var/lib/s", "rw", "ext4"):                    "",
		root + mount("8:2", "/var/lib", "rw", "ext4"):                      "",
		root + mount("8:1", "/usr", "ro", "ext4"):                          "",
		root + mount("8:1", "/usr", "rw,nosuid", "ext4"):                   "it holds /usr/bin/sandboxctl, which no sandbox may write",
		root + mount("0:50", "/", "rw", "overlay"):                         "",
		root + mount("0:51", "/", "rw", "overlay"):                         "an overlay that was mounted a moment ago",
	} {
		err := judgeMounts(strings.NewReader(list), cfg)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.100q: %v, expected %q", list, err, want)
		}
	}
}

// A mount that was opened as a named volume shows the data of one, and nothing else of the
// state directory; a mount of the same directory that was opened by a path is refused.
func TestJudgeVolumes(t *testing.T) {
	t.Parallel()
	const root = "29 1 0:26 / / ro - tmpfs none ro\n"
	const data = "/state/volumes/v/data"
	for name, c := range map[string]struct {
		volume, root, at, device string
		want                     string
	}{
		"a volume":                {data, data, "/m0", "8:1", ""},
		"a directory of it":       {data + "/a/b", data + "/a/b", "/m0", "8:1", ""},
		"by a path":               {"", data, "/m0", "8:1", "it is part of"},
		"a part, by a path":       {"", data + "/a", "/m0", "8:1", "it is part of"},
		"another mount":           {data, data, "/m1", "8:1", "it is part of"},
		"mounted in it":           {data, data, "/m0/x", "8:1", "it is part of"},
		"not what was opened":     {data, "/state/volumes/w/data", "/m0", "8:1", "it is part of"},
		"above what was opened":   {data + "/a", data, "/m0", "8:1", "it is part of"},
		"the volume's own":        {"/state/volumes/v", "/state/volumes/v", "/m0", "8:1", "it is part of"},
		"what is known of it":     {"/state/volumes/v/meta.json", "/state/volumes/v/meta.json", "/m0", "8:1", "it is part of"},
		"all volumes":             {"/state/volumes", "/state/volumes", "/m0", "8:1", "it is part of"},
		"a record":                {"/state/sandboxes/v/data", "/state/sandboxes/v/data", "/m0", "8:1", "it is part of"},
		"volumes of a sandbox":    {"/state/sandboxes/volumes/v/data", "/state/sandboxes/volumes/v/data", "/m0", "8:1", "it is part of"},
		"a directory like it":     {"/state/volumes/v/data2", "/state/volumes/v/data2", "/m0", "8:1", "it is part of"},
		"a volume without a name": {"/state/volumes/data", "/state/volumes/data", "/m0", "8:1", "it is part of"},
		"the state itself":        {"/state", "/state", "/m0", "8:1", "it is part of"},
		"above the state":         {"/", "/", "/m0", "8:1", "it holds"},
		"another file system":     {data, data, "/m0", "8:2", ""},
		"names, writable":         {"/state/sandboxes/v/names", "/state/sandboxes/v/names", "/m0", "8:1", "it is part of"},
		"names of nobody":         {"/state/sandboxes/names", "/state/sandboxes/names", "/m0", "8:1", "it is part of"},
		"names":                   {"/state/sandboxes/v/names", "/state/sandboxes/v/names", "/m0", "8:1", ""},
		"a part of names":         {"/state/sandboxes/v/names/a", "/state/sandboxes/v/names/a", "/m0", "8:1", "it is part of"},
		"names, by a path":        {"", "/state/sandboxes/v/names", "/m0", "8:1", "it is part of"},
		"names of another one":    {"/state/sandboxes/v/names", "/state/sandboxes/w/names", "/m0", "8:1", "it is part of"},
		"others in a volume":      {data, data, "/m0", "8:3", "it holds /manifests"},
		"a volume in another":     {data, data, "/m0", "8:4", "it is part of /manifests"},
	} {
		cfg := &gofer.Config{
			Mounts: []gofer.Mount{{Volume: c.volume}, {}},
			NeverShared: []gofer.Place{
				{Device: "8:1", Path: "/state", Name: "/state", State: true},
				{Device: "8:3", Path: "/state", Name: "/state", State: true},
				{Device: "8:3", Path: data + "/m", Name: "/manifests"},
				{Device: "8:4", Path: "/state", Name: "/manifests"},
			},
		}
		mode := "rw"
		if strings.Contains(name, "names") && !strings.Contains(name, "writable") {
			mode = "ro"
		}
		err := judgeMounts(strings.NewReader(root+"30 29 "+c.device+" "+c.root+" "+c.at+" "+mode+" - ext4 x rw\n"), cfg)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
}

// What is never shared is compared with the mounts that the gofer has, whatever
// was at the path when somebody looked at it.
func TestJailRefusesNeverShared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		serve, want string
	}{
		"itself":              {"fs/state", "it is part of"},
		"in it":               {"fs/state/sandboxes", "it is part of"},
		"above it":            {"fs", "it holds"},
		"beside it":           {"fs/other", ""},
		"mounted below":       {"allowed", "it is part of"},
		"part, mounted below": {"allowed2", "it is part of"},
		"a file of it":        {"fs/state/file", "it is part of"},
	} {
		inMountNS(t, func() {
			dir := t.TempDir()
			fs := filepath.Join(dir, "fs")
			err := errors.Join(os.MkdirAll(filepath.Join(dir, "allowed/deep/x"), 0o755), os.MkdirAll(filepath.Join(dir, "allowed2/x"), 0o755), os.Mkdir(fs, 0o755),
				unix.Mount("tmpfs", fs, "tmpfs", 0, ""), os.MkdirAll(filepath.Join(fs, "state/sandboxes"), 0o755), os.Mkdir(filepath.Join(fs, "other"), 0o755),
				os.WriteFile(filepath.Join(fs, "state/file"), nil, 0o600),
				unix.Mount(filepath.Join(fs, "state"), filepath.Join(dir, "allowed/deep/x"), "", unix.MS_BIND, ""),
				unix.Mount(filepath.Join(fs, "state/sandboxes"), filepath.Join(dir, "allowed2/x"), "", unix.MS_BIND, ""))
			var st unix.Stat_t
			err = errors.Join(err, unix.Stat(fs, &st))
			if err != nil {
				t.Error(err)
				return
			}
			fd, err := unix.OpenTree(unix.AT_FDCWD, filepath.Join(dir, c.serve), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
			if err != nil {
				t.Error(err)
				return
			}
			device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
			err = serveInJail(&gofer.Config{
				Mounts:      []gofer.Mount{{FD: fd, IsDir: c.serve != "fs/state/file"}},
				NeverShared: []gofer.Place{{Device: device, Path: "/state", Name: "the state"}},
			})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, expected %q", name, err, c.want)
			}
		})
	}
}
