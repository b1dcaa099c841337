// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
)

// open is a directory or a regular file that is open.
type open struct {
	lisafs.OpenFD
	conn *connectionImpl
	fd   int
	// devMajor and devMinor say which filesystem a directory is of.
	devMajor, devMinor uint32
}

var _ lisafs.OpenFDImpl = (*open)(nil)

// newOpen makes an open file of fd, which it takes over if there is no error. The
// caller calls Init.
func (f *control) newOpen(fd int) (*open, error) {
	o := &open{conn: f.conn, fd: fd}
	if f.IsDir() {
		stat, err := f.Stat()
		if err != nil {
			return nil, err
		}
		o.devMajor, o.devMinor = stat.DevMajor, stat.DevMinor
	}
	return o, nil
}

func (o *open) FD() *lisafs.OpenFD { return &o.OpenFD }

func (o *open) Close() { unix.Close(o.fd) }

// Renamed implements lisafs.OpenFDImpl. A descriptor has no name.
func (o *open) Renamed() {}

func (o *open) Stat() (lisafs.Statx, error) { return o.conn.stat(o.fd, "") }

func (o *open) Sync() error { return retry(func() error { return unix.Fsync(o.fd) }) }

// Flush implements lisafs.OpenFDImpl. See SupportedMessages.
func (o *open) Flush() error { return nil }

// Write implements lisafs.OpenFDImpl. What was written before an error counts: the
// sentry meets the error when it writes the rest.
func (o *open) Write(buf []byte, off uint64) (uint64, error) {
	if !inFile(off, uint64(len(buf))) {
		return 0, unix.EFBIG
	}
	done := 0
	for done < len(buf) {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Pwrite(o.fd, buf[done:], int64(off)+int64(done))
			return err
		})
		if err != nil {
			if done > 0 {
				break
			}
			return 0, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return uint64(done), nil
}

func (o *open) Read(buf []byte, off uint64) (uint64, error) {
	if !inFile(off, uint64(len(buf))) {
		return 0, unix.EINVAL
	}
	n := 0
	err := retry(func() (err error) {
		n, err = unix.Pread(o.fd, buf, int64(off))
		return err
	})
	if err != nil {
		return 0, err
	}
	return uint64(n), nil
}

// Allocate implements lisafs.OpenFDImpl. The seccomp filter ends the process that
// asks the kernel for another mode.
func (o *open) Allocate(mode, off, length uint64) error {
	if mode != 0 {
		return unix.EOPNOTSUPP
	}
	if !inFile(off, length) {
		return unix.EFBIG
	}
	return retry(func() error { return unix.Fallocate(o.fd, 0, int64(off), int64(length)) })
}

// inFile says whether a range has an end that a file can have.
func inFile(off, length uint64) bool {
	return off <= math.MaxInt64 && length <= math.MaxInt64-off
}

// listBytes is how much of a directory is read at once. It bounds what a request
// makes this process answer.
const listBytes = 64 << 10

var listBuffers = sync.Pool{New: func() any { return new([listBytes]byte) }}

// direntHeader is the size of a struct linux_dirent64 without the name, which
// ends with a zero byte.
const direntHeader = 8 + 8 + 2 + 1

// Getdent64 implements lisafs.OpenFDImpl. Entries are taken to be of the
// directory's filesystem, as getdents(2) does that gives the inode number of
// what a mount covers.
func (o *open) Getdent64(count uint32, seek0 bool, record func(lisafs.Dirent64)) error {
	if seek0 {
		if _, err := unix.Seek(o.fd, 0, unix.SEEK_SET); err != nil {
			return err
		}
	}
	pooled := listBuffers.Get().(*[listBytes]byte)
	defer listBuffers.Put(pooled)
	buf := pooled[:min(count, listBytes)]
	n := 0
	err := retry(func() (err error) {
		n, err = unix.Getdents(o.fd, buf)
		return err
	})
	if err != nil {
		return err
	}
	for buf = buf[:n]; len(buf) > direntHeader; {
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size <= direntHeader || size > len(buf) {
			return unix.EIO
		}
		name, _, _ := bytes.Cut(buf[direntHeader:size], []byte{0})
		record(lisafs.Dirent64{
			Ino:      primitive.Uint64(binary.NativeEndian.Uint64(buf)),
			Off:      primitive.Uint64(binary.NativeEndian.Uint64(buf[8:])),
			Type:     primitive.Uint8(buf[18]),
			DevMajor: primitive.Uint32(o.devMajor),
			DevMinor: primitive.Uint32(o.devMinor),
			Name:     lisafs.SizedString(name),
		})
		buf = buf[size:]
	}
	return nil
}
