// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
)

// Remove removes the directory of a sandbox whose processes are proven dead.
// It vanishes at once, by a rename into the trash, and for good; what a crash
// leaves in the trash SweepTrash removes. That it is not there is no error.
func (s *Store) Remove(name string) error {
	if !s.valid(name) {
		return fmt.Errorf("remove sandbox %q: %w", name, errInvalidName)
	}
	uid, err := NewUID()
	if err != nil {
		return err
	}
	trash, err := openDir(int(s.root.Fd()), TrashDir)
	if err != nil {
		return fmt.Errorf("open trash: %w", err)
	}
	defer trash.Close()
	crashpoint.Before(crashpoint.TrashMove)
	err = unix.Renameat(int(s.dirs.Fd()), name, int(trash.Fd()), name+"."+uid)
	crashpoint.After(crashpoint.TrashMove)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove sandbox %s: %w", name, err)
	}
	if err := errors.Join(unix.Fsync(int(s.dirs.Fd())), unix.Fsync(int(trash.Fd()))); err != nil {
		return fmt.Errorf("remove sandbox %s: sync: %w", name, err)
	}
	if err := removeTree(int(trash.Fd()), name+"."+uid, 0); err != nil {
		return fmt.Errorf("empty trash: %w", err)
	}
	return nil
}

// SweepTrash removes what is in the trash. The caller holds the lock; it may be
// removing something there itself.
func (s *Store) SweepTrash() error {
	trash, err := openDir(int(s.root.Fd()), TrashDir)
	if err != nil {
		return fmt.Errorf("open trash: %w", err)
	}
	defer trash.Close()
	names, err := trash.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list trash: %w", err)
	}
	var errs []error
	for _, n := range names {
		crashpoint.Before(crashpoint.TrashSweep)
		errs = append(errs, removeTree(int(trash.Fd()), n, 0))
		crashpoint.After(crashpoint.TrashSweep)
	}
	return errors.Join(errs...)
}

// SweepTemps removes the temporary files that killed writers left: daemons
// everywhere, any program among the requests. busy is how many seem to be
// written now.
func (s *Store) SweepTemps() (busy int, err error) {
	names, err := s.names()
	if err != nil {
		return 0, fmt.Errorf("list sandboxes: %w", err)
	}
	var errs []error
	sweep := func(dir *os.File, err error) {
		if err == nil {
			var n int
			n, err = atomicfile.SweepTemps(dir)
			busy += n
		}
		errs = append(errs, err)
	}
	sweep(s.root, nil)
	for _, n := range names {
		if !s.valid(n) {
			continue // not ours to touch
		}
		dir, err := s.Dir(n)
		sweep(dir, err)
		dir.Close()
	}
	errs = append(errs, s.SweepRequests())
	return busy, errors.Join(errs...)
}

// SweepRequests is SweepTemps of the requests alone.
func (s *Store) SweepRequests() error {
	dir, err := s.requests()
	if err != nil {
		return err
	}
	defer dir.Close()
	_, err = atomicfile.SweepTemps(dir)
	return err
}

// maxDepth bounds the recursion of removeTree; our own trees are 2 deep.
const maxDepth = 16

// removeTree removes name below dir, by descriptors only. It does not enter
// another filesystem: something mounted in there is not ours, and removing the
// directory then fails, which is right.
func removeTree(dir int, name string, depth int) error {
	crashpoint.Before(crashpoint.TreeUnlink)
	first := unix.Unlinkat(dir, name, 0)
	crashpoint.After(crashpoint.TreeUnlink)
	if first == nil || errors.Is(first, unix.ENOENT) {
		return nil
	}
	if !errors.Is(first, unix.EISDIR) && !errors.Is(first, unix.EPERM) {
		return fmt.Errorf("remove %s: %w", name, first)
	}
	if depth > maxDepth {
		return fmt.Errorf("remove %s: more than %d directories deep", name, maxDepth)
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // by somebody else
	case errors.Is(err, unix.ENOTDIR):
		err = first // no directory: that was what is wrong
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, removeTree(fd, n, depth+1))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	crashpoint.Before(crashpoint.TreeRemove)
	err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	crashpoint.After(crashpoint.TreeRemove)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
