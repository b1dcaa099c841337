// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Nothing but directories and regular files is opened, whatever it is reached by;
// what is only located has no effect on the host.
func TestOpen(t *testing.T) {
	t.Parallel()
	if err := OpenProcSelfFD("/proc/self/fd"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := func(n string) string { return filepath.Join(dir, n) }
	l, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = errors.Join(os.WriteFile(in("file"), []byte("x"), 0o600), os.Mkdir(in("dir"), 0o700), unix.Mkfifo(in("fifo"), 0o600),
		os.Symlink("fifo", in("link")), os.Symlink("nowhere", in("dangling")), os.Link(in("fifo"), in("again")))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"file": true, "dir": true, "fifo": false, "again": false, "link": false, "dangling": false, "socket": false}
	if os.Geteuid() == 0 {
		if err := errors.Join(unix.Mknod(in("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.Mknod(in("whiteout"), unix.S_IFCHR|0o600, 0),
			unix.Mknod(in("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0)))); err != nil {
			t.Fatal(err)
		}
		want["null"], want["whiteout"] = false, false
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	conn := &connectionImpl{}
	for name, opened := range want {
		fd, stat, err := conn.open(at, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || (flags&unix.O_PATH == 0) != opened {
			t.Errorf("%s: flags %#x, %v, opened should be %v", name, flags, err, opened)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Ino != stat.Ino {
			t.Errorf("%s: another file: %v", name, err)
		}
		unix.Close(fd)
	}
	// One who opened the FIFO to read would have let a writer in.
	if fd, err := unix.Open(in("fifo"), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); !errors.Is(err, unix.ENXIO) {
		t.Errorf("somebody has the fifo open: %d %v", fd, err)
	}
	for _, name := range []string{"nosuch", "disk", "file/x"} {
		if fd, _, err := conn.open(at, name); err == nil {
			t.Errorf("%s is opened: %d", name, fd)
		}
	}
}

// With nodev a device node is of no device.
func TestNoDevices(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("making device nodes needs root")
	}
	file := filepath.Join(t.TempDir(), "null")
	if err := unix.Mknod(file, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	for _, no := range []bool{false, true} {
		conn := &connectionImpl{config: Config{NoDevices: no}}
		fd, stat, err := conn.open(unix.AT_FDCWD, file)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if (stat.RdevMajor == 0 && stat.RdevMinor == 0) != no || stat.Mode&unix.S_IFMT != unix.S_IFCHR {
			t.Errorf("nodev %v: device %d:%d of mode %o", no, stat.RdevMajor, stat.RdevMinor, stat.Mode)
		}
	}
}
