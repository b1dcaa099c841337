// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/volume"
)

// volumeAttack is a state directory with a volume that a sandbox has filled, and a file that
// nothing may reach.
type volumeAttack struct {
	*testing.T
	dir, data, canary string
}

func newVolumeAttack(t *testing.T) *volumeAttack {
	t.Helper()
	w := &volumeAttack{T: t, dir: t.TempDir()}
	w.data, w.canary = w.dir+"/s/volumes/v/data", w.dir+"/canary"
	must(t, os.Mkdir(w.dir+"/m", 0o755))
	must(t, os.WriteFile(w.dir+"/m/a.yaml", []byte(strings.ReplaceAll(strings.Join(attackHead, "\n"), attackNumber, "a")+"\n  suspend: true\n"), 0o644))
	must(t, os.Mkdir(w.canary, 0o755))
	must(t, os.WriteFile(w.canary+"/secret", []byte("canary"), 0o600))
	must(t, w.start(""))
	return w
}

// start opens the volume as a start does.
func (w *volumeAttack) start(subPath string) error {
	w.Helper()
	state, err := actual.OpenStore(w.dir + "/s")
	must(w.T, err)
	defer state.Close()
	st := &setup.Setup{Containers: []setup.Container{{Volumes: []setup.Source{{Volume: "v", SubPath: subPath}}}}}
	o, err := volume.OpenAll(w.Context(), state.RootDir(), st, "web")
	if err == nil {
		o.Close()
	}
	return err
}

// run runs a verb, which prints nothing that a terminal obeys but what it writes to the archive.
func (w *volumeAttack) run(args ...string) (out string, code int) {
	w.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{Host: world.Host{Stdin: os.Stdin, Stdout: &stdout, Stderr: &stderr}}
	code = a.run(w.Context(), append([]string{"--state", w.dir + "/s", "--manifests", w.dir + "/m", "volume"}, args...))
	if args[0] == "backup" && args[2] == "-" {
		stdout.Reset()
	}
	out = stdout.String() + stderr.String()
	if i := strings.IndexFunc(strings.ReplaceAll(out, "\n", ""), untrusted.Obeyed); i >= 0 {
		w.Errorf("%v prints what a terminal obeys: %.300q", args, out)
	}
	if len(out) > 10_000 {
		w.Errorf("%v prints %d bytes", args, len(out))
	}
	return out, code
}

// nest makes directories in each other.
func nest(t *testing.T, at, name string, depth int) {
	t.Helper()
	dir, err := unix.Open(at, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(dir, name, 0o755))
		next, err := unix.Openat(dir, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(dir))
		dir = next
	}
	must(t, unix.Close(dir))
}

