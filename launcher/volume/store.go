// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/gofer"
)

// Names in the state directory.
const (
	Directory = gofer.VolumesDir
	DataDir   = gofer.VolumeDataDir
	metaFile  = "meta.json"
)

var (
	// ErrNotFound says that there is no such volume.
	ErrNotFound = errors.New("there is no such volume")
	// ErrBusy says that a volume can't be had now.
	ErrBusy       = errors.New("another program makes, restores, backs up or removes the volume, or starts a sandbox with it; try again")
	errIncomplete = errors.New("it is not complete: a program that made or restored it was killed, or is at work; the next start of a sandbox with it completes it, without what a restore has left, `sandboxctl volume rm` removes it")
	// ErrExists says that there is a volume already.
	ErrExists = errors.New("there is a volume of this name")
)

// Meta is what is known about a volume.
type Meta struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// ID is another one for each volume that ever had the name.
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// CreatedFor is the sandbox that it was made for, "" if it was restored, or declared and
	// not used yet, which Unused says.
	CreatedFor string `json:"createdFor,omitempty"`
	// Restoring says that the volume is not there yet: a restore writes it. If the restore
	// was killed, nobody has used what there is, and it may be removed.
	Restoring bool `json:"restoring,omitempty"`
	Unused    bool `json:"unused,omitempty"`
	// Size is how much it may hold, 0 without a limit. Project is what its files are counted
	// as, 0 if they are not.
	Size    int64  `json:"size,omitempty"`
	Project uint32 `json:"project,omitempty"`
}

// metaVersion is that of the format, mostMeta bounds a file with it.
const (
	metaVersion = 1
	mostMeta    = 1 << 16
)

// Store is the volumes of a state directory. Several processes may use it at a time.
type Store struct {
	state, dir *os.File
	quotas     *quotas
}

// Open opens the volumes of a state directory, and makes the directory of them if there is
// none. state stays the caller's.
func Open(state *os.File) (*Store, error) {
	err := crashpoint.Do(crashpoint.VolumeStore, func() error { return unix.Mkdirat(int(state.Fd()), Directory, 0o700) })
	switch {
	case err == nil:
		err = state.Sync() // nothing in it survives a power cut that it does not survive
	case errors.Is(err, unix.EEXIST):
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("make the directory of volumes: %w", err)
	}
	return Look(state)
}

// Look opens the volumes of a state directory: fs.ErrNotExist if there never was one.
func Look(state *os.File) (*Store, error) {
	dir, err := openPrivate(state, Directory)
	if err != nil {
		return nil, fmt.Errorf("open the directory of volumes: %w", err)
	}
	return &Store{state, dir, kernel}, nil
}

// Close closes the store. Volumes stay usable.
func (s *Store) Close() { _ = s.dir.Close() } // nothing was written by it

