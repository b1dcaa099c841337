// SPDX-License-Identifier: Apache-2.0
// Copyright 2021 The gVisor Authors.
// Changed: see doc.go.

package hostfiles

import (
	"path"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/cleanup"
	"gvisor.dev/gvisor/pkg/fsutil"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/log"
)

// OpenCreate implements lisafs.ControlFDImpl.OpenCreate.
func (fd *controlFD) OpenCreate(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string, flags uint32) (*lisafs.ControlFD, lisafs.Statx, *lisafs.OpenFD, int, error) {
	createFlags := unix.O_CREAT | unix.O_EXCL | unix.O_RDONLY | unix.O_NONBLOCK | openFlags
	childHostFD, err := unix.Openat(fd.hostFD, name, createFlags, uint32(mode&^linux.FileTypeMask))
	if err != nil {
		return nil, lisafs.Statx{}, nil, -1, err
	}

	cu := cleanup.Make(func() {
		// Best effort attempt to remove the file in case of failure.
		if err := unix.Unlinkat(fd.hostFD, name, 0); err != nil {
			log.Warningf("error unlinking file %q after failure: %v", path.Join(fd.Node().FilePath(), name), err)
		}
		unix.Close(childHostFD)
	})
	defer cu.Clean()

	// Set the owners as requested by the client.
	if err := fchown(childHostFD, uid, gid); err != nil {
		return nil, lisafs.Statx{}, nil, -1, err
	}

	// Get stat results.
	childStat, err := fd.conn().stat(childHostFD)
	if err != nil {
		return nil, lisafs.Statx{}, nil, -1, err
	}

	// Now open an FD to the newly created file with the flags requested by the client.
	flags |= openFlags
	newHostFD, err := reopen(childHostFD, int(flags))
	if err != nil {
		return nil, lisafs.Statx{}, nil, -1, err
	}
	cu.Release()

	childFD := newControlFD(childHostFD, fd, name, linux.ModeRegular)
	newFD := childFD.newOpenFD(newHostFD, flags)

	// Donate FD because open(O_CREAT|O_EXCL) always creates a regular file.
	// Since FD donation is a destructive operation, we should duplicate the
	// to-be-donated FD. Eat the error if one occurs, it is better to have an FD
	// without a host FD, than failing the Open attempt.
	hostOpenFD := -1
	if dupFD, err := unix.Dup(newFD.hostFD); err == nil {
		hostOpenFD = dupFD
	}

	return childFD.FD(), childStat, newFD.FD(), hostOpenFD, nil
}

// Mkdir implements lisafs.ControlFDImpl.Mkdir.
func (fd *controlFD) Mkdir(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	if err := unix.Mkdirat(fd.hostFD, name, uint32(mode&^linux.FileTypeMask)); err != nil {
		return nil, lisafs.Statx{}, err
	}
	cu := cleanup.Make(func() {
		// Best effort attempt to remove the dir in case of failure.
		if err := unix.Unlinkat(fd.hostFD, name, unix.AT_REMOVEDIR); err != nil {
			log.Warningf("error unlinking dir %q after failure: %v", path.Join(fd.Node().FilePath(), name), err)
		}
	})
	defer cu.Clean()

	// Open directory to change ownership.
	childDirFd, made, err := fd.conn().open(fd.hostFD, name)
	if err != nil {
		return nil, lisafs.Statx{}, err
	}
	if made.Mode&unix.S_IFMT != unix.S_IFDIR {
		_ = unix.Close(childDirFd)
		return nil, lisafs.Statx{}, unix.ENOTDIR
	}
	if err := fchown(childDirFd, uid, gid); err != nil {
		unix.Close(childDirFd)
		return nil, lisafs.Statx{}, err
	}

	// Get stat results.
	childDirStat, err := fd.conn().stat(childDirFd)
	if err != nil {
		unix.Close(childDirFd)
		return nil, lisafs.Statx{}, err
	}

	cu.Release()
	return newControlFD(childDirFd, fd, name, linux.ModeDirectory).FD(), childDirStat, nil
}

