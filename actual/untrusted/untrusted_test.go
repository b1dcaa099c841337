// SPDX-License-Identifier: Apache-2.0

package untrusted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// Plants are what a gofer that was taken over could leave at a path in its
// directory. canary is a file outside of it.
var plants = map[string]func(path, canary string) error{
	"fifo": func(p, _ string) error { return unix.Mkfifo(p, 0o600) },
	"socket": func(p, _ string) error {
		return unix.Mknod(p, unix.S_IFSOCK|0o600, 0)
	},
	"device":             func(p, _ string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
	"block device":       func(p, _ string) error { return unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))) },
	"directory":          func(p, _ string) error { return os.Mkdir(p, 0o700) },
	"full directory":     func(p, _ string) error { return os.MkdirAll(p+"/a/b/c", 0o700) },
	"link to a file":     func(p, canary string) error { return os.Symlink(canary, p) },
	"link to a device":   func(p, _ string) error { return os.Symlink("/dev/zero", p) },
	"link to itself":     func(p, _ string) error { return os.Symlink(filepath.Base(p), p) },
	"dangling link":      func(p, _ string) error { return os.Symlink("nowhere", p) },
	"link to a parent":   func(p, _ string) error { return os.Symlink("..", p) },
	"second name":        func(p, canary string) error { return os.Link(canary, p) },
	"second name inside": func(p, _ string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Link(p, p+".2")) },
}

func plantAll(t *testing.T, dir, canary string) {
	t.Helper()
	for what, plant := range plants {
		if err := plant(filepath.Join(dir, what), canary); err != nil {
			if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
				continue
			}
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func dirs(t *testing.T) (base, canary string, dir *os.File) {
	t.Helper()
	base = t.TempDir()
	canary = filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("alive"), 0o640); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return base, canary, dir
}

func checkCanary(t *testing.T, canary string) {
	t.Helper()
	b, err := os.ReadFile(canary)
	info, serr := os.Stat(canary)
	if err != nil || serr != nil || string(b) != "alive" || info.Mode().Perm() != 0o640 {
		t.Errorf("the canary: %q %v %v", b, err, serr)
	}
}

// soon fails the test if something blocks.
func soon(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s blocks", what)
	}
}

