// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"errors"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// selfFD is a descriptor of /proc/self/fd, plus one; zero is none. It outlives
// the mount: the jail has no procfs.
var selfFD atomic.Int64

// OpenProcSelfFD opens the /proc/self/fd directory, which will be used to
// reopen file descriptors. Once is enough; later calls change nothing.
func OpenProcSelfFD(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if !selfFD.CompareAndSwap(0, int64(fd)+1) {
		unix.Close(fd)
	}
	return nil
}

// throughProc returns a directory and a name in it that lead to exactly the file
// of fd, whatever has become of the file's own name. It is for the system calls
// that take no O_PATH descriptor.
func throughProc(fd int) (dir int, name string) {
	return int(selfFD.Load()) - 1, strconv.Itoa(fd)
}

// statMask is what is asked of statx.
const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// locate opens a file for nothing but to know it, and looks what it is. It does
// not follow a link and waits for nobody.
func (c *connectionImpl) locate(dir int, name string) (int, lisafs.Statx, error) {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, lisafs.Statx{}, err
	}
	stat, err := c.stat(fd, "")
	if err != nil {
		unix.Close(fd)
		return -1, stat, err
	}
	return fd, stat, nil
}

// stat looks at the file of fd, or at one in it. It refuses what is not shown.
func (c *connectionImpl) stat(fd int, name string) (lisafs.Statx, error) {
	var s unix.Statx_t
	// The seccomp filter wants AT_EMPTY_PATH, also with a name.
	err := retry(func() error {
		return unix.Statx(fd, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, &s)
	})
	if err != nil {
		return lisafs.Statx{}, err
	}
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		if c.config.NoDevices {
			s.Rdev_major, s.Rdev_minor = 0, 0
		}
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return lisafs.Statx{}, unix.EPERM
	}
	return lisafs.Statx{
		Mask: s.Mask, Blksize: s.Blksize, Attributes: s.Attributes, AttributesMask: s.Attributes_mask, Nlink: s.Nlink,
		UID: s.Uid, GID: s.Gid, Mode: s.Mode, Ino: s.Ino, Size: s.Size, Blocks: s.Blocks,
		Atime: timestamp(s.Atime), Btime: timestamp(s.Btime), Ctime: timestamp(s.Ctime), Mtime: timestamp(s.Mtime),
		RdevMajor: s.Rdev_major, RdevMinor: s.Rdev_minor, DevMajor: s.Dev_major, DevMinor: s.Dev_minor,
	}, nil
}

func timestamp(t unix.StatxTimestamp) lisafs.StatxTimestamp {
	return lisafs.StatxTimestamp{Sec: t.Sec, Nsec: t.Nsec}
}

// canOpen says whether a file of the mode may be opened: of the host, only
// directories and regular files are.
func canOpen(mode uint16) bool {
	t := mode & unix.S_IFMT
	return t == unix.S_IFDIR || t == unix.S_IFREG
}

// sameFile says whether both are of one file.
func sameFile(a, b *lisafs.Statx) bool {
	return a.Ino == b.Ino && a.DevMajor == b.DevMajor && a.DevMinor == b.DevMinor
}

// reopen opens the file of fd again. The caller knows that canOpen allows it.
func reopen(fd, flags int) (int, error) {
	dir, name := throughProc(fd)
	return openat(dir, name, flags, 0)
}

func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// retry repeats a call that a signal interrupted: Go's runtime sends signals to
// its own threads, and FUSE and network filesystems let them through.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
