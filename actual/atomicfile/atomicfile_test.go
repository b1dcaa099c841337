// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/hosttest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a directory as the callers of this package do.
func open(t *testing.T, path string) *os.File {
	t.Helper()
	d, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func tempDir(t *testing.T) (string, *os.File) {
	t.Helper()
	p := t.TempDir()
	return p, open(t, p)
}

// tmpfs is a detached tmpfs with the options given, for what a filesystem
// refuses. It is attached nowhere and gone when it is closed.
func tmpfs(t *testing.T, opts ...string) *os.File {
	t.Helper()
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		hosttest.Lacks(t, "no filesystem can be made here: fsopen: %v", err)
	}
	defer unix.Close(fsfd)
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		must(t, unix.FsconfigSetString(fsfd, k, v))
	}
	must(t, unix.FsconfigCreate(fsfd))
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(mnt) }) // which unmounts it
	fd, err := unix.Openat(mnt, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	d := os.NewFile(uintptr(fd), "tmpfs")
	t.Cleanup(func() { d.Close() })
	return d
}

// names is what is in a directory, sorted.
func names(t *testing.T, dir *os.File) []string {
	t.Helper()
	ns, err := fsys.Of(dir).Names(0)
	must(t, err)
	slices.Sort(ns)
	return ns
}

// content is a file's, by descriptor: the directory may have no path.
func content(t *testing.T, dir *os.File, name string) string {
	t.Helper()
	b, err := readAt(dir, name)
	must(t, err)
	return string(b)
}

func readAt(dir *os.File, name string) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
}

func expectNames(t *testing.T, dir *os.File, want ...string) {
	t.Helper()
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("the directory holds %q, expected %q", got, want)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	p, dir := tempDir(t)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for i, c := range []struct {
		data string
		mode fs.FileMode
	}{{"one", 0o600}, {big, 0o644}, {"", 0o640}, {"three", 0o755 | fs.ModeSetuid | fs.ModeDir}} {
		must(t, Write(dir, "f", []byte(c.data), c.mode))
		if got := content(t, dir, "f"); got != c.data {
			t.Errorf("%d: %d bytes were written, %d are there", i, len(c.data), len(got))
		}
		info, err := os.Lstat(filepath.Join(p, "f"))
		must(t, err)
		if info.Mode() != c.mode.Perm() {
			t.Errorf("%d: mode %v, expected %v", i, info.Mode(), c.mode.Perm())
		}
		expectNames(t, dir, "f")
	}
	// What a reader has open stays what it was.
	f, err := os.Open(filepath.Join(p, "f"))
	must(t, err)
	defer f.Close()
	must(t, Write(dir, "f", []byte("changed"), 0o600))
	b := make([]byte, 100)
	if n, _ := f.Read(b); string(b[:n]) != "three" {
		t.Errorf("an open file became %q", b[:n])
	}
	must(t, Remove(dir, "f"))
	must(t, Remove(dir, "f"))
	expectNames(t, dir)
}

