// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/checkpoint"
)

// Directory is where snapshots are, in the state directory: a directory for each, which holds a
// checkpoint.
const Directory = "snapshots"

// halfMade begins the names of those that are being made. No snapshot has a name with a dot.
const halfMade = ".new-"

var (
	// ErrNotFound says that there is no such snapshot.
	ErrNotFound = errors.New("there is no such snapshot")
	// ErrExists says that there is a snapshot already.
	ErrExists = errors.New("there is a snapshot of this name; remove it first, or take another name")
	// ErrDamaged says that a snapshot is not what was written.
	ErrDamaged = errors.New("the snapshot is damaged")
	// ErrBusy says that another program makes a snapshot.
	ErrBusy = errors.New("another program makes a snapshot; try again when it has ended")
)

// Store is the snapshots of a state directory. Several processes may use it at a time.
type Store struct {
	state, dir *os.File
	sync       func() error // of dir
}

// Open opens the snapshots of a state directory, and makes the directory of them if there is
// none. state stays the caller's.
func Open(state *os.File) (*Store, error) {
	err := crashpoint.Do(crashpoint.SnapshotStore, func() error { return unix.Mkdirat(int(state.Fd()), Directory, 0o700) })
	switch {
	case err == nil:
		err = state.Sync() // nothing in it survives a power cut that it does not survive
	case errors.Is(err, unix.EEXIST):
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("make the directory of snapshots: %w", err)
	}
	return Look(state)
}

// Look opens the snapshots of a state directory: fs.ErrNotExist if there never was one.
func Look(state *os.File) (*Store, error) {
	dir, err := openPrivate(state, Directory)
	if err != nil {
		return nil, fmt.Errorf("open the directory of snapshots: %w", err)
	}
	return &Store{state, dir, dir.Sync}, nil
}

// Close closes the store. What was opened stays usable.
func (s *Store) Close() { _ = s.dir.Close() } // nothing was written by it

