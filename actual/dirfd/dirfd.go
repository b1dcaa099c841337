// SPDX-License-Identifier: Apache-2.0

// Package dirfd opens paths below an open directory, by openat2: the kernel resolves
// the whole path at once, and follows only what it is told to. Nobody can swap a
// component between a check and its use.
package dirfd

import (
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// maxTries bounds how often an open is tried again.
const maxTries = 128

// Open opens a path below the directory of a descriptor, or unix.AT_FDCWD. flags are
// those of open(2), resolve says what may be followed (unix.RESOLVE_*).
func Open(dir int, path string, flags, resolve uint64) (*os.File, error) {
	fd, err := OpenFd(dir, path, flags, resolve)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenFd is Open for callers that read many small files: an os.File costs up to two
// more system calls.
func OpenFd(dir int, path string, flags, resolve uint64) (Fd, error) {
	for try := 1; ; try++ {
		fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
		switch {
		case err == nil:
			return Fd(fd), nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && try < maxTries:
			// Something was renamed while the kernel resolved a "..", or somebody has
			// a lease on the file, for as long as that is.
			continue
		}
		return -1, err
	}
}

// ReadRegular reads a regular file that has size bytes, in one call where it still has.
// Of a file that is longer than limit it reads one byte more than that.
func ReadRegular(f io.Reader, size, limit int64) ([]byte, error) {
	return ReadRegularTo(nil, f, size, limit)
}

// ReadRegularTo is ReadRegular into a buffer, where that is large enough.
func ReadRegularTo(buf []byte, f io.Reader, size, limit int64) ([]byte, error) {
	b := slices.Grow(buf[:0], int(min(size, limit))+1)[:min(size, limit)+1]
	n, err := f.Read(b)
	if err == nil && int64(n) == size {
		return b[:n], nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	// Something writes it.
	rest, err := io.ReadAll(io.LimitReader(f, limit+1-int64(n)))
	return append(b[:n], rest...), err
}

// Fd is an open file that is read by plain system calls.
type Fd int

// Read implements io.Reader.
func (f Fd) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// Close implements io.Closer.
func (f Fd) Close() error { return os.NewSyscallError("close", unix.Close(int(f))) }
