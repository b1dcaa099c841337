// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// kinds makes one file of each kind in a directory. It says which are opened.
func kinds(t *testing.T, dir string) map[string]bool {
	t.Helper()
	in := func(n string) string { return filepath.Join(dir, n) }
	l, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	err = errors.Join(os.WriteFile(in("file"), []byte("x"), 0o600), os.Mkdir(in("dir"), 0o700), unix.Mkfifo(in("fifo"), 0o600),
		os.Symlink("fifo", in("link")), os.Symlink("nowhere", in("dangling")), os.Link(in("fifo"), in("again")))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{"file": true, "dir": true, "fifo": false, "again": false, "link": false, "dangling": false, "socket": false}
	if os.Geteuid() == 0 {
		if err := errors.Join(unix.Mknod(in("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.Mknod(in("whiteout"), unix.S_IFCHR|0o600, 0),
			unix.Mknod(in("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0)))); err != nil {
			t.Fatal(err)
		}
		all["null"], all["whiteout"] = false, false
	}
	return all
}

// Whatever is looked at is only located, which has no effect on the host.
func TestLocate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := kinds(t, dir)
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	conn := &connectionImpl{}
	for name := range all {
		fd, stat, err := conn.locate(at, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_PATH == 0 {
			t.Errorf("%s: flags %#x, %v: it is opened", name, flags, err)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Ino != stat.Ino {
			t.Errorf("%s: another file: %v", name, err)
		}
		unix.Close(fd)
	}
	for _, name := range []string{"nosuch", "disk", "file/x"} {
		if fd, _, err := conn.locate(at, name); err == nil {
			t.Errorf("%s is located: %d", name, fd)
		}
	}
}

// Nothing but directories and regular files is opened, whatever it is reached by.
func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := kinds(t, dir)
	c := serve(t, dir, Config{}, false)
	for name, opened := range all {
		f := c.walk(name)
		for _, flags := range []uint32{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC} {
			fd, host, err := f.OpenAt(bg, flags)
			if got := err == nil; got != (opened && (name != "dir" || flags == unix.O_RDONLY)) {
				t.Errorf("%s: opened with %#x: %v", name, flags, err)
			}
			if err != nil {
				continue
			}
			if (host >= 0) != (name == "file") {
				t.Errorf("%s: descriptor %d is given to the client", name, host)
			}
			if host >= 0 {
				unix.Close(host)
			}
			c.CloseFD(bg, fd, true)
		}
	}
	// One who opened the FIFO to read would have let a writer in.
	if fd, err := unix.Open(filepath.Join(dir, "fifo"), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); !errors.Is(err, unix.ENXIO) {
		t.Errorf("somebody has the fifo open: %d %v", fd, err)
	}
}

// What was found is what is opened, changed and linked, whatever the host puts in
// its place in between.
func TestSwapped(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(string) error{
		"fifo": func(p string) error { return unix.Mkfifo(p, 0o600) },
		"link": func(p string) error { return os.Symlink("/etc/passwd", p) },
		"file": func(p string) error { return os.WriteFile(p, []byte("other"), 0o600) },
		"none": func(string) error { return nil },
	} {
		dir := t.TempDir()
		p := filepath.Join(dir, "f")
		// The kernel calls a removed file so.
		if err := errors.Join(os.WriteFile(p, []byte("first"), 0o600), os.WriteFile(p+" (deleted)", []byte("decoy"), 0o600)); err != nil {
			t.Fatal(err)
		}
		c := serve(t, dir, Config{}, false)
		f := c.walk("f")
		if err := errors.Join(os.Remove(p), put(p)); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(p)
		id, host, err := f.OpenAt(bg, unix.O_RDWR)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		unix.Close(host)
		buf := make([]byte, 10)
		o := c.NewFD(id)
		if n, err := o.Read(bg, buf, 0); err != nil || string(buf[:n]) != "first" {
			t.Errorf("%s: read %q %v", name, buf[:n], err)
		}
		if failed, err := c.setStat(f, unix.STATX_MODE|unix.STATX_SIZE|unix.STATX_MTIME); failed != 0 || err != nil {
			t.Errorf("%s: change: %#x %v", name, failed, err)
		}
		if after, _ := os.Lstat(p); before != nil && (after.Mode() != before.Mode() || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime())) {
			t.Errorf("%s: what was put there is changed: %v, before %v", name, after, before)
		}
		if _, err := c.root.LinkAt(bg, f.ID(), "l"); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: link: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "l")); err == nil {
			t.Errorf("%s: a link to another file is left", name)
		}
	}
}

// With nodev a device node is of no device.
func TestNoDevices(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "making device nodes needs root")
	dir := t.TempDir()
	if err := unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	for _, no := range []bool{false, true} {
		c := serve(t, dir, Config{NoDevices: no}, false)
		walked, err := c.root.Walk(bg, "null")
		if err != nil {
			t.Fatal(err)
		}
		stats, err := c.root.WalkStat(bg, []string{"", "null"})
		if err != nil || len(stats) != 2 {
			t.Fatalf("%v %v", stats, err)
		}
		for _, stat := range append(stats[1:], walked.Stat) {
			if (stat.RdevMajor == 0 && stat.RdevMinor == 0) != no || stat.Mode&unix.S_IFMT != unix.S_IFCHR {
				t.Errorf("nodev %v: device %d:%d of mode %o", no, stat.RdevMajor, stat.RdevMinor, stat.Mode)
			}
		}
	}
}