// The mode is the one asked for, whatever the umask.
func TestUmask(t *testing.T) {
	t.Parallel()
	p, dir := tempDir(t)
	onThread(t, func() {
		// A thread's umask is its own after this.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		unix.Umask(0o777)
		if err := errors.Join(Write(dir, "w", nil, 0o644), Create(dir, "c", nil, 0o640)); err != nil {
			t.Error(err)
		}
	})
	for name, want := range map[string]fs.FileMode{"w": 0o644, "c": 0o640} {
		if info, err := os.Stat(filepath.Join(p, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v, expected %v", name, info, err, want)
		}
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	p, dir := tempDir(t)
	must(t, Create(dir, "f", []byte("first"), 0o600))
	must(t, os.Mkdir(filepath.Join(p, "d"), 0o700))
	must(t, os.Symlink("nowhere", filepath.Join(p, "l")))
	for _, name := range []string{"f", "d", "l"} {
		if err := Create(dir, name, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v, expected fs.ErrExist", name, err)
		}
	}
	if content(t, dir, "f") != "first" {
		t.Error("it was replaced")
	}
	expectNames(t, dir, "d", "f", "l")
	// Of many at once one creates it.
	var wg sync.WaitGroup
	won := make(chan int, 16)
	for i := range cap(won) {
		wg.Go(func() {
			switch err := Create(dir, "race", []byte{byte(i)}, 0o600); {
			case err == nil:
				won <- i
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 || content(t, dir, "race") != string([]byte{byte(<-won)}) {
		t.Errorf("%d have created it, or it is another's", len(won))
	}
	expectNames(t, dir, "d", "f", "l", "race")
}

// Only a regular file is replaced; whatever else has the name stays.
func TestNotRegular(t *testing.T) {
	t.Parallel()
	p, dir := tempDir(t)
	at := func(n string) string { return filepath.Join(p, n) }
	must(t, os.WriteFile(at("target"), []byte("precious"), 0o600))
	must(t, os.Symlink("target", at("link")))
	must(t, os.Symlink("nowhere", at("dangling")))
	must(t, os.Symlink("loop", at("loop")))
	must(t, os.Mkdir(at("dir"), 0o700))
	must(t, unix.Mkfifo(at("fifo"), 0o600))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/sock", dir.Fd())}))
	all := names(t, dir)
	for _, name := range []string{"link", "dangling", "loop", "dir", "fifo", "sock"} {
		before, err := os.Lstat(at(name))
		must(t, err)
		if err := Write(dir, name, []byte("new"), 0o600); !errors.Is(err, ErrNotRegular) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, expected ErrNotRegular and the name", name, err)
		}
		if after, err := os.Lstat(at(name)); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s is not what it was: %v", name, err)
		}
	}
	if content(t, dir, "target") != "precious" {
		t.Error("a link was followed")
	}
	if got := names(t, dir); !slices.Equal(got, all) {
		t.Errorf("%q became %q", all, got)
	}
	// Remove takes the name, never what it leads to, and no directory.
	must(t, Remove(dir, "link"))
	if err := Remove(dir, "dir"); err == nil {
		t.Error("a directory is removed")
	}
	if content(t, dir, "target") != "precious" {
		t.Error("a link was followed")
	}
}

// The other names of a file keep what they have.
func TestHardLink(t *testing.T) {
	t.Parallel()
	p, dir := tempDir(t)
	must(t, Write(dir, "a", []byte("old"), 0o600))
	must(t, os.Link(filepath.Join(p, "a"), filepath.Join(p, "b")))
	must(t, Write(dir, "a", []byte("new"), 0o600))
	if a, b := content(t, dir, "a"), content(t, dir, "b"); a != "new" || b != "old" {
		t.Errorf("a is %q, b is %q", a, b)
	}
	expectNames(t, dir, "a", "b")
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	p, dir := tempDir(t)
	sub := filepath.Join(p, "sub")
	must(t, os.Mkdir(sub, 0o700))
	inner := open(t, sub)
	for _, name := range []string{"", ".", "..", "a/b", "/a", "a/", "../a", "./a", "a\x00b", "\x00"} {
		for verb, err := range map[string]error{
			"write": Write(inner, name, []byte("x"), 0o600), "create": Create(inner, name, []byte("x"), 0o600), "remove": Remove(inner, name),
		} {
			if err == nil {
				t.Errorf("%s %q is accepted", verb, name)
			}
		}
	}
	long := strings.Repeat("n", 255)
	for _, err := range []error{Write(inner, long+"n", nil, 0o600), Create(inner, long+"n", nil, 0o600)} {
		if !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("a name of 256 bytes: %v", err)
		}
	}
	expectNames(t, inner)
	expectNames(t, dir, "sub")
	for _, name := range []string{long, "...", "-rf", "a b\n", "\xff", " ", "ü"} {
		if err := Write(inner, name, []byte(name), 0o600); err != nil || content(t, inner, name) != name {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t)
	must(t, Write(dir, "f", []byte("old"), 0o600))
	must(t, unix.MountSetattr(int(dir.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
	for verb, err := range map[string]error{
		"write": Write(dir, "f", []byte("new"), 0o600), "create": Create(dir, "g", nil, 0o600), "remove": Remove(dir, "f"),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v, expected EROFS", verb, err)
		}
	}
	expectNames(t, dir, "f")
}

// A full disk costs the new content, not the old.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "size=64k")
	old := strings.Repeat("o", 16<<10)
	must(t, Write(dir, "f", []byte(old), 0o600))
	for range 3 {
		if err := Write(dir, "f", bytes.Repeat([]byte("n"), 60<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("%v, expected ENOSPC", err)
		}
		if content(t, dir, "f") != old {
			t.Error("the old content is gone")
		}
		expectNames(t, dir, "f")
	}
	must(t, Write(dir, "f", bytes.Repeat([]byte("n"), 40<<10), 0o600))
}

func TestNoInodes(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "nr_inodes=3") // the directory, a file, its temporary
	must(t, Write(dir, "f", []byte("old"), 0o600))
	must(t, Write(dir, "f", []byte("old"), 0o600))
	must(t, Write(dir, "g", nil, 0o600))
	if err := Write(dir, "f", []byte("new"), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, expected ENOSPC", err)
	}
	if content(t, dir, "f") != "old" {
		t.Error("the old content is gone")
	}
	expectNames(t, dir, "f", "g")
}

func TestDirectoryGone(t *testing.T) {
	t.Parallel()
	p, _ := tempDir(t)
	sub := filepath.Join(p, "sub")
	must(t, os.Mkdir(sub, 0o700))
	dir := open(t, sub)
	must(t, os.Remove(sub))
	if err := Write(dir, "f", nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, expected fs.ErrNotExist", err)
	}
}

func TestSweepTemps(t *testing.T) {
	t.Parallel()
	p, dir := tempDir(t)
	at := func(n string) string { return filepath.Join(p, n) }
	others := []string{
		".hidden", ".sandboxctl-tmp", ".sandboxctl-tmp_1", ".sandboxctl-tmpx-1", ".Sandboxctl-tmp-1", "a.yaml",
		"sandboxctl-tmp-1", "x" + TempPrefix + "1",
	}
	slices.Sort(others)
	for _, n := range others {
		must(t, os.WriteFile(at(n), []byte(n), 0o600))
	}
	for range 3 {
		must(t, os.WriteFile(at(tempName()), nil, 0o600))
	}
	// What the name of a temporary leads to is none.
	must(t, os.Symlink("a.yaml", at(TempPrefix+"link")))
	sweepAll(t, dir)
	expectNames(t, dir, others...)
	for _, n := range others {
		if content(t, dir, n) != n {
			t.Errorf("%s was touched", n)
		}
	}
	sweepAll(t, dir) // also with nothing to do, and twice on one descriptor

	// What can't be removed is told, and keeps nothing else.
	odd := TempPrefix + "dir"
	must(t, os.Mkdir(at(odd), 0o700))
	for _, n := range []string{TempPrefix + "a", TempPrefix + "z"} {
		must(t, os.WriteFile(at(n), nil, 0o600))
	}
	if _, err := SweepTemps(dir); err == nil {
		t.Error("a directory with the name of a temporary is not told of")
	}
	if got := names(t, dir); len(got) != len(others)+1 || !slices.Contains(got, odd) {
		t.Errorf("%q", got)
	}
	if _, err := SweepTemps(open(t, at("a.yaml"))); err == nil {
		t.Error("a file is swept like a directory")
	}
}

func sweepAll(t *testing.T, dir *os.File) {
	t.Helper()
	busy, err := SweepTemps(dir)
	must(t, err)
	if busy > 0 {
		t.Errorf("%d are being written", busy)
	}
}

// What is locked is counted and left: by its writer, or by the newborn child of one
// that was killed.
func TestSweepLocked(t *testing.T) {
	t.Parallel()
	p, dir := tempDir(t)
	tmp, err := os.Create(filepath.Join(p, TempPrefix+"1"))
	must(t, err)
	must(t, unix.Flock(int(tmp.Fd()), unix.LOCK_EX))
	if busy, err := SweepTemps(dir); busy != 1 || err != nil {
		t.Errorf("%d, %v", busy, err)
	}
	expectNames(t, dir, filepath.Base(tmp.Name()))
	must(t, tmp.Close())
	sweepAll(t, dir)
	expectNames(t, dir)
}

// A sweep takes no file from a writer that lives, whenever it comes.
func TestSweepBesideWriters(t *testing.T) {
	t.Parallel()
	_, dir := tempDir(t)
	var writers, sweeper sync.WaitGroup
	done := make(chan struct{})
	sweeper.Go(func() {
		for {
			if _, err := SweepTemps(dir); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 8 {
		writers.Go(func() {
			for range 50 {
				if err := Write(dir, "f", []byte("content"), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	sweeper.Wait()
	expectNames(t, dir, "f")
}

// The last writer wins, and a reader only ever sees a whole file.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	_, dir := tempDir(t)
	// A line of one letter, as long as the letter says.
	text := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 1+i*7919) }
	whole := func(b []byte) bool { return len(b) > 0 && bytes.Equal(b, text(int(b[0]-'a'))) }
	must(t, Write(dir, "f", text(0), 0o600))
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				b, err := readAt(dir, "f")
				if err != nil || !whole(b) {
					t.Errorf("%d bytes that are no whole file: %v", len(b), err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 8 {
		writers.Go(func() {
			for range 10 {
				if err := Write(dir, "f", text(i), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if b := content(t, dir, "f"); !whole([]byte(b)) {
		t.Errorf("%d bytes that are no whole file", len(b))
	}
	expectNames(t, dir, "f")
}

func TestMkdirAll(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	for _, p := range []string{"a/b/c", "a/b/c", "a/./b/../d/", "."} {
		must(t, MkdirAll(filepath.Join(top, p)+"/", 0o700))
		fi, err := os.Stat(filepath.Join(top, p))
		if must(t, err); !fi.IsDir() || p != "." && fi.Mode().Perm() != 0o700 {
			t.Errorf("%s is %v", p, fi.Mode())
		}
	}
	must(t, os.WriteFile(filepath.Join(top, "file"), nil, 0o600))
	for _, p := range []string{"file", "file/below"} {
		if err := MkdirAll(filepath.Join(top, p), 0o700); err == nil {
			t.Errorf("%s was made", p)
		}
	}
}