// Whatever a sandbox has made of its volume, the verbs for volumes end, tell what they do not
// take, touch nothing outside, and remove all of it.
func TestAttacksOfVolume(t *testing.T) {
	requireHost(t)
	t.Parallel()
	long := strings.Repeat("n", 255)
	for name, c := range map[string]struct {
		make func(w *volumeAttack)
		// tells is in what a backup says, fails whether it fails.
		tells string
		fails bool
		files int // that inspect counts, 0 if it says that there are more
	}{
		"links": {func(w *volumeAttack) {
			for name, to := range map[string]string{"out": w.canary, "up": "../../..", "loop": "loop", "fd": "/proc/self/fd/3", "long": strings.Repeat("x/", 2000)} {
				must(w.T, os.Symlink(to, w.data+"/"+name))
			}
		}, "6 files", false, 6},
		"special files": {func(w *volumeAttack) {
			must(w.T, unix.Mkfifo(w.data+"/fifo", 0o666))
			must(w.T, unix.Mknod(w.data+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
			must(w.T, unix.Mknod(w.data+"/disk", unix.S_IFBLK|0o666, int(unix.Mkdev(8, 0))))
			must(w.T, unix.Mknod(w.data+"/socket", unix.S_IFSOCK|0o666, 0))
			must(w.T, unix.Mknod(w.data+"/whiteout", unix.S_IFCHR, 0))
		}, "4 sockets and devices are not in it", false, 6},
		"set-user-ID": {func(w *volumeAttack) {
			must(w.T, os.WriteFile(w.data+"/su", []byte("x"), 0o755))
			must(w.T, unix.Chmod(w.data+"/su", 0o6755))
		}, "2 files", false, 2},
		"names": {func(w *volumeAttack) {
			for _, n := range []string{"a\n\x1b[2J\x1b]0;t\x07", "\u202egpj", "-rf", "..a", "...", " ", "\\", "a\xff\xfe", long, ".sandboxctl-tmp-0011", "meta.json"} {
				must(w.T, os.WriteFile(w.data+"/"+n, nil, 0o600))
			}
			nest(w.T, w.data, "d\r\x1b[8m", 5)
		}, "files written", false, 17},
		"names, and too deep":  {func(w *volumeAttack) { nest(w.T, w.data, "d\x1b[2J\n", 3000) }, "directories are more than 500 deep", true, 0},
		"long names, too deep": {func(w *volumeAttack) { nest(w.T, w.data, long, 1500) }, "directories are more than 500 deep", true, 0},
		"a large directory": {func(w *volumeAttack) {
			for i := range 20_000 {
				fd, err := unix.Open(fmt.Sprintf("%s/%d", w.data, i), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0)
				must(w.T, err)
				must(w.T, unix.Close(fd))
			}
		}, "20001 files", false, 20_001},
		"many names of one file": {func(w *volumeAttack) {
			must(w.T, os.WriteFile(w.data+"/0", []byte("x"), 0o600))
			for i := range 5000 {
				must(w.T, os.Link(w.data+"/0", fmt.Sprintf("%s/l%d", w.data, i)))
			}
		}, "5002 files", false, 2},
		"a file without end": {func(w *volumeAttack) {
			must(w.T, os.WriteFile(w.data+"/huge", nil, 0o600))
			must(w.T, os.Truncate(w.data+"/huge", 1<<33))
		}, "2 files", false, 2},
		"closed": {func(w *volumeAttack) {
			must(w.T, os.MkdirAll(w.data+"/a/b", 0o755))
			must(w.T, os.Chmod(w.data+"/a/b", 0))
			must(w.T, os.Chmod(w.data+"/a", 0))
			must(w.T, os.Chmod(w.data, 0))
		}, "3 files", false, 3},
		"attributes": {func(w *volumeAttack) {
			must(w.T, os.WriteFile(w.data+"/f", nil, 0o600))
			for _, a := range []string{"trusted.overlay.opaque", "user.a=b", "user.a\x1b[2J"} {
				if err := unix.Setxattr(w.data+"/f", a, []byte("y"), 0); err != nil {
					w.Logf("%q: %v", a, err)
				}
			}
		}, "2 files", false, 2},
		"the volume's own directory": {func(w *volumeAttack) {
			must(w.T, os.Chmod(w.data, 0o7777))
			must(w.T, os.Lchown(w.data, 65534, 65534))
		}, "1 files", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newVolumeAttack(t)
			c.make(w)
			for _, args := range [][]string{{"ls"}, {"ls", "-o", "json"}, {"inspect", "v"}, {"prune"}} {
				if out, code := w.run(args...); code != 0 {
					t.Errorf("%v: %d %s", args, code, out)
				}
			}
			out, _ := w.run("inspect", "v", "-o", "json")
			var seen struct{ Usage volume.Usage }
			must(t, json.Unmarshal([]byte(out), &seen))
			if u := seen.Usage; u.Partial != (c.files == 0) || c.files > 0 && u.Files != int64(c.files) {
				t.Errorf("it has %+v, expected %d files", u, c.files)
			}
			archive := w.dir + "/v.tar"
			for _, to := range []string{"-", archive} {
				if out, code := w.run("backup", "v", to); (code != 0) != c.fails || !strings.Contains(out, c.tells) {
					t.Errorf("backup: %d %s, expected %q", code, out, c.tells)
				}
			}
			if _, err := os.Stat(archive); (err != nil) != c.fails {
				t.Errorf("the file of the backup: %v", err)
			}
			if !c.fails {
				if out, code := w.run("restore", "w", archive, "--max-size", "1Ti"); code != 0 {
					t.Errorf("restore: %d %s", code, out)
				}
			}
			if out, code := w.run("prune", "--yes"); code != 0 {
				t.Errorf("prune: %d %s", code, out)
			}
			for _, d := range []string{"volumes", "trash"} {
				if left, err := os.ReadDir(filepath.Join(w.dir, "s", d)); err != nil || len(left) > 0 {
					t.Errorf("left in %s: %v %v", d, left, err)
				}
			}
			if left, err := os.ReadDir(w.dir); err != nil || len(left) > 4 {
				t.Errorf("left beside the backup: %v %v", left, err)
			}
			var st unix.Stat_t
			must(t, unix.Lstat(w.canary+"/secret", &st))
			if b, err := os.ReadFile(w.canary + "/secret"); err != nil || string(b) != "canary" || st.Mode&0o7777 != 0o600 || st.Nlink != 1 || st.Uid != 0 {
				t.Errorf("outside: %q %+v %v", b, st, err)
			}
		})
	}
}

// A subPath leads to a directory of the volume and nowhere else, whatever the sandbox has put
// on the way.
func TestAttacksOfSubPath(t *testing.T) {
	requireHost(t)
	t.Parallel()
	for name, c := range map[string]struct {
		make func(w *volumeAttack)
		want string // in the error, "" if there is none
	}{
		"nothing":     {func(*volumeAttack) {}, ""},
		"a directory": {func(w *volumeAttack) { must(w.T, os.MkdirAll(w.data+"/a/b", 0)) }, ""},
		"a link out":  {func(w *volumeAttack) { must(w.T, os.Symlink(w.canary, w.data+"/a")) }, "symbolic link"},
		"a link up":   {func(w *volumeAttack) { must(w.T, os.Symlink("..", w.data+"/a")) }, "symbolic link"},
		"a link inside": {func(w *volumeAttack) {
			must(w.T, os.Mkdir(w.data+"/x", 0o755))
			must(w.T, os.Symlink("x", w.data+"/a"))
		}, "symbolic link"},
		"a link at the end": {func(w *volumeAttack) {
			must(w.T, os.Mkdir(w.data+"/a", 0o755))
			must(w.T, os.Symlink(w.canary, w.data+"/a/b"))
		}, "symbolic link"},
		"a fifo":   {func(w *volumeAttack) { must(w.T, unix.Mkfifo(w.data+"/a", 0o666)) }, "not a directory"},
		"a device": {func(w *volumeAttack) { must(w.T, unix.Mknod(w.data+"/a", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))) }, "not a directory"},
		"a file":   {func(w *volumeAttack) { must(w.T, os.WriteFile(w.data+"/a", nil, 0o600)) }, "not a directory"},
		"a mount": {func(w *volumeAttack) {
			must(w.T, os.MkdirAll(w.data+"/a/b", 0o755))
			must(w.T, unix.Mount(w.canary, w.data+"/a/b", "", unix.MS_BIND, ""))
			w.Cleanup(func() { must(w.T, unix.Unmount(w.data+"/a/b", unix.MNT_DETACH)) })
		}, "something is mounted there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newVolumeAttack(t)
			c.make(w)
			err := w.start("a/b")
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, expected %q", err, c.want)
			}
			if left, err := os.ReadDir(w.canary); err != nil || len(left) != 1 {
				t.Errorf("outside: %v %v", left, err)
			}
		})
	}
}
