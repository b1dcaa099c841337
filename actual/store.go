// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/fsys"
)

// Names below the state directory.
const (
	SandboxesDir = "sandboxes" // a directory for each sandbox
	TrashDir     = "trash"     // directories of sandboxes on their way out
	RecordFile   = "meta.json" // in a sandbox's directory

	requestsDir = "requests"
	lockFile    = "daemon.lock"
)

// ErrNoState says that the state directory does not exist (yet).
var ErrNoState = errors.New("no state directory")

// errInvalidName says what is wrong with a name that is not looked for.
var errInvalidName = errors.New("it is not the name of a sandbox")

// Store keeps the records of one state directory. Reading is safe at any time
// from any number of processes. Put, Claim and Remove are for the one that
// holds the lock, one caller a name at a time; where there is no daemon, for
// the one that has the lock of the name (see LockSandbox).
type Store struct {
	path string
	// marker is the path without links, as the kernel knows it.
	marker string
	// valid says what may be a name in it.
	valid func(string) bool
	// containers says that it is the state of an OCI runtime.
	containers bool
	// looks says that the store is only looked at, most often once.
	looks bool
	root  fsys.Dir // STATE
	dirs  fsys.Dir // STATE/sandboxes
	// reserve is nil where none has been made.
	reserve *atomicfile.Reserve

	mu    sync.Mutex
	cache map[string]cached
}

// cached is a decoded record and the file it came from.
type cached struct {
	id          fileID
	rec         *Record
	quarantined *Quarantined
}

type fileID struct {
	dev, ino uint64
	size     int64
	ctime    unix.Timespec
}

func idOf(st *unix.Stat_t) fileID {
	return fileID{dev: st.Dev, ino: st.Ino, size: st.Size, ctime: st.Ctim}
}

// OpenStore opens the state directory at path, which it creates (0700) if
// need be. It refuses one that others may write: a user who can write records
// could have root signal processes and remove files.
func OpenStore(path string) (*Store, error) {
	if err := crashpoint.Do(crashpoint.StateDirectory, func() error { return atomicfile.MkdirAll(path, 0o700) }); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	s, err := openStore(path, true, ValidName)
	if err != nil {
		return nil, err
	}
	if err := s.syncRoot(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenSimulated is OpenStore of a directory that is not the kernel's. It is at path
// for messages.
func OpenSimulated(root fsys.Dir, path string) (*Store, error) {
	s := &Store{path: path, marker: path, valid: ValidName, root: root, cache: map[string]cached{}}
	err := s.makeDirs()
	if err == nil {
		err = s.syncRoot()
	}
	if err == nil {
		err = s.openDirs()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// syncRoot forces the directories of the state directory to disk. The program that
// made them may have been killed before it did, and nothing in a directory survives
// a power cut that the directory itself does not survive.
func (s *Store) syncRoot() error {
	if err := s.root.Sync(); err != nil {
		return fmt.Errorf("create state directory %s: sync: %w", s.path, err)
	}
	return nil
}

// OpenRuntimeStore opens or creates the state directory of an OCI runtime: the
// ids are its clients', and there is no daemon.
func OpenRuntimeStore(path string) (*Store, error) {
	if err := atomicfile.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	s, err := openStore(path, true, ValidID)
	if err != nil {
		return nil, err
	}
	s.containers = true
	return s, nil
}

// OpenStoreReadOnly opens a state directory to look at it; ErrNoState if there
// is none.
func OpenStoreReadOnly(path string) (*Store, error) {
	s, err := openStore(path, false, ValidName)
	if err == nil {
		s.looks = true
	}
	return s, err
}

func openStore(path string, create bool, valid func(string) bool) (_ *Store, err error) {
	root, err := os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open state directory %s: %w", path, ErrNoState)
	}
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	s := &Store{path: path, valid: valid, root: fsys.Of(root), cache: map[string]cached{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := CheckPrivate(root); err != nil {
		return nil, fmt.Errorf("open state directory %s: %w", path, err)
	}
	if s.marker, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(root.Fd()))); err != nil {
		return nil, fmt.Errorf("open state directory %s: find its path: %w", path, err)
	}
	if create {
		if err := s.makeDirs(); err != nil {
			return nil, err
		}
	}
	if err := s.openDirs(); err != nil {
		return nil, err
	}
	if err := s.openReserve(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open state directory %s/%s: %w", path, reserveDir, err)
	}
	return s, nil
}

// makeDirs makes the directories of a state directory.
func (s *Store) makeDirs() error {
	for _, d := range []string{SandboxesDir, TrashDir, requestsDir} {
		err := crashpoint.Do(crashpoint.StateDirectory, func() error { return s.root.Mkdir(d, 0o700) })
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create state directory %s/%s: %w", s.path, d, err)
		}
	}
	return nil
}

func (s *Store) openDirs() (err error) {
	s.dirs, err = s.root.OpenDir(SandboxesDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open state directory %s: %w", s.path, ErrNoState)
	case err != nil:
		return fmt.Errorf("open state directory %s/%s: %w", s.path, SandboxesDir, err)
	}
	s.dirs = fsys.ShareSyncs(s.dirs)
	return nil
}

// CheckPrivate refuses a directory that another user owns or may write.
func CheckPrivate(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, expected %d; give it to the daemon's user with chown", st.Uid, os.Geteuid())
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("others may write it (mode %04o); remove that with chmod go-w", st.Mode&0o7777)
	}
	return nil
}

// Close releases the store's descriptors.
func (s *Store) Close() error {
	var err error
	if s.dirs != nil {
		err = s.dirs.Close()
	}
	if s.reserve != nil {
		err = errors.Join(err, s.reserve.Close())
	}
	return errors.Join(err, s.root.Close())
}

// Root opens the state directory, to look at its files. The caller closes it.
func (s *Store) Root() (*os.Root, error) {
	// Through the descriptor: the path may lead elsewhere by now.
	r, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(s.RootDir().Fd())))
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	return r, nil
}

