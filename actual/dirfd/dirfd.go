// SPDX-License-Identifier: Apache-2.0

// Package dirfd opens paths below an open directory, by openat2: the kernel resolves
// the whole path at once, and follows only what it is told to. Nobody can swap a
// component between a check and its use.
package dirfd

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxTries bounds how often an open is tried again.
const maxTries = 128

// Open opens a path below the directory of a descriptor, or unix.AT_FDCWD. flags are
// those of open(2), resolve says what may be followed (unix.RESOLVE_*).
func Open(dir int, path string, flags, resolve uint64) (*os.File, error) {
	for try := 1; ; try++ {
		fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && try < maxTries:
			// Something was renamed while the kernel resolved a "..", or somebody has
			// a lease on the file, for as long as that is.
			continue
		}
		return nil, err
	}
}
