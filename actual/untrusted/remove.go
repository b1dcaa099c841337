// SPDX-License-Identifier: Apache-2.0

package untrusted

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
)

// Remover removes trees in a directory that nobody but root can write. Its
// memory and its descriptors do not grow with a tree: a directory that is not
// empty is moved up beside the one it is in and removed after it, so that
// nothing is ever more than two levels deep. Every name is one component, looked
// up in an open directory: who renames at the same time can win nothing.
type Remover struct {
	dir    int
	budget int
	queue  []string
	errs   []error
	failed int
}

// maxErrors is how many errors of one removal are reported.
const maxErrors = 3

// batch is how many names are read at once.
const batch = 1024

// NewRemover removes in the directory of the descriptor, at most budget entries.
func NewRemover(dir, budget int) *Remover { return &Remover{dir: dir, budget: budget} }

// Remove removes the entry name. more says that the budget was used up: what is
// left is in the same directory, perhaps under other names. What can't be
// removed is reported and left.
func (r *Remover) Remove(name string) (more bool, err error) {
	r.queue, r.errs, r.failed = append(r.queue[:0], name), nil, 0
	for len(r.queue) > 0 && r.budget > 0 {
		last := len(r.queue) - 1
		n := r.queue[last]
		r.queue = r.queue[:last]
		r.removeTop(n)
	}
	if r.failed > len(r.errs) {
		r.errs = append(r.errs, fmt.Errorf("and %d more", r.failed-len(r.errs)))
	}
	return r.budget <= 0, errors.Join(r.errs...)
}

func (r *Remover) fail(name string, err error) {
	r.failed++
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, fmt.Errorf("remove %q: %w", name, err))
	}
}

// removeTop removes one entry of the directory itself.
func (r *Remover) removeTop(name string) {
	isDir, err := r.unlink(r.dir, name)
	if err != nil {
		r.fail(name, err)
	}
	if !isDir {
		return
	}
	d, err := OpenDir(r.dir, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return
	case err != nil:
		r.fail(name, err)
		return
	}
	defer d.Close()
	clearFlags(int(d.Fd()))
	if !r.empty(d, name) {
		return
	}
	err = crashpoint.Do(crashpoint.TreeRemove, func() error { return unix.Unlinkat(r.dir, name, unix.AT_REMOVEDIR) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		r.fail(name, err)
	}
}

// empty takes everything out of a directory, and says whether it is empty. It
// reads it again until nothing more can be taken: to read on where something was
// removed may pass over names.
func (r *Remover) empty(d *os.File, name string) bool {
	for {
		taken, left, err := r.round(d, name)
		switch {
		case err != nil:
			r.fail(name, err)
			return false
		case r.budget <= 0:
			return false
		case taken == 0:
			for _, err := range left {
				r.fail(name, err)
			}
			return len(left) == 0
		}
	}
}

// round reads a directory once and takes what it can. left has an error for each
// of the first entries that can't be taken.
func (r *Remover) round(d *os.File, name string) (taken int, left []error, err error) {
	if _, err := d.Seek(0, io.SeekStart); err != nil {
		return 0, nil, err
	}
	for {
		names, err := d.Readdirnames(batch)
		for _, n := range names {
			if r.budget <= 0 {
				return taken, left, nil
			}
			switch err := r.take(int(d.Fd()), n, name); {
			case err == nil:
				taken++
			case len(left) <= maxErrors:
				// The name is the attacker's: it may hold anything.
				left = append(left, fmt.Errorf("%q: %w", n, err))
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.ENOENT):
			// Somebody else who removes the same may have removed the directory.
			return taken, left, nil
		case err != nil:
			return taken, left, err
		}
	}
}

// take removes one entry of a directory below ours, or moves it into ours.
func (r *Remover) take(dir int, name, parent string) error {
	isDir, err := r.unlink(dir, name)
	if err != nil || !isDir {
		return err
	}
	err = crashpoint.Do(crashpoint.TreeRemove, func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EPERM):
		return r.moveUp(dir, name, parent)
	}
	return err
}

// moveUp moves a directory into ours, where it is removed later.
func (r *Remover) moveUp(dir int, name, parent string) error {
	// Whose it is stays in its name.
	to := parent
	if i := strings.LastIndexByte(parent, '.'); i > 0 {
		to = parent[:i]
	}
	to += "." + rand.Text()
	move := func() error { return unix.Renameat2(dir, name, r.dir, to, unix.RENAME_NOREPLACE) }
	err := crashpoint.Do(crashpoint.TreeMove, move)
	if errors.Is(err, unix.EPERM) && clearFlagsOf(dir, name) {
		err = move()
	}
	if errors.Is(err, unix.ENOENT) {
		return nil // by somebody else
	}
	if err == nil {
		r.queue = append(r.queue, to)
	}
	return err
}

// unlink removes what is not a directory. isDir says that it is one.
func (r *Remover) unlink(dir int, name string) (isDir bool, err error) {
	r.budget--
	err = crashpoint.Do(crashpoint.TreeUnlink, func() error { return unix.Unlinkat(dir, name, 0) })
	if errors.Is(err, unix.EPERM) {
		// Immutable, or a directory of a filesystem that says so.
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return true, nil
		}
		if clearFlagsOf(dir, name) {
			err = unix.Unlinkat(dir, name, 0)
		}
	}
	switch {
	case errors.Is(err, unix.EISDIR):
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	}
	return false, err
}

// immutable and appendOnly are flags that forbid even root to remove a file.
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// clearFlags takes the flags from a file that forbid to remove it or what is in
// it. It says whether there were any.
func clearFlags(fd int) bool {
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(immutable|appendOnly) == 0 {
		return false // or the filesystem has none
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^(immutable|appendOnly))) == nil
}

// clearFlagsOf is clearFlags of a regular file or a directory.
func clearFlagsOf(dir int, name string) bool {
	f, err := OpenRegular(dir, name)
	if errors.Is(err, ErrNotRegular) {
		f, err = OpenDir(dir, name)
	}
	if err != nil {
		return false
	}
	defer f.Close()
	return clearFlags(int(f.Fd()))
}