// in is how everything here is opened: below a directory that is open, on the same mount, and
// through no link. What is put in the place of a directory is refused, and never followed.
const in = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openDir opens a directory below another one.
func openDir(at *os.File, path string, flags uint64) (*os.File, error) {
	f, err := dirfd.Open(int(at.Fd()), path, flags|unix.O_DIRECTORY, in)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s: %w: it is a symbolic link, which is not followed", path, err)
	case errors.Is(err, unix.EXDEV):
		return nil, fmt.Errorf("%s: %w: something is mounted there, which is no part of the state directory", path, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// openPrivate opens a directory that nobody but this user can have changed.
func openPrivate(at *os.File, path string) (*os.File, error) {
	f, err := openDir(at, path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if err := actual.CheckPrivate(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// Volume is a volume that is locked.
type Volume struct {
	Meta
	store *Store
	dir   *os.File
}

// Close gives the lock back.
func (v *Volume) Close() { _ = v.dir.Close() }

// Data opens what is in it.
func (v *Volume) Data(flags uint64) (*os.File, error) { return openDir(v.dir, DataDir, flags) }

// Find locks a volume that is there, as flock does: ErrNotFound, or ErrBusy.
func (s *Store) Find(ctx context.Context, name string, how int) (*Volume, error) {
	v, err := s.lockThere(ctx, name, how)
	if err != nil {
		return nil, err
	}
	found, err := v.readMeta()
	if err == nil && !found {
		err = errIncomplete
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// lockThere locks what has the name of a volume, complete or not.
func (s *Store) lockThere(ctx context.Context, name string, how int) (*Volume, error) {
	for {
		v, err := s.lock(ctx, name, how, lockPatience)
		if v != nil || err != nil {
			return v, err
		}
		// It was removed meanwhile.
	}
}

// lock locks the directory of a volume. It returns nil without an error if that is not the
// volume any more.
func (s *Store) lock(ctx context.Context, name string, how int, patience time.Duration) (*Volume, error) {
	dir, err := s.open(name)
	if err != nil {
		return nil, err
	}
	v := &Volume{Meta: Meta{Name: name}, store: s, dir: dir}
	err = flock(ctx, dir, how, patience)
	there := false
	if err == nil {
		there, err = v.isThere()
	}
	if err != nil || !there {
		v.Close()
		return nil, err
	}
	return v, nil
}

// open opens the directory of a volume.
func (s *Store) open(name string) (*os.File, error) {
	if !desired.ValidName(name) {
		return nil, fmt.Errorf("%q is not the name of a volume, which is a DNS label", name)
	}
	dir, err := openPrivate(s.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return nil, operation.Precondition(err)
	}
	return dir, nil
}

// isThere says whether the name still leads to the volume.
func (v *Volume) isThere() (bool, error) {
	var now, mine unix.Stat_t
	if err := unix.Fstat(int(v.dir.Fd()), &mine); err != nil {
		return false, err
	}
	err := unix.Fstatat(int(v.store.dir.Fd()), v.Name, &now, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return now.Ino == mine.Ino && now.Dev == mine.Dev, err
}

// lockPatience is how long a lock is waited for that somebody else has.
const (
	lockPatience = 2 * time.Second
	lockEvery    = 10 * time.Millisecond
)

func flock(ctx context.Context, f *os.File, how int, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, operation.Precondition(ErrBusy))
	defer cancel()
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		operation.Waits(ctx) // somebody may have stopped the program that has it
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// readMeta reads what is known about the volume. found is false if it is not complete.
func (v *Volume) readMeta() (found bool, err error) {
	b, err := v.readSmall(metaFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var m Meta
	if err == nil {
		m, err = decodeMeta(v.Name, b)
	}
	if err != nil {
		return false, operation.Precondition(fmt.Errorf("read %s: %w", metaFile, err))
	}
	v.Meta = m
	return !m.Restoring, nil
}

func decodeMeta(name string, b []byte) (m Meta, err error) {
	err = json.Unmarshal(b, &m)
	switch {
	case err != nil:
	case m.Version != metaVersion:
		err = fmt.Errorf("it has version %d, this program knows %d", m.Version, metaVersion)
	case m.Name != name:
		err = fmt.Errorf("it is about the volume %q", untrusted.Line(m.Name, 200))
	}
	return m, err
}

// readSmall reads a file that this program has written beside the data.
func (v *Volume) readSmall(name string) ([]byte, error) { return readSmall(v.dir, name) }

func readSmall(dir *os.File, name string) ([]byte, error) {
	f, err := dirfd.Open(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, in)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	return dirfd.ReadRegular(f, st.Size(), mostMeta)
}

// writeMeta writes what is known about the volume, and completes it unless m says that it is
// being restored.
func (v *Volume) writeMeta(m Meta) error {
	m.Version, m.Name, m.ID, m.Created = metaVersion, v.Name, actual.NewUID(), time.Now().UTC().Truncate(time.Second)
	b, err := json.MarshalIndent(&m, "", "\t")
	if err != nil {
		return err
	}
	write := atomicfile.Create
	if v.Restoring {
		write = atomicfile.Write // in the place of what says so
	}
	if err := write(v.dir, metaFile, b, 0o600); err != nil {
		return err
	}
	v.Meta = m
	return nil
}

// putMeta writes what has changed.
func (v *Volume) putMeta() error {
	b, err := json.MarshalIndent(&v.Meta, "", "\t")
	if err != nil {
		return err
	}
	return crashpoint.Do(crashpoint.VolumeMeta, func() error { return atomicfile.Write(v.dir, metaFile, b, 0o600) })
}
