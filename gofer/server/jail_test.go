// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/gofer"
)

// The first thread stays the main goroutine's: it is what /proc shows of this
// process, and one that has been in a jail can't be got rid of.
func init() { runtime.LockOSThread() }

// dup returns a copy of a descriptor for somebody who closes it by number.
func dup(f *os.File) (int, error) {
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// privileged tries what every gofer and jail begins with.
var privileged = sync.OnceValue(func() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with its namespace
		result <- unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	}()
	return <-result
})

// requireRoot skips a test where no gofer can run, or fails it where sandboxes
// are required to.
func requireRoot(t *testing.T) {
	t.Helper()
	if err := privileged(); err != nil {
		hosttest.Lacks(t, "no mount namespace can be made here: %v", err)
	}
}

// inMountNS runs f on a thread of its own in a mount namespace of its own, so
// that nothing of it is seen, or left, outside.
func inMountNS(t *testing.T, f func()) {
	t.Helper()
	requireRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not unlocked: the thread, and its namespace, end with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			t.Errorf("make mounts private: %v", err)
			return
		}
		// A process that another test is starting would have, for a moment,
		// copies of what is open here, and a mount with a file that is open
		// for writing can't be made read-only. A gofer starts nothing.
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		f()
	}()
	<-done
}

// detached returns a detached mount of a directory or file, as the launcher
// gives them.
func detached(t *testing.T, path string, attrs uint64) int {
	t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_PRIVATE})
	}
	if err != nil {
		t.Errorf("clone mount of %s: %v", path, err) // also on a thread that is not the test's
		return -1
	}
	return fd
}

// hostFiles is a directory of the host with something in it to serve.
func hostFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "d", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "d", "served"), []byte("served"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("a file"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600))
	return dir
}