// Only a regular file with one name is opened, and nothing blocks.
func TestOpenRegular(t *testing.T) {
	t.Parallel()
	base, canary, dir := dirs(t)
	plantAll(t, base, canary)
	for what := range plants {
		soon(t, "to open a "+what, func() {
			f, err := OpenRegular(int(dir.Fd()), what)
			if err == nil {
				f.Close()
				t.Errorf("%s was opened", what)
			} else if !errors.Is(err, ErrNotRegular) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	for _, name := range []string{"..", ".", "", "full directory/a", "../" + filepath.Base(base)} {
		if f, err := OpenRegular(int(dir.Fd()), name); err == nil {
			f.Close()
			t.Errorf("%q was opened", name)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "plain\n\x1b[2J"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := NewFS(dir).Open("plain\n\x1b[2J")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "text" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := OpenRegular(int(dir.Fd()), "nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

// Everything that can be planted is removed, and nothing else.
func TestRemovePlants(t *testing.T) {
	t.Parallel()
	base, canary, dir := dirs(t)
	tree := filepath.Join(base, "web.1")
	for _, d := range []string{tree, tree + "/logs", tree + "/logs/1"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		plantAll(t, d, canary)
	}
	for _, n := range []string{"new\nline", "\x1b[2J", strings.Repeat("x", 255), "\xff", "-rf", ".hidden"} {
		if err := os.MkdirAll(filepath.Join(tree, n, n), 0o000); err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(filepath.Join(tree, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sparse.Truncate(1<<40), sparse.Close()); err != nil {
		t.Fatal(err)
	}
	soon(t, "to remove", func() {
		if more, err := NewRemover(int(dir.Fd()), 10_000).Remove("web.1"); more || err != nil {
			t.Errorf("%v %v", more, err)
		}
	})
	expectEmpty(t, base)
	checkCanary(t, canary)
}

func expectEmpty(t *testing.T, dir string) {
	t.Helper()
	if es, err := os.ReadDir(dir); err != nil || len(es) > 0 {
		t.Errorf("%d entries are left, such as %v: %v", len(es), es[:min(len(es), 1)], err)
	}
}

// deep makes a tree of one directory in the other, with a file in each.
func deep(t *testing.T, at string, levels int) {
	t.Helper()
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for i := 0; err == nil && i < levels; i++ {
		if err = unix.Mkdirat(fd, "d", 0o700); err != nil {
			break
		}
		var next int
		if next, err = unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
			unix.Close(fd)
			fd = next
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

// memory is a detached tmpfs, where there is one: a disk is slow with so many
// directories.
func memory(t *testing.T) (base string, dir *os.File) {
	t.Helper()
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		base, _, dir = dirs(t)
		return base, dir
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir = os.NewFile(uintptr(fd), "tmpfs")
	t.Cleanup(func() { dir.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", fd), dir
}

// A tree that is deeper than paths, stacks and descriptors reach, and one that is
// wider than a worker has time for, is removed bit by bit.
func TestRemoveEndless(t *testing.T) {
	t.Parallel()
	for what, grow := range map[string]func(t *testing.T, at string){
		"deep": func(t *testing.T, at string) { deep(t, at, 100_000) },
		"wide": func(t *testing.T, at string) {
			for i := range 50_000 {
				if err := unix.Mknod(fmt.Sprintf("%s/%d", at, i), unix.S_IFREG|0o600, 0); err != nil {
					t.Fatal(err)
				}
			}
		},
		"bushy": func(t *testing.T, at string) {
			for i := range 50 {
				for j := range 100 {
					if err := os.MkdirAll(fmt.Sprintf("%s/%d/%d/x", at, i, j), 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			base, dir := memory(t)
			if err := os.Mkdir(filepath.Join(base, "web.1"), 0o700); err != nil {
				t.Fatal(err)
			}
			grow(t, filepath.Join(base, "web.1"))
			const budget = 10_000
			calls := 0
			for more := true; more; calls++ {
				names, err := List(int(dir.Fd()), 1000)
				if err != nil {
					t.Fatal(err)
				}
				more = false
				for _, n := range names {
					if !strings.HasPrefix(n, "web.") {
						t.Fatalf("whose is %q?", n)
					}
					m, err := NewRemover(int(dir.Fd()), budget).Remove(n)
					if err != nil {
						t.Fatal(err)
					}
					more = more || m
				}
				if calls > 1000 {
					t.Fatal("it does not get less")
				}
			}
			if calls < 2 {
				t.Errorf("done with %d calls, expected the budget to be kept", calls)
			}
			expectEmpty(t, base)
		})
	}
}

// Who renames directories and links for all the time that they are removed leads
// the remover nowhere.
func TestRemoveRacer(t *testing.T) {
	t.Parallel()
	base, canary, dir := dirs(t)
	outside := filepath.Dir(canary)
	for round := range 30 {
		tree := fmt.Sprintf("%s/web.%d", base, round)
		for _, d := range []string{"a/b/c", "x/y"} {
			if err := os.MkdirAll(filepath.Join(tree, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(outside, tree+"/link"); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(tree, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				_ = unix.Renameat2(fd, "a", fd, "link", unix.RENAME_EXCHANGE)
				_ = unix.Renameat2(fd, "x", fd, "a", unix.RENAME_EXCHANGE)
				_ = unix.Mkdirat(fd, "a", 0o700)
				_ = unix.Symlinkat(outside, fd, "b")
				_ = unix.Renameat2(fd, "b", fd, "x", 0)
			}
		}()
		soon(t, "to remove", func() {
			// It may not be able to, and says so; it must end.
			_, _ = NewRemover(int(dir.Fd()), 5000).Remove(filepath.Base(tree))
		})
		close(stop)
		<-done
		unix.Close(fd)
	}
	checkCanary(t, canary)
	names, err := List(int(dir.Fd()), 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if _, err := NewRemover(int(dir.Fd()), 100_000).Remove(n); err != nil {
			t.Error(err)
		}
	}
	expectEmpty(t, base)
	checkCanary(t, canary)
}

// A mount is not entered; all else goes, and it is told once.
func TestRemoveMounts(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "only root can mount")
	base, canary, dir := dirs(t)
	point := filepath.Join(base, "web.1", "a", "point")
	if err := errors.Join(os.MkdirAll(point, 0o700), os.MkdirAll(filepath.Join(base, "web.1", "b"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Dir(canary), point, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	unmount := func() { _ = unix.Unmount(point, unix.MNT_DETACH) }
	t.Cleanup(func() { unmount() })
	_, err := NewRemover(int(dir.Fd()), 1000).Remove("web.1")
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("a mount: %v", err)
	}
	checkCanary(t, canary)
	if _, err := os.Stat(filepath.Join(base, "web.1", "b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is beside the mount: %v", err)
	}
	// Where the directory of the mount is now does not matter.
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 4 && strings.HasPrefix(f[4], base) {
			point = f[4]
		}
	}
	unmount()
	names, err := List(int(dir.Fd()), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if _, err := NewRemover(int(dir.Fd()), 1000).Remove(n); err != nil {
			t.Error(err)
		}
	}
	expectEmpty(t, base)
}

// Flags that keep even root from removing something are taken away.
func TestRemoveImmutable(t *testing.T) {
	t.Parallel()
	base, _, dir := dirs(t)
	tree := filepath.Join(base, "web.1")
	for _, p := range []string{"frozen/in/file", "appended/file", "file"} {
		p = filepath.Join(tree, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for p, flag := range map[string]int{"frozen/in": immutable, "frozen": immutable, "appended": appendOnly, "appended/file": appendOnly, "file": immutable} {
		f, err := os.Open(filepath.Join(tree, p))
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag)
		f.Close()
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EPERM) {
			t.Skipf("no file can be made immutable here: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if more, err := NewRemover(int(dir.Fd()), 1000).Remove("web.1"); more || err != nil {
		t.Errorf("%v %v", more, err)
	}
	expectEmpty(t, base)
}