// in is how everything here is opened: below a directory that is open, on the same mount, and
// through no link.
const in = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openPrivate opens a directory that nobody but this user can have changed: who can write a state
// decides what runs in the sandboxes that begin from it.
func openPrivate(at *os.File, path string) (*os.File, error) {
	f, err := dirfd.Open(int(at.Fd()), path, unix.O_RDONLY|unix.O_DIRECTORY, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := actual.CheckPrivate(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// checkName refuses what is not the name of a snapshot.
func checkName(name string) error {
	if !desired.ValidName(name) {
		return fmt.Errorf("%q is not the name of a snapshot, which is a DNS label", untrusted.Line(name, 100))
	}
	return nil
}

// find opens the directory of a snapshot.
func (s *Store) find(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dir, err := openPrivate(s.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return dir, err
}

// Load opens a snapshot: ErrNotFound, or ErrDamaged of one whose files are not there, not
// readable or not as long as they were. The rest of it is not read. Each caller has a descriptor
// of its own, so that any number of sandboxes can begin from one snapshot at a time.
func (s *Store) Load(name string) (*checkpoint.Image, error) {
	dir, err := s.find(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	img, err := checkpoint.OpenIn(dir)
	if err != nil {
		if _, gone := s.find(name); errors.Is(gone, ErrNotFound) {
			return nil, gone // it was removed meanwhile
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := img.CheckSize(); err != nil {
		img.Close()
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if img.Info.Checksum == "" || img.Info.ID == "" {
		img.Close()
		return nil, fmt.Errorf("%w: it has no checksum", ErrDamaged)
	}
	return img, nil
}

// Verify reads all of a snapshot: ErrDamaged if it is not what was written.
func (s *Store) Verify(ctx context.Context, name string) error {
	img, err := s.Load(name)
	if err != nil {
		return err
	}
	defer img.Close()
	return verify(ctx, img)
}

// Entry is what is shown of a snapshot. The rest of its description has secrets.
type Entry struct {
	Name string `json:"name"`
	// Sandbox is the one that it was made of.
	Sandbox string    `json:"sandbox,omitempty"`
	Created time.Time `json:"created,omitzero"`
	// Bytes is the size of its file.
	Bytes      int64  `json:"bytes"`
	Compressed bool   `json:"compressed,omitempty"`
	GVisor     string `json:"gvisor,omitempty"`
	// Problem says why nothing can begin from it.
	Problem string `json:"problem,omitempty"`
}

// List lists the snapshots, in the order of their names. Their files are not read.
func (s *Store) List() ([]Entry, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	out := []Entry{}
	for _, name := range names {
		if desired.ValidName(name) {
			if e := s.entry(name); e != nil {
				out = append(out, *e)
			}
		}
	}
	return out, nil
}

// names are all names in the directory, in their order.
func (s *Store) names() ([]string, error) {
	dir, err := dirfd.Open(int(s.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY, in) // with an offset of its own
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(0)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// entry is what is known of a snapshot, nil if it has just been removed.
func (s *Store) entry(name string) *Entry {
	img, err := s.Load(name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return &Entry{Name: name, Bytes: s.size(name), Problem: err.Error()}
	}
	defer img.Close()
	return entryOf(name, &img.Info)
}

func entryOf(name string, i *checkpoint.Info) *Entry {
	return &Entry{Name: name, Sandbox: i.Name, Created: i.TakenAt, Bytes: i.StateBytes, Compressed: i.Compressed, GVisor: i.GVisor}
}

// size is how much a snapshot takes, whatever is known of it.
func (s *Store) size(name string) (n int64) {
	dir, err := dirfd.Open(int(s.dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY, in)
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, err := untrusted.List(int(dir.Fd()), 100)
	if err != nil {
		return 0
	}
	for _, f := range names {
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), f, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			n += st.Size
		}
	}
	return n
}

// Sum is how much all snapshots take together, damaged ones too.
func (s *Store) Sum() (sum int64, err error) {
	names, err := s.names()
	for _, name := range names {
		sum += s.size(name)
	}
	return sum, err
}

// Unfinished are the names of what programs that were killed have left, and of what is being made.
func (s *Store) Unfinished() ([]string, error) {
	names, err := s.names()
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, halfMade) }), err
}

// Remove removes a snapshot, also a damaged one, unless check returns an error. It vanishes at
// once, by a rename into the trash, for which a full disk has room. A start that has opened it
// goes on. What this program leaves when it is killed the daemon removes with the rest of the
// trash.
func (s *Store) Remove(name string, check func() error) error {
	if err := checkName(name); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(s.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err == nil {
		err = check()
	}
	if err != nil {
		return err
	}
	trash, err := openPrivate(s.state, actual.TrashDir)
	if err != nil {
		return fmt.Errorf("open trash: %w", err)
	}
	defer trash.Close()
	gone := "snapshot." + name + "." + actual.NewUID()
	err = crashpoint.Do(crashpoint.SnapshotTrash, func() error {
		return unix.Renameat2(int(s.dir.Fd()), name, int(trash.Fd()), gone, unix.RENAME_NOREPLACE)
	})
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: %s", ErrNotFound, name) // somebody else was faster
	}
	if err == nil {
		err = s.sync()
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", name, err)
	}
	return discard(trash, gone)
}

// discard removes the directory of a snapshot.
func discard(at *os.File, name string) error {
	r := untrusted.NewRemover(int(at.Fd()), 1000)
	more, err := r.Remove(name)
	if err == nil && more {
		err = errors.New("there is more in it than is removed at once; the daemon removes the rest")
	}
	if err != nil {
		return fmt.Errorf("remove the files of a snapshot: %w", err)
	}
	return nil
}

// unlock gives back what lock has taken.
func (s *Store) unlock() { _ = unix.Flock(int(s.dir.Fd()), unix.LOCK_UN) } // Close does too

// lock has this program alone make snapshots.
func (s *Store) lock(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, ErrBusy)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(s.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Sweep removes what programs that were killed have left of snapshots. What is being made is
// locked, and left.
func Sweep(ctx context.Context, state *os.File) error {
	s, err := Look(state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.lock(ctx, 0); err != nil {
		if errors.Is(err, ErrBusy) {
			return nil
		}
		return err
	}
	defer s.unlock()
	return s.sweep()
}

// sweep removes what is half made. The caller has the lock.
func (s *Store) sweep() error {
	names, err := s.Unfinished()
	for _, n := range names {
		err = errors.Join(err, discard(s.dir, n))
	}
	return err
}
