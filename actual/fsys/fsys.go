// SPDX-License-Identifier: Apache-2.0

// Package fsys is the file system calls that state files are made by, as an
// interface. The kernel makes them in a program. The simulator has a file system
// of its own, which forgets what was not synced: it runs the store as it is.
package fsys

import (
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. A name has no slash and is never followed if it is a
// link. Errors are those of the kernel.
type Dir interface {
	// Open opens a file for reading, a name or dir/name. It does not wait for a writer
	// of a fifo.
	Open(name string) (File, error)
	// Create makes a new file for writing: unix.EEXIST if there is one. The umask of
	// the program does not count.
	Create(name string, mode fs.FileMode) (File, error)
	// OpenDir opens a directory.
	OpenDir(name string) (Dir, error)
	Mkdir(name string, mode fs.FileMode) error
	// Rename moves a name into a directory of the same kind; flags are those of
	// renameat2.
	Rename(name string, to Dir, as string, flags uint) error
	Unlink(name string) error
	// Remover removes trees below the directory, together up to a budget of names.
	Remover(budget int) Remover
	// Names lists it, in no order: at most limit names if that is not 0.
	Names(limit int) ([]string, error)
	// Stat looks at a name or at dir/name, Self at the directory, StatPath at an
	// absolute path.
	Stat(name string) (unix.Stat_t, error)
	Self() (unix.Stat_t, error)
	StatPath(path string) (unix.Stat_t, error)
	// Statfs looks at the disk that it is on.
	Statfs() (unix.Statfs_t, error)
	// Sync forces its names to disk.
	Sync() error
	// Lock locks it until it is closed (flock): unix.EWOULDBLOCK if somebody else
	// has the lock for longer than the patience.
	Lock(patience time.Duration) error
	Close() error
}

// File is an open file.
type File interface {
	io.Reader
	io.Writer
	Stat() (unix.Stat_t, error)
	// Sync forces its content to disk.
	Sync() error
	// Lock is Dir.Lock without patience.
	Lock() error
	Close() error
}

// Remover removes trees. more says that the budget is used up and something is left.
type Remover interface {
	Remove(name string) (more bool, err error)
}
