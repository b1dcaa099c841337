// SPDX-License-Identifier: Apache-2.0
// Copyright 2021 The gVisor Authors.
// Changed: see doc.go.

package hostfiles

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// open returns a descriptor of what is at name. Only a directory or a regular file
// is opened, for reading; anything else, and what can't be read, is only located
// (O_PATH): opening a FIFO, a socket or a device does something on the host.
func (i *connectionImpl) open(dirFD int, name string) (int, lisafs.Statx, error) {
	fd, err := unix.Openat(dirFD, name, unix.O_PATH|openFlags, 0)
	if err != nil {
		return -1, lisafs.Statx{}, err
	}
	stat, err := i.stat(fd)
	if err == nil {
		err = checkSupportedFileType(uint32(stat.Mode))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, lisafs.Statx{}, err
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		// The file that was looked at, whatever its name is of by now.
		opened, err := reopen(fd, unix.O_RDONLY|unix.O_NONBLOCK)
		if err == nil {
			_ = unix.Close(fd)
			return opened, stat, nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			_ = unix.Close(fd)
			return -1, lisafs.Statx{}, err
		}
	}
	return fd, stat, nil
}

// reopen opens the file of a descriptor anew.
func reopen(fd int, flags int) (int, error) {
	return unix.Openat(procSelfFD.FD(), strconv.Itoa(fd), (flags|openFlags)&^unix.O_NOFOLLOW, 0)
}

// stat looks at the file of a descriptor.
func (i *connectionImpl) stat(fd int) (lisafs.Statx, error) {
	stat, err := fstatTo(fd)
	if i.config.NoDevices && stat.Mode&unix.S_IFMT == unix.S_IFCHR {
		stat.RdevMajor, stat.RdevMinor = 0, 0
	}
	return stat, err
}

// isSpecial says whether the descriptor of a file is of its place only.
func (fd *controlFD) isSpecial() bool {
	switch fd.FileType() {
	case unix.S_IFREG, unix.S_IFDIR:
		return false
	}
	return true
}

func fchown(hostFD int, uid lisafs.UID, gid lisafs.GID) error {
	// "If the owner or group is specified as -1, then that ID is not changed"
	// - chown(2). Only bother making the syscall if the owner is changing.
	if !uid.Ok() && !gid.Ok() {
		return nil
	}
	u := -1
	g := -1
	if uid.Ok() {
		u = int(uid)
	}
	if gid.Ok() {
		g = int(gid)
	}
	return unix.Fchownat(hostFD, "", u, g, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
}

func fstatTo(hostFD int) (lisafs.Statx, error) {
	var stat unix.Statx_t
	if err := unix.Statx(hostFD, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stat); err != nil {
		return lisafs.Statx{}, err
	}
	return lisafs.Statx{
		Mask:      stat.Mask,
		Mode:      stat.Mode,
		DevMinor:  stat.Dev_minor,
		DevMajor:  stat.Dev_major,
		Ino:       stat.Ino,
		Nlink:     stat.Nlink,
		UID:       stat.Uid,
		GID:       stat.Gid,
		RdevMinor: stat.Rdev_minor,
		RdevMajor: stat.Rdev_major,
		Size:      stat.Size,
		Blksize:   stat.Blksize,
		Blocks:    stat.Blocks,
		Atime: lisafs.StatxTimestamp{
			Sec:  stat.Atime.Sec,
			Nsec: stat.Atime.Nsec,
		},
		Btime: lisafs.StatxTimestamp{
			Sec:  stat.Btime.Sec,
			Nsec: stat.Btime.Nsec,
		},
		Mtime: lisafs.StatxTimestamp{
			Sec:  stat.Mtime.Sec,
			Nsec: stat.Mtime.Nsec,
		},
		Ctime: lisafs.StatxTimestamp{
			Sec:  stat.Ctime.Sec,
			Nsec: stat.Ctime.Nsec,
		},
	}, nil
}

func checkSupportedFileType(mode uint32) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFCHR, unix.S_IFSOCK, unix.S_IFIFO:
		return nil

	default:
		return unix.EPERM
	}
}
