// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/fsys"
)

// Pending is a file that is too large to be written at once. It has a temporary name
// until Commit, as the files of Write have, and is locked (flock) until it is closed.
type Pending struct {
	*os.File
	dir  *os.File
	name string
}

// Begin makes such a file in the directory dir, for reading and writing.
func Begin(dir *os.File, mode fs.FileMode) (*Pending, error) {
	for {
		name := tempName()
		crashpoint.Before(crashpoint.PendingCreate)
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(mode.Perm()))
		crashpoint.After(crashpoint.PendingCreate)
		if err != nil {
			return nil, fmt.Errorf("create temporary file: %w", err)
		}
		p := &Pending{File: os.NewFile(uintptr(fd), name), dir: dir, name: name}
		mine, err := p.lock(mode)
		if mine && err == nil {
			return p, nil
		}
		// A sweeper was faster than the lock, and removes it.
		if err = errors.Join(err, p.Discard()); err != nil {
			return nil, err
		}
	}
}

func (p *Pending) lock(mode fs.FileMode) (mine bool, err error) {
	// The umask of this process must not decide.
	if err := p.Chmod(mode); err != nil {
		return false, err
	}
	err = unix.Flock(int(p.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(p.Fd()), &st)
	}
	return st.Nlink > 0, err
}

// Commit gives the file its name, in the place of what had it. When it returns nil the
// content survives a power cut. The file stays open and locked.
func (p *Pending) Commit(name string) error {
	in := In{fsys.Of(p.dir)}
	if err := in.checkTarget(name); err != nil {
		return err
	}
	if err := crashpoint.Do(crashpoint.PendingSync, p.Sync); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	err := crashpoint.Do(crashpoint.PendingRename, func() error { return in.Rename(p.name, in.Dir, name, 0) })
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	p.name = ""
	return in.sync(name)
}

// Discard closes the file, and removes it if it was not committed. It may be called
// again.
func (p *Pending) Discard() error {
	var err error
	if p.name != "" {
		err = ignoreMissing(unix.Unlinkat(int(p.dir.Fd()), p.name, 0))
		p.name = ""
	}
	if cerr := p.Close(); !errors.Is(cerr, fs.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return err
}

// Unnamed makes a file in the directory dir that has no name, for reading and writing: it
// is gone with its last descriptor, also when programs are killed. Not by O_TMPFILE, which overlays and
// network filesystems may lack; a crash before the name is removed leaves what SweepTemps
// removes.
func Unnamed(dir *os.File, mode fs.FileMode) (*os.File, error) {
	p, err := Begin(dir, mode)
	if err != nil {
		return nil, err
	}
	err = crashpoint.Do(crashpoint.PendingUnlink, func() error { return unix.Unlinkat(int(dir.Fd()), p.name, 0) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("remove name of temporary file: %w", err), p.Discard())
	}
	return p.File, nil
}