// identity tells what a descriptor is of. A number that was closed may be
// another test's by now.
func identity(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func list(path string) string {
	es, err := os.ReadDir(path)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// What the description says is there, with its modes, and nobody changes it.
func TestTree(t *testing.T) {
	t.Parallel()
	host, at := hostFiles(t), t.TempDir()
	inMountNS(t, func() {
		root, err := newTmpfs(0, false)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(root)
		m := &gofer.Mount{FD: -1, Secret: true, Tree: &gofer.Tree{
			Dirs: []gofer.Dir{{Path: "etc", Mode: 0o755}, {Path: "etc/ssl", Mode: 0o700}, {Path: "tmp", Mode: 0o1777}, {Path: "etc", Mode: 0o711}, {Path: "over", Mode: 0o755}},
			Files: []gofer.File{
				{Path: "etc/passwd", Mode: 0o644, Content: "root\n"},
				{Path: "etc/empty", Mode: 0o600, Content: ""},
				{Path: "etc/key", Mode: 0o400, Data: []byte("\xff\x00key")},
				{Path: "big", Mode: 0o444, Content: strings.Repeat("0123456789", 100_000)},
			},
			Links: []gofer.Link{{Path: "bin", Target: "usr/bin"}, {Path: "etc/out", Target: "/secret"}, {Path: "etc/dangling", Target: "../../../.."}},
			Binds: []gofer.Bind{
				{Path: "usr", FD: detached(t, host+"/d", unix.MOUNT_ATTR_RDONLY), IsDir: true},
				{Path: "over", FD: detached(t, host+"/d/sub", unix.MOUNT_ATTR_RDONLY), IsDir: true},
				{Path: "etc/one", FD: detached(t, host+"/file", unix.MOUNT_ATTR_RDONLY), IsDir: false},
			},
		}}
		err = errors.Join(moveMount(root, unix.AT_FDCWD, at), attach(root, "m0", m))
		if err != nil {
			t.Error(err)
			return
		}
		top := at + "/m0/"
		for name, want := range map[string]fs.FileMode{
			"": 0o755, "etc": 0o711, "etc/ssl": 0o700, "tmp": 0o777 | fs.ModeSticky, "etc/passwd": 0o644, "etc/empty": 0o600, "etc/key": 0o400, "big": 0o444, "usr": 0o755,
		} {
			if info, err := os.Lstat(top + name); err != nil || info.Mode()&^fs.ModeDir != want {
				t.Errorf("%s: %v %v, expected %v", name, info, err, want)
			}
		}
		for name, want := range map[string]string{"etc/passwd": "root\n", "etc/empty": "", "etc/key": "\xff\x00key", "usr/served": "served", "etc/one": "a file"} {
			if b, err := os.ReadFile(top + name); err != nil || string(b) != want {
				t.Errorf("%s: %q %v", name, b, err)
			}
		}
		if info, err := os.Stat(top + "big"); err != nil || info.Size() != 1_000_000 {
			t.Errorf("big: %v %v", info, err)
		}
		for name, want := range map[string]string{"bin": "usr/bin", "etc/out": "/secret", "etc/dangling": "../../../.."} {
			if got, err := os.Readlink(top + name); err != nil || got != want {
				t.Errorf("%s: %q %v", name, got, err)
			}
		}
		if got := list(top); got != "big bin etc over tmp usr" {
			t.Errorf("%s", got)
		}
		for _, name := range []string{"x", "etc/x", "usr/x", "over/x", "tmp/x"} {
			if err := os.Mkdir(top+name, 0o700); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %v, expected EROFS", name, err)
			}
		}
		// Where the kernel can, nothing of it goes to a disk.
		mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
		probe, perr := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
		if err != nil || perr != nil {
			t.Error(err, perr)
			return
		}
		defer unix.Close(probe)
		if unix.FsconfigSetFlag(probe, "noswap") == nil && !strings.Contains(string(mounts), "noswap") {
			t.Errorf("it may be swapped:\n%s", mounts)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(top, &st); err != nil || st.Flags&unix.ST_NOSUID == 0 || st.Flags&unix.ST_NODEV == 0 {
			t.Errorf("flags %#x %v", st.Flags, err)
		}
	})
	if got := list(at); got != "" {
		t.Errorf("the host has %s", got)
	}
}

// A description that can't be followed is an error, not something else.
func TestTreeFails(t *testing.T) {
	t.Parallel()
	host, at := hostFiles(t), t.TempDir()
	inMountNS(t, func() {
		n := 0
		for name, c := range map[string]struct {
			tree *gofer.Tree
			want error
		}{
			"a file twice":        {&gofer.Tree{Files: []gofer.File{{Path: "f", Mode: 0o644, Content: "1"}, {Path: "f", Mode: 0o644, Content: "2"}}}, unix.EEXIST},
			"a link twice":        {&gofer.Tree{Links: []gofer.Link{{Path: "l", Target: "a"}, {Path: "l", Target: "b"}}}, unix.EEXIST},
			"a link on a file":    {&gofer.Tree{Files: []gofer.File{{Path: "f", Mode: 0o644, Content: ""}}, Links: []gofer.Link{{Path: "f", Target: "a"}}}, unix.EEXIST},
			"a bind on a file":    {&gofer.Tree{Files: []gofer.File{{Path: "f", Mode: 0o644, Content: ""}}, Binds: []gofer.Bind{{Path: "f", FD: detached(t, host+"/file", 0), IsDir: false}}}, unix.EEXIST},
			"no parent":           {&gofer.Tree{Dirs: []gofer.Dir{{Path: "a/b", Mode: 0o755}}}, unix.ENOENT},
			"a file as parent":    {&gofer.Tree{Files: []gofer.File{{Path: "f", Mode: 0o644, Content: ""}, {Path: "f/g", Mode: 0o644, Content: ""}}}, unix.ENOTDIR},
			"no descriptor":       {&gofer.Tree{Binds: []gofer.Bind{{Path: "b", FD: 1 << 20, IsDir: true}}}, unix.EBADF},
			"no detached mount":   {&gofer.Tree{Binds: []gofer.Bind{{Path: "b", FD: 0, IsDir: true}}}, unix.EINVAL},
			"a file on directory": {&gofer.Tree{Binds: []gofer.Bind{{Path: "b", FD: detached(t, host+"/file", 0), IsDir: true}}}, unix.EINVAL},
			"a directory on file": {&gofer.Tree{Binds: []gofer.Bind{{Path: "b", FD: detached(t, host+"/d", 0), IsDir: false}}}, unix.EINVAL},
		} {
			root, err := newTmpfs(0, true)
			dir := filepath.Join(at, fmt.Sprint(n))
			n++
			if err := errors.Join(err, os.Mkdir(dir, 0o700), moveMount(root, unix.AT_FDCWD, dir)); err != nil {
				t.Error(err)
				return
			}
			if err := attach(root, "m0", &gofer.Mount{FD: -1, Tree: c.tree}); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, expected %v", name, err, c.want)
			}
			unix.Close(root)
		}
		if _, err := newTmpfs(-1, false); err == nil {
			t.Error("flags that do not exist are accepted")
		}
	})
}

// serveInJail is what a gofer that was started for a sandbox does.
func serveInJail(cfg *gofer.Config) error {
	j, err := enterJail()
	if err != nil {
		return err
	}
	return j.serve(cfg)
}

// After both steps there is nothing but what is served.
func TestEnterJail(t *testing.T) {
	t.Parallel()
	host := hostFiles(t)
	before := list(host)
	inMountNS(t, func() {
		dirFD, fileFD := detached(t, host+"/d", 0), detached(t, host+"/file", unix.MOUNT_ATTR_RDONLY)
		was := []string{identity(dirFD), identity(fileFD)}
		cfg := &gofer.Config{Mounts: []gofer.Mount{
			{FD: -1, Tree: &gofer.Tree{Dirs: []gofer.Dir{{Path: "etc", Mode: 0o755}}, Files: []gofer.File{{Path: "etc/passwd", Mode: 0o644, Content: "root\n"}}, Links: []gofer.Link{{Path: "up", Target: "../../../.."}}}},
			{FD: dirFD, IsDir: true},
			{FD: fileFD},
			{FD: -1, Empty: true, ReadOnly: true},
		}}
		if err := serveInJail(cfg); err != nil {
			t.Error(err)
			return
		}
		if identity(dirFD) == was[0] || identity(fileFD) == was[1] {
			t.Error("a descriptor of a mount is still open")
		}
		if got := list("/"); got != "fd m0 m1 m2 m3" {
			t.Errorf("the root holds %s", got)
		}
		for path, want := range map[string]string{"/m0": "etc up", "/m1": "served sub", "/fd": "", "/m0/up": "fd m0 m1 m2 m3", "/..": "fd m0 m1 m2 m3", "/m1/..": "fd m0 m1 m2 m3"} {
			if got := list(path); got != want {
				t.Errorf("%s holds %q, expected %q", path, got, want)
			}
		}
		if b, err := os.ReadFile("/m2"); err != nil || string(b) != "a file" {
			t.Errorf("/m2: %q %v", b, err)
		}
		if b, err := os.ReadFile("/m3"); err != nil || len(b) > 0 {
			t.Errorf("/m3: %q %v", b, err)
		}
		if _, err := os.OpenFile("/m3", os.O_WRONLY, 0); !errors.Is(err, unix.EROFS) {
			t.Errorf("the empty file is opened for writing: %v", err)
		}
		for _, gone := range []string{"/proc", "/etc", host, "/m1/../secret", "/proc/self/root"} {
			if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", gone, err)
			}
		}
		for path, want := range map[string]error{"/x": unix.EROFS, "/m0/x": unix.EROFS, "/m1/x": nil} {
			if err := os.Mkdir(path, 0o700); !errors.Is(err, want) {
				t.Errorf("mkdir %s: %v, expected %v", path, err, want)
			}
		}
		// The mounts that are left, by a procfs for this once.
		if got := mounts(t); !slices.Equal(got, []string{"/", "/m0", "/m1", "/m2"}) {
			t.Errorf("mounts: %v", got)
		}
	})
	if got := list(host); got != before {
		t.Errorf("%s became %s", before, got)
	}
	if got := list(host + "/d"); got != "served sub x" {
		t.Errorf("the served directory is not the host's: %s", got)
	}
}

