// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/fsys"
)

// SandboxLock is the lock of one sandbox of a store without a daemon. No other process has it
// until Release or the end of this one. It is on the sandbox's
// own directory: it vanishes with it, and nobody can lock a sandbox that has
// been removed and made again.
type SandboxLock struct{ dir *os.File }

// Release lets others have the sandbox.
func (h *SandboxLock) Release() error { return h.dir.Close() }

// ClaimLocked makes the directory of a new sandbox and locks it. fs.ErrExist if
// there is a record, or if somebody else is about to write one.
func (s *Store) ClaimLocked(name string) (*SandboxLock, error) {
	if !s.valid(name) {
		return nil, fmt.Errorf("claim %q: %w", name, errInvalidName)
	}
	for {
		if err := s.dirs.Mkdir(name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("claim %s: %w", name, err)
		}
		h, err := s.tryLock(name)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			// A directory without a record is locked by a create.
			return nil, fmt.Errorf("claim %s: %w", name, fs.ErrExist)
		case errors.Is(err, fs.ErrNotExist):
			continue // removed between the two
		case err != nil:
			return nil, fmt.Errorf("claim %s: %w", name, err)
		}
		var st unix.Stat_t
		err = unix.Fstatat(int(h.dir.Fd()), RecordFile, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			err = fs.ErrExist
		} else if errors.Is(err, unix.ENOENT) {
			if err = missing(fsys.Of(h.dir)); err == nil {
				_, err = atomicfile.SweepTemps(h.dir)
			}
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("claim %s: %w", name, err), h.Release())
		}
		return h, nil
	}
}

// lockEvery is how often LockSandbox looks whether another process is done.
const lockEvery = 10 * time.Millisecond

// LockSandbox waits for the lock of a sandbox. fs.ErrNotExist if there is none (any
// more).
func (s *Store) LockSandbox(ctx context.Context, name string) (*SandboxLock, error) {
	if !s.valid(name) {
		return nil, fmt.Errorf("lock %q: %w: %w", name, errInvalidName, fs.ErrNotExist)
	}
	for {
		h, err := s.tryLock(name)
		if err == nil {
			return h, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: another process works on it: %w", name, context.Cause(ctx))
		case <-time.After(lockEvery):
		}
	}
}

func (s *Store) tryLock(name string) (*SandboxLock, error) {
	dir, err := openDir(fsys.OSFile(s.dirs), name)
	if err != nil {
		return nil, err
	}
	h := &SandboxLock{dir: dir}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, h.Release())
	}
	// It may have been removed, and another one made, between the two calls.
	ours, err := fsys.Of(dir).Self()
	if err != nil {
		return nil, errors.Join(err, h.Release())
	}
	now, err := s.dirs.Stat(name)
	if err == nil && (now.Ino != ours.Ino || now.Dev != ours.Dev) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(err, h.Release())
	}
	return h, nil
}
