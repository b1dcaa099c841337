// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/volume/freshdir"
)

// Remove removes a volume, also one that is not complete or whose meta.json can't be read,
// unless check returns an error, which is called while nobody can start a sandbox with the
// volume that is not on record yet. The volume vanishes at once, by a rename into the trash,
// for which a full disk has room. Its files are removed then, up to a bound (ErrWritten); what
// is left then, or when ctx ends or this program is killed, the daemon removes with the rest of
// the trash.
func (s *Store) Remove(ctx context.Context, name string, check func() error) error {
	v, err := s.lockThere(ctx, name, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := check(); err != nil {
		return err
	}
	return v.discard(ctx)
}

const (
	// removeAtOnce is how many files are removed between two looks whether to go on.
	removeAtOnce = 2000
	// mostPasses bounds these looks. What writes into a volume that is removed, as a sandbox
	// does that runs, can make files as fast as they are removed: there is no end to that.
	mostPasses = 1000
)

// ErrWritten says that the files of a removed volume are not all gone.
var ErrWritten = errors.New("the volume is removed, and has more files than are removed at once: a sandbox that runs may still write them; the daemon removes what is left")

// openTrash opens the trash of the state directory.
func (s *Store) openTrash() (*os.File, error) {
	trash, err := openPrivate(s.state, actual.TrashDir)
	if err != nil {
		return nil, fmt.Errorf("open trash: %w", err)
	}
	return trash, nil
}

// toTrash moves a volume into the trash, which the daemon empties: a start has no time for
// millions of files.
func (v *Volume) toTrash() error {
	trash, err := v.store.openTrash()
	if err != nil {
		return err
	}
	defer trash.Close()
	return v.moveTo(trash)
}

// discard moves a volume into the trash, and removes it there.
func (v *Volume) discard(ctx context.Context) error {
	trash, err := v.store.openTrash()
	if err != nil {
		return err
	}
	defer trash.Close()
	_, _ = v.readMeta() // one that is damaged goes too
	if err := v.moveTo(trash); err != nil {
		return err
	}
	v.release()
	return empty(ctx, trash, v.trashPrefix(), mostPasses)
}

// trashPrefix begins its name in the trash. No sandbox has a name with a dot.
func (v *Volume) trashPrefix() string { return "volume." + v.Name + "." }

// moveTo moves a volume into the trash.
func (v *Volume) moveTo(trash *os.File) error {
	err := crashpoint.Do(crashpoint.VolumeTrash, func() error {
		return unix.Renameat2(int(v.store.dir.Fd()), v.Name, int(trash.Fd()), v.trashPrefix()+actual.NewUID(), unix.RENAME_NOREPLACE)
	})
	if err == nil {
		err = v.store.dir.Sync()
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", v.Name, err)
	}
	return nil
}

// empty removes what is in the trash under names with a prefix. A directory that is removed
// is moved up under another such name first.
func empty(ctx context.Context, trash *os.File, prefix string, passes int) error {
	for pass := 0; ctx.Err() == nil; pass++ {
		names, err := untrusted.List(int(trash.Fd()), removeAtOnce)
		if err != nil {
			return fmt.Errorf("empty trash: %w", err)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) })
		if len(names) == 0 {
			break
		}
		if pass == passes {
			return ErrWritten
		}
		r := untrusted.NewRemover(int(trash.Fd()), removeAtOnce)
		for _, n := range names {
			more, err := r.Remove(n)
			switch {
			case errors.Is(err, unix.ENOTEMPTY): // something writes there: another pass tells
				more = true
			case err != nil:
				return fmt.Errorf("empty trash: %w", err)
			}
			if more {
				break
			}
		}
	}
	return nil
}

// Sweep removes what programs that were killed have left of volumes: temporary files, and
// volumes that are not complete and hold nothing that anybody has used. These go into the trash, which the
// daemon empties later: before its first pass there is no time for millions of files of a
// restore. Only the daemon calls it.
func Sweep(ctx context.Context, state *os.File) error {
	s, err := Look(state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	trash, err := s.openTrash()
	if err != nil {
		return err
	}
	defer trash.Close()
	names, err := s.names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		v, err := s.lock(ctx, name, unix.LOCK_EX, 0)
		if v == nil || err != nil {
			continue // somebody has it, or nothing here can mend it: doctor tells
		}
		if err := v.sweep(trash); err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", name, err))
		}
		v.Close()
	}
	return errors.Join(errs...)
}

func (v *Volume) sweep(trash *os.File) error {
	_, err := atomicfile.SweepTemps(v.dir)
	if err == nil && v.progress() != nil { // nobody changes its owner now
		err = atomicfile.Remove(v.dir, progressFile)
	}
	if err != nil {
		return err
	}
	if unfinished, err := v.unfinished(); err != nil || !unfinished {
		return err
	}
	return v.moveTo(trash)
}

// unfinished says whether a volume is not complete and holds nothing that anybody has used.
// Where there is no meta.json and there are files, these may be all that is left of somebody's
// work.
func (v *Volume) unfinished() (bool, error) {
	if found, err := v.readMeta(); found || err != nil {
		return false, err
	}
	if v.Restoring {
		return true, nil
	}
	names, err := untrusted.List(int(v.dir.Fd()), 100)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if n != DataDir && n != progressFile && !strings.HasPrefix(n, atomicfile.TempPrefix) {
			return false, nil // no program of ours has made it
		}
	}
	data, err := v.Data(unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer data.Close()
	return freshdir.Empty(data)
}
