// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/desired/imageref"
)

// Claim is the right to make or to remove one image. It is a directory, locked.
type Claim struct {
	store *Store
	hex   string
	// Dir keeps layers until the image is complete.
	Dir *os.File
}

// waitEvery is how often a pull looks whether another one of the image is done.
const waitEvery = 100 * time.Millisecond

// Lock gets the right to an image. waits is called once if somebody else has it; if it
// is nil, the error is ErrInUse then.
func (s *Store) Lock(ctx context.Context, digest string, waits func()) (*Claim, error) {
	hex, ok := plain(digest)
	if !ok {
		return nil, fmt.Errorf("%w: %q is not a digest", imageref.ErrInvalid, digest)
	}
	return s.claim(ctx, hex, waits)
}

func (s *Store) claim(ctx context.Context, name string, waits func()) (*Claim, error) {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for {
		p, err := s.tryLock(name)
		if p != nil || err != nil {
			return p, err
		}
		if waits == nil {
			return nil, ErrInUse
		}
		waits()
		waits = func() {}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// tryLock returns nil without an error if somebody else has the right.
func (s *Store) tryLock(hex string) (*Claim, error) {
	err := crashpoint.Do(crashpoint.PullDirectory, func() error { return unix.Mkdirat(int(s.pulls.Fd()), hex, 0o700) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, Full(fmt.Errorf("make the directory of a pull: %w", err))
	}
	dir, err := openDir(int(s.pulls.Fd()), hex, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // its owner has just removed it
	}
	if err != nil {
		return nil, err
	}
	err = flock(dir, unix.LOCK_EX|unix.LOCK_NB)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(dir.Fd()), &st)
	}
	if err != nil || st.Nlink == 0 {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return nil, err
	}
	return &Claim{store: s, hex: hex, Dir: dir}, nil
}

// End gives the right back. Layers stay if keep says so: the next try goes on there.
func (p *Claim) End(keep bool) error {
	defer p.Dir.Close()
	names, err := in(p.Dir).Dir.Names(0)
	if err != nil || keep && len(names) > 0 {
		return err
	}
	for _, n := range names {
		if err := RemoveFile(p.Dir, n); err != nil {
			return err
		}
	}
	return crashpoint.Do(crashpoint.PullRemove, func() error {
		return ignoreMissing(unix.Unlinkat(int(p.store.pulls.Fd()), p.hex, unix.AT_REMOVEDIR))
	})
}

// RemoveFile removes what a pull has left.
func RemoveFile(dir *os.File, name string) error {
	return crashpoint.Do(crashpoint.PullRemove, func() error { return ignoreMissing(unix.Unlinkat(int(dir.Fd()), name, 0)) })
}

// Kept is how much of the layers is there already.
func (p *Claim) Kept() (n int64) {
	names, err := in(p.Dir).Dir.Names(0)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if st, err := in(p.Dir).Stat(name); err == nil {
			n += st.Size
		}
	}
	return n
}
