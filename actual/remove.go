// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/fsys"
)

// How many entries of a tree are removed by who waits for it, and by one sweep.
// A gofer that was taken over can make trees without end.
const (
	removeNow   = 2000
	removeSweep = 100_000
)

// Remove removes the directory of a sandbox whose processes are proven dead.
// It vanishes at once, by a rename into the trash, and for good; what a crash
// leaves in the trash, and what is too much to wait for, SweepTrash removes. That
// it is not there is no error.
func (s *Store) Remove(name string) error {
	if !s.valid(name) {
		return fmt.Errorf("remove sandbox %q: %w", name, errInvalidName)
	}
	uid := NewUID()
	trash, err := s.root.OpenDir(TrashDir)
	if err != nil {
		return fmt.Errorf("open trash: %w", err)
	}
	defer trash.Close()
	err = crashpoint.Do(crashpoint.TrashMove, func() error { return s.dirs.Rename(name, trash, name+"."+uid, 0) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove sandbox %s: %w", name, err)
	}
	// The name must not come back after a power cut. That what was in it does is not
	// promised: it is to be removed.
	if err := s.dirs.Sync(); err != nil {
		return fmt.Errorf("remove sandbox %s: sync: %w", name, err)
	}
	if _, err := trash.Remover(removeNow).Remove(name + "." + uid); err != nil {
		return fmt.Errorf("empty trash: %w", err)
	}
	return nil
}

// Discard removes what somebody else may have filled, an entry of a directory of
// the sandbox name that only root can write. What is too much to wait for is
// removed by SweepTrash.
func (s *Store) Discard(dir *os.File, entry, name string) error {
	uid := NewUID()
	trash, err := s.root.OpenDir(TrashDir)
	if err != nil {
		return fmt.Errorf("open trash: %w", err)
	}
	defer trash.Close()
	err = crashpoint.Do(crashpoint.LogRemove, func() error { return fsys.Of(dir).Rename(entry, trash, name+"."+uid, 0) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		_, err = trash.Remover(removeNow).Remove(name + "." + uid)
	}
	if err != nil {
		return fmt.Errorf("discard %q of %s: %w", entry, name, err)
	}
	return nil
}

// SweepTrash removes what is in the trash, up to a bound: more says that there is
// more to remove. The caller holds the lock; it may be removing something there
// itself.
func (s *Store) SweepTrash() (more bool, err error) {
	trash, err := s.root.OpenDir(TrashDir)
	if err != nil {
		return false, fmt.Errorf("open trash: %w", err)
	}
	defer trash.Close()
	names, err := trash.Names(removeSweep)
	if err == nil && len(names) > 0 {
		// Who moved it here may have been killed before that was on disk. A power cut would
		// bring the name back, without its record: nobody could tell what lives of it.
		err = s.dirs.Sync()
	}
	if err != nil {
		return false, fmt.Errorf("empty trash: %w", err)
	}
	// In another order each time: one that can't be removed must not use up what the
	// others need.
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	r := trash.Remover(removeSweep)
	var first error
	for _, n := range names {
		crashpoint.Before(crashpoint.TrashSweep)
		full, err := r.Remove(n)
		crashpoint.After(crashpoint.TrashSweep)
		if first == nil {
			first = err // the others wait for the same, or are told when it is gone
		}
		if full {
			return true, first
		}
	}
	return false, first
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
	sweep := func(dir fsys.Dir, err error) {
		if err == nil {
			var n int
			n, err = atomicfile.In{Dir: dir}.SweepTemps()
			busy += n
		}
		errs = append(errs, err)
	}
	sweep(s.root, nil)
	for _, n := range names {
		if !s.valid(n) {
			continue // not ours to touch
		}
		dir, err := s.dir(n)
		if sweep(dir, err); err == nil {
			dir.Close()
		}
	}
	if s.reserve != nil {
		n, err := s.reserve.SweepTemps()
		busy += n
		errs = append(errs, err)
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
	_, err = atomicfile.In{Dir: dir}.SweepTemps()
	return err
}
