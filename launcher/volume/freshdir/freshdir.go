// SPDX-License-Identifier: Apache-2.0

// Package freshdir tells a directory that nobody has used yet from others: only such a one is
// given to its first owner, or removed without being asked.
package freshdir

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
)

// Empty says whether nothing is in a directory.
func Empty(dir *os.File) (bool, error) {
	again, err := open(dir, ".")
	if err != nil {
		return false, err
	}
	defer again.Close()
	names, err := again.Readdirnames(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err // there may be something
	}
	return len(names) == 0, nil
}

// lostAndFound is in the root of each new ext4 file system, and root's.
const lostAndFound = "lost+found"

// Is says whether nothing is in a directory that is given to its first owner, but for
// what mkfs has put there.
func Is(dir *os.File) (bool, error) {
	again, err := open(dir, ".")
	if err != nil {
		return false, err
	}
	defer again.Close()
	names, err := again.Readdirnames(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err // there may be something
	}
	if len(names) == 1 && names[0] == lostAndFound {
		return isNewLostAndFound(again)
	}
	return len(names) == 0, nil
}

// isNewLostAndFound says whether lost+found in a directory is as mkfs makes it, in the root of
// a file system: a check of the file system puts there what it has found.
func isNewLostAndFound(dir *os.File) (bool, error) {
	d, err := open(dir, lostAndFound)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil || st.Uid != 0 || st.Gid != 0 || st.Mode&0o7777 != 0o700 {
		return false, err
	}
	names, err := d.Readdirnames(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return len(names) == 0, nil
}

func open(dir *os.File, name string) (*os.File, error) {
	return dirfd.Open(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
}