// mounts are the mount points of this thread's namespace.
func mounts(t *testing.T) []string {
	fsfd, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		t.Error(err)
		return nil
	}
	proc, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer unix.Close(proc)
	fd, err := unix.Openat(proc, "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return nil
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	b := make([]byte, 1<<16)
	n, _ := f.Read(b)
	var out []string
	for l := range strings.Lines(string(b[:n])) {
		out = append(out, strings.Fields(l)[4])
	}
	slices.Sort(out)
	return out
}

func TestJailFails(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]gofer.Mount{
		"no descriptor": {FD: 1 << 20, IsDir: true}, "no mount": {FD: 0, IsDir: true}, "a tree that can't be": {FD: -1, Tree: &gofer.Tree{Dirs: []gofer.Dir{{Path: "a/b", Mode: 0o755}}}},
	} {
		inMountNS(t, func() {
			m := m
			if m.FD == 0 {
				// attach closes it.
				f, err := os.Open(os.DevNull)
				if err != nil {
					t.Error(err)
					return
				}
				if m.FD, err = dup(f); err != nil {
					t.Error(err)
					return
				}
			}
			if err := serveInJail(&gofer.Config{Mounts: []gofer.Mount{m}}); err == nil || !strings.Contains(err.Error(), "attach mount 0") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
