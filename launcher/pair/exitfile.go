// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/launcher/proc"
)

// openExit creates an empty exit record for the process that will fill it. It is
// a new file: one of an attempt before was held by a process that may have been
// taken over.
func openExit(dir int, name string) (*os.File, error) {
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove old exit record: %w", err)
	}
	crashpoint.Before(crashpoint.ExitFile)
	// Not O_APPEND: with it, pwrite would append wherever it is told to write,
	// and the sentry's filter counts on the offset.
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	crashpoint.After(crashpoint.ExitFile)
	if err != nil {
		return nil, fmt.Errorf("create exit record: %w", err)
	}
	// Room for what will be written: a job that has ended on a full disk must not
	// be run again. The size stays 0, which says that it has not ended.
	// Filesystems in memory give up at any signal, and Go's scheduler sends some.
	err = proc.RetryEINTR(func() error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, actual.MaxExit) })
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		unix.Close(fd)
		return nil, fmt.Errorf("create exit record: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
