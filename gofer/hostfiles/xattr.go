// SPDX-License-Identifier: Apache-2.0
// Copyright 2021 The gVisor Authors.
// Changed: see doc.go.

package hostfiles

import (
	"bytes"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// GetXattr implements lisafs.ControlFDImpl.GetXattr.
func (fd *controlFD) GetXattr(name string, size uint32, getValueBuf func(uint32) []byte) (uint16, error) {
	// getxattr(2) called with size 0 should return the attribute size. As a
	// result, we need to return the entire attribute here so that the sentry
	// can return the correct value.
	if size > linux.XATTR_SIZE_MAX || size == 0 {
		size = linux.XATTR_SIZE_MAX
	}
	data := getValueBuf(size)
	if fd.isSpecial() {
		// These use O_PATH host FDs. However, fgetxattr(2) fails
		// with EBADF for O_PATH FDs. Use lgetxattr(2) instead.
		xattrSize, err := unix.Lgetxattr(fd.Node().FilePath(), name, data)
		return uint16(xattrSize), err
	}
	xattrSize, err := unix.Fgetxattr(fd.hostFD, name, data)
	return uint16(xattrSize), err
}

// SetXattr implements lisafs.ControlFDImpl.SetXattr.
func (fd *controlFD) SetXattr(name string, value string, flags uint32) error {
	if fd.isSpecial() {
		// These use O_PATH host FDs. However, fsetxattr(2) fails
		// with EBADF for O_PATH FDs. Use lsetxattr(2) instead.
		return unix.Lsetxattr(fd.Node().FilePath(), name, []byte(value), int(flags))
	}
	return unix.Fsetxattr(fd.hostFD, name, []byte(value), int(flags))
}

func (fd *controlFD) listXattr(data []byte) (int, error) {
	if fd.isSpecial() {
		// These use O_PATH host FDs. However, flistxattr(2) fails
		// with EBADF for O_PATH FDs. Use llistxattr(2) instead.
		return unix.Llistxattr(fd.Node().FilePath(), data)
	}
	return unix.Flistxattr(fd.hostFD, data)
}

var listXattrBufPool = sync.Pool{
	New: func() any {
		b := make([]byte, linux.XATTR_LIST_MAX)
		return &b
	},
}

// ListXattr implements lisafs.ControlFDImpl.ListXattr.
func (fd *controlFD) ListXattr(size uint64) (lisafs.StringArray, error) {
	// listxattr(2) called with size 0 should return the list size. As a result,
	// we need to return the entire list here so that the sentry can return the
	// correct value.
	if size > linux.XATTR_LIST_MAX || size == 0 {
		size = linux.XATTR_LIST_MAX
	}
	bPtr := listXattrBufPool.Get().(*[]byte)
	defer listXattrBufPool.Put(bPtr)
	data := (*bPtr)[:size]
	sz, err := fd.listXattr(data)
	if err != nil {
		return nil, err
	}
	data = data[:sz]
	var names []string
	for len(data) > 0 {
		i := bytes.IndexByte(data, 0)
		if i < 0 {
			break
		}
		names = append(names, string(data[:i]))
		data = data[i+1:]
	}
	return names, nil
}

// RemoveXattr implements lisafs.ControlFDImpl.RemoveXattr.
func (fd *controlFD) RemoveXattr(name string) error {
	if fd.isSpecial() {
		// These use O_PATH host FDs. However, fremovexattr(2) fails
		// with EBADF for O_PATH FDs. Use lremovexattr(2) instead.
		return unix.Lremovexattr(fd.Node().FilePath(), name)
	}
	return unix.Fremovexattr(fd.hostFD, name)
}