// Mknod implements lisafs.ControlFDImpl.Mknod.
func (fd *controlFD) Mknod(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string, minor uint32, major uint32) (*lisafs.ControlFD, lisafs.Statx, error) {
	// Only allow creating regular files or overlayfs whiteouts. Linux's
	// vfs_mknod() exempts whiteouts from the CAP_MKNOD check, so we do not need
	// CAP_MKNOD on the gofer process. This enables using gofer as an overlay
	// upper layer. Return EPERM otherwise; from mknod(2) man page:
	// "EPERM: [...] if the filesystem containing pathname does not support
	// the type of node requested."
	switch mode.FileType() {
	case linux.S_IFREG:
	case linux.S_IFCHR:
		if minor == 0 && major == 0 {
			break
		}
		fallthrough
	default:
		return nil, lisafs.Statx{}, unix.EPERM
	}

	if err := unix.Mknodat(fd.hostFD, name, uint32(mode), 0); err != nil {
		return nil, lisafs.Statx{}, err
	}
	cu := cleanup.Make(func() {
		// Best effort attempt to remove the file in case of failure.
		if err := unix.Unlinkat(fd.hostFD, name, 0); err != nil {
			log.Warningf("error unlinking file %q after failure: %v", path.Join(fd.Node().FilePath(), name), err)
		}
	})
	defer cu.Clean()

	// Open file to change ownership.
	childFD, _, err := fd.conn().open(fd.hostFD, name)
	if err != nil {
		return nil, lisafs.Statx{}, err
	}
	if err := fchown(childFD, uid, gid); err != nil {
		unix.Close(childFD)
		return nil, lisafs.Statx{}, err
	}

	// Get stat results.
	childStat, err := fd.conn().stat(childFD)
	if err != nil {
		unix.Close(childFD)
		return nil, lisafs.Statx{}, err
	}
	cu.Release()

	return newControlFD(childFD, fd, name, mode).FD(), childStat, nil
}

// Symlink implements lisafs.ControlFDImpl.Symlink.
func (fd *controlFD) Symlink(name string, target string, uid lisafs.UID, gid lisafs.GID) (*lisafs.ControlFD, lisafs.Statx, error) {
	if err := unix.Symlinkat(target, fd.hostFD, name); err != nil {
		return nil, lisafs.Statx{}, err
	}
	cu := cleanup.Make(func() {
		// Best effort attempt to remove the symlink in case of failure.
		if err := unix.Unlinkat(fd.hostFD, name, 0); err != nil {
			log.Warningf("error unlinking file %q after failure: %v", path.Join(fd.Node().FilePath(), name), err)
		}
	})
	defer cu.Clean()

	// Open symlink to change ownership.
	symlinkFD, err := unix.Openat(fd.hostFD, name, unix.O_PATH|openFlags, 0)
	if err != nil {
		return nil, lisafs.Statx{}, err
	}
	if err := fchown(symlinkFD, uid, gid); err != nil {
		unix.Close(symlinkFD)
		return nil, lisafs.Statx{}, err
	}

	symlinkStat, err := fd.conn().stat(symlinkFD)
	if err != nil {
		unix.Close(symlinkFD)
		return nil, lisafs.Statx{}, err
	}
	cu.Release()
	return newControlFD(symlinkFD, fd, name, linux.ModeSymlink).FD(), symlinkStat, nil
}

// Link implements lisafs.ControlFDImpl.Link.
func (fd *controlFD) Link(dir lisafs.ControlFDImpl, name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	// Using linkat(targetFD, "", newdirfd, name, AT_EMPTY_PATH) requires
	// CAP_DAC_READ_SEARCH in the *root* userns. The gofer process has
	// CAP_DAC_READ_SEARCH in its own userns. But sometimes the gofer may be
	// running in a different userns. So we can't use AT_EMPTY_PATH. Fallback
	// to using olddirfd to call linkat(2).
	oldDirFD, oldName, err := fd.getParentFD()
	if err != nil {
		return nil, lisafs.Statx{}, err
	}
	dirFD := dir.(*controlFD)
	if err := unix.Linkat(oldDirFD, oldName, dirFD.hostFD, name, 0); err != nil {
		return nil, lisafs.Statx{}, err
	}
	cu := cleanup.Make(func() {
		// Best effort attempt to remove the hard link in case of failure.
		if err := unix.Unlinkat(dirFD.hostFD, name, 0); err != nil {
			log.Warningf("error unlinking file %q after failure: %v", path.Join(dirFD.Node().FilePath(), name), err)
		}
	})
	defer cu.Clean()

	linkFD, linkStat, err := fd.conn().open(dirFD.hostFD, name)
	if err != nil {
		return nil, lisafs.Statx{}, err
	}
	cu.Release()
	return newControlFD(linkFD, dirFD, name, linux.FileMode(linkStat.Mode)).FD(), linkStat, nil
}

// Unlink implements lisafs.ControlFDImpl.Unlink.
func (fd *controlFD) Unlink(name string, flags uint32) error {
	return unix.Unlinkat(fd.hostFD, name, int(flags))
}

// RenameAt implements lisafs.ControlFDImpl.RenameAt.
func (fd *controlFD) RenameAt(oldName string, newDir lisafs.ControlFDImpl, newName string) error {
	return fsutil.RenameAt(fd.hostFD, oldName, newDir.(*controlFD).hostFD, newName)
}

// RenameAt2 implements lisafs.ControlFDImpl.RenameAt2.
func (fd *controlFD) RenameAt2(oldName string, newDir lisafs.ControlFDImpl, newName string, flags uint32) error {
	return fsutil.RenameAt2(fd.hostFD, oldName, newDir.(*controlFD).hostFD, newName, flags)
}

// Renamed implements lisafs.ControlFDImpl.Renamed.
func (fd *controlFD) Renamed() {
	// controlFD does not have any state to update on rename.
}
