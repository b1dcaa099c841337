// SPDX-License-Identifier: Apache-2.0

package untrusted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
)

// ErrNotRegular says that a name is there and is not a regular file with that
// name only.
var ErrNotRegular = errors.New("not a regular file")

// OpenRegular opens the file name in the directory of a descriptor for reading.
// The name is one component. What it is gets looked at before it is opened: to
// open a fifo can block, to open a device can do anything.
func OpenRegular(dir int, name string) (*os.File, error) {
	file, err := dirfd.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer file.Close()
	pinned := int(file.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(pinned, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%w: %s is a %s", ErrNotRegular, strconv.Quote(name), kind(st.Mode))
	}
	if st.Nlink > 1 {
		// A second name for a file of somebody else's.
		return nil, fmt.Errorf("%w: %s has %d names", ErrNotRegular, strconv.Quote(name), st.Nlink)
	}
	fd, err := reopen(pinned, unix.O_RDONLY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// reopen opens what an O_PATH descriptor is of. The link of procfs is resolved
// by the kernel to that file, whatever its name leads to now.
func reopen(pinned, flags int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(pinned), flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	}
	return "special file"
}

// OpenDir opens the directory name below dir, of the same filesystem, without
// following a link.
func OpenDir(dir int, name string) (*os.File, error) {
	const how = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	d, err := dirfd.Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, how)
	if errors.Is(err, unix.EXDEV) {
		// The kernel says so also of a directory that is moved away while it is opened. It is
		// not there now; where something is mounted the answer stays.
		d, err = dirfd.Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, how)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return d, nil
}

// List returns the names of up to max entries of a directory. A descriptor of
// its own is used: the offset of dir is the caller's.
func List(dir int, max int) ([]string, error) {
	d, err := OpenDir(dir, ".")
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // it has been removed
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(max)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return names, err
}

// FS is a directory as a flat filesystem of its regular files.
type FS struct{ dir *os.File }

// NewFS takes over the directory.
func NewFS(dir *os.File) *FS { return &FS{dir} }

// Open opens a regular file.
func (f *FS) Open(name string) (fs.File, error) {
	file, err := OpenRegular(int(f.dir.Fd()), name)
	if err != nil {
		return nil, err
	}
	return file, nil
}

// Close closes the directory.
func (f *FS) Close() error { return f.dir.Close() }