// RootDir is the open state directory. It stays the store's.
func (s *Store) RootDir() *os.File { return fsys.OSFile(s.root) }

// Path is where the state directory was when it was opened, for messages.
func (s *Store) Path() string { return s.path }

// Marker is the path of the state directory without links when it was opened. Its
// processes carry it: should the directory be lost, they tell whose they are.
func (s *Store) Marker() string { return s.marker }

// Lost says why what is in the state directory is not to be believed, nil if it
// is where it was. One that was removed, moved, unmounted or replaced while it was
// open looks empty: nothing follows from that.
func (s *Store) Lost() error {
	ours, err := s.root.Self()
	if err != nil {
		return fmt.Errorf("look at state directory: %w", err)
	}
	now, err := s.root.StatPath(s.path)
	if err == nil && (now.Dev != ours.Dev || now.Ino != ours.Ino) {
		err = errors.New("it is another one now")
	}
	if err != nil {
		return fmt.Errorf("the state directory %s was removed, moved or replaced while it was in use: %w; put it back, or start the daemon again", s.path, err)
	}
	return nil
}

// NewUID returns 128 random bits in hexadecimal.
func NewUID() string {
	var b [16]byte
	rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// Claim makes the directory of a new sandbox. One that is there without a
// record is what a create left that died before its first Put: it is taken
// over. fs.ErrExist if there is a record. When it returns nil the directory
// survives a power cut: what is forced to disk in it later is worth nothing
// without.
func (s *Store) Claim(name string) error {
	if err := s.claim(name); err != nil {
		return err
	}
	if err := s.dirs.Sync(); err != nil {
		return fmt.Errorf("claim %s: sync: %w", name, err)
	}
	return nil
}

func (s *Store) claim(name string) error {
	if !s.valid(name) {
		return fmt.Errorf("claim %q: %w", name, errInvalidName)
	}
	err := crashpoint.Do(crashpoint.Claim, func() error { return s.dirs.Mkdir(name, 0o700) })
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("claim %s: %w", name, err)
	}
	dir, err := s.dir(name)
	if err != nil {
		return fmt.Errorf("claim %s: %w", name, err)
	}
	defer dir.Close()
	switch _, err := dir.Stat(RecordFile); {
	case errors.Is(err, unix.ENOENT):
		if err := missing(dir); err != nil {
			// Whatever made those files may live.
			return fmt.Errorf("claim %s: %w", name, err)
		}
		_, err := atomicfile.In{Dir: dir}.SweepTemps()
		return err
	case err != nil:
		return fmt.Errorf("claim %s: %w", name, err)
	}
	return fmt.Errorf("claim %s: %w", name, fs.ErrExist)
}

// Dir opens the directory of a sandbox. The caller closes it.
func (s *Store) Dir(name string) (*os.File, error) {
	d, err := s.dir(name)
	if err != nil {
		return nil, err
	}
	return fsys.OSFile(d), nil
}

func (s *Store) dir(name string) (fsys.Dir, error) {
	if !s.valid(name) {
		return nil, fmt.Errorf("open sandbox %q: %w", name, errInvalidName)
	}
	d, err := s.dirs.OpenDir(name)
	if err != nil {
		return nil, fmt.Errorf("open sandbox %s: %w", name, err)
	}
	return d, nil
}

// openDir opens a directory below one of the host.
func openDir(dir *os.File, name string) (*os.File, error) {
	d, err := fsys.Of(dir).OpenDir(name)
	if err != nil {
		return nil, err
	}
	return fsys.OSFile(d), nil
}

// Put writes a record. It fails for a name that has no directory: a late
// writer can't bring a removed sandbox back.
func (s *Store) Put(r *Record) error {
	return s.put(r, "record", func(dir fsys.Dir, b []byte) error { return s.write(dir, RecordFile, b, false) })
}

// PutUrgent is Put for a record that must be written for something to be freed.
// It needs no room on the disk while there is a reserve.
func (s *Store) PutUrgent(r *Record) error {
	return s.put(r, "record", func(dir fsys.Dir, b []byte) error { return s.write(dir, RecordFile, b, true) })
}

// PutIntent is PutUrgent for the record of what is about to be stopped. A power cut, which
// stops it too, may leave the record before; not where this one tells how the application
// ended, which may be nowhere else on disk: a job that has completed must not run again.
func (s *Store) PutIntent(r *Record) error {
	if r.Ending != nil && r.Ending.App().Exit != nil {
		return s.PutUrgent(r)
	}
	return s.put(r, "record", func(dir fsys.Dir, b []byte) error {
		return s.orReserve(atomicfile.In{Dir: dir}.WriteWhole(RecordFile, b, 0o600), dir, RecordFile, b)
	})
}

func (s *Store) put(r *Record, what string, write func(fsys.Dir, []byte) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s of %s: %w", what, r.Name, err)
		}
	}()
	b, err := EncodeRecord(r)
	if err != nil {
		return err
	}
	dir, err := s.dir(r.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return crashpoint.Do(crashpoint.RecordPut, func() error { return write(dir, b) })
}

// Listing is what is in the state directory.
type Listing struct {
	Records     []*Record     // sorted by name
	Quarantined []Quarantined // sorted by name
	// Aborted are directories without a record: creates that died before
	// their first Put. Nothing lives in them.
	Aborted []string
}

type readResult struct {
	rec         *Record
	quarantined *Quarantined
	exists      bool
}
