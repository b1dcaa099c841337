// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"bytes"
	"math"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// maxXattr is the kernel's limit for a value and for the list of names. A client
// may ask for more, and is not to decide how much memory this process takes.
const maxXattr = 64 << 10

// withXattrs opens the file for a call. Only directories and regular files have
// attributes that a sandbox could see; they can't be reached by an O_PATH
// descriptor.
func (f *control) withXattrs(call func(fd int) error) error {
	if !f.IsDir() && !f.IsRegular() {
		return unix.EOPNOTSUPP
	}
	fd, err := reopen(f.fd, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error { return call(fd) })
}

func (f *control) GetXattr(name string, size uint32, buffer func(uint32) []byte) (n uint16, err error) {
	err = f.withXattrs(func(fd int) error {
		// With no size the caller wants all of it, of which it does not know how
		// much that is.
		if size == 0 || size > maxXattr {
			size = maxXattr
		}
		got, err := unix.Fgetxattr(fd, name, buffer(size))
		if err != nil {
			return err
		}
		if got > math.MaxUint16 {
			return unix.E2BIG // more than the protocol can tell
		}
		n = uint16(got)
		return nil
	})
	return n, err
}

func (f *control) SetXattr(name, value string, flags uint32) error {
	return f.withXattrs(func(fd int) error { return unix.Fsetxattr(fd, name, []byte(value), int(flags)) })
}

// ListXattr implements lisafs.ControlFDImpl. The sentry compares with the size
// that the application has.
func (f *control) ListXattr(uint64) (lisafs.StringArray, error) {
	var names lisafs.StringArray
	err := f.withXattrs(func(fd int) error {
		buf := make([]byte, maxXattr)
		n, err := unix.Flistxattr(fd, buf)
		if err != nil {
			return err
		}
		for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
			if len(name) > 0 {
				names = append(names, string(name))
			}
		}
		return nil
	})
	return names, err
}

func (f *control) RemoveXattr(name string) error {
	return f.withXattrs(func(fd int) error { return unix.Fremovexattr(fd, name) })
}
