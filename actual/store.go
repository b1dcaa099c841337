// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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

// ErrLocked says that another daemon holds the state directory.
var ErrLocked = errors.New("state directory is in use by another daemon")

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

// Lock makes this process the daemon of the state directory for as long as it
// lives. ErrLocked, with the pid of the other, if there is one already. What is
// locked is the directory itself, so that removing a file in it frees nothing;
// the file only tells who holds it.
func (s *Store) Lock() error {
	fd, err := unix.Openat(int(s.RootDir().Fd()), lockFile, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	defer unix.Close(fd)
	for deadline := time.Now().Add(lockPatience); ; <-time.After(lockEvery) {
		err := crashpoint.Do(crashpoint.Lock, func() error { return unix.Flock(int(s.RootDir().Fd()), unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock state directory: %w", err)
		}
		var b [20]byte
		n, _ := unix.Pread(fd, b[:], 0)
		holder := strings.TrimSpace(string(b[:max(n, 0)]))
		if !hasEnded(holder) || time.Now().After(deadline) {
			return fmt.Errorf("lock state directory %s: %w (pid %s)", s.path, ErrLocked, holder)
		}
	}
	crashpoint.Before(crashpoint.LockFile)
	pid := strconv.Itoa(os.Getpid()) + "\n"
	// Written over, and cut after: on a full disk there is no room to begin anew.
	_, err = unix.Pwrite(fd, []byte(pid), 0)
	if err == nil {
		err = unix.Ftruncate(fd, int64(len(pid)))
	}
	crashpoint.After(crashpoint.LockFile)
	if err != nil && !atomicfile.NoSpace(err) { // it only tells others who it is
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

// lockPatience is how long a lock may outlive a daemon that was killed: a child
// that it was just starting has it too, until it is another program.
const lockPatience = 5 * time.Second

// hasEnded says of a pid, as text, that no process has it but perhaps a zombie.
func hasEnded(pid string) bool {
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 {
		return true // killed before it had written it
	}
	fd, err := unix.PidfdOpen(n, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	p := &Process{pidfd(fd)}
	defer p.Close()
	return p.Alive() == Dead
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
	if err := s.put(r, RecordFile, false); err != nil {
		return fmt.Errorf("write record of %s: %w", r.Name, err)
	}
	return nil
}

// PutUrgent is Put for a record that must be written for something to be freed.
// It needs no room on the disk while there is a reserve.
func (s *Store) PutUrgent(r *Record) error {
	if err := s.put(r, RecordFile, true); err != nil {
		return fmt.Errorf("write record of %s: %w", r.Name, err)
	}
	return nil
}

func (s *Store) put(r *Record, file string, urgent bool) error {
	b, err := EncodeRecord(r)
	if err != nil {
		return err
	}
	dir, err := s.dir(r.Name)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = crashpoint.Do(crashpoint.RecordPut, func() error { return s.write(dir, file, b, urgent) })
	return err
}

// Get returns the record of a name. All nil means that there is none. A Quarantined
// means that there is one which must not be acted on.
func (s *Store) Get(name string) (*Record, *Quarantined, error) {
	if !s.valid(name) {
		return nil, nil, fmt.Errorf("read record of %q: %w", name, errInvalidName)
	}
	rec, quarantined, _ := s.read(name)
	return rec, quarantined, nil
}

// read returns the record of a name, from the cache if its file is the same.
// exists is false if there is no record file.
func (s *Store) read(name string) (rec *Record, quarantined *Quarantined, exists bool) {
	quarantine := func(reason string, err error) (*Record, *Quarantined, bool) {
		return nil, &Quarantined{Name: name, Reason: reason, Message: err.Error()}, true
	}
	s.mu.Lock()
	c, ok := s.cache[name]
	s.mu.Unlock()
	if !ok && s.looks {
		if rec := s.readFirst(name); rec != nil {
			return rec, nil, true
		}
	}
	st, err := s.dirs.Stat(name + "/" + RecordFile)
	switch {
	case errors.Is(err, unix.ENOENT):
		rec, quarantined = s.decode(name) // not cached: there is no file to compare
		return rec, quarantined, rec != nil || quarantined != nil
	case err != nil:
		// An error is never absence: a second sandbox of the name would be
		// made beside the first.
		return quarantine(QuarantinedUnreadable, err)
	}
	id := idOf(&st)
	if ok && c.id == id {
		return c.rec, c.quarantined, true
	}
	rec, quarantined = s.decode(name)
	switch {
	case quarantined == nil && rec == nil:
		return nil, nil, false
	case quarantined != nil && quarantined.Reason == QuarantinedUnreadable:
		// What the system refused now it may give the next time, and the file
		// does not change by that.
		return nil, quarantined, true
	}
	s.keep(name, cached{id: id, rec: rec, quarantined: quarantined})
	return rec, quarantined, true
}

func (s *Store) keep(name string, c cached) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache[name] = c
}

// foreign refuses a record of the other kind: it would be taken for one that nobody
// wants, or that never came to be.
func (s *Store) foreign(rec *Record) error {
	switch {
	case (rec.App().OCI != nil) == s.containers:
		return nil
	case s.containers:
		return errors.New("it is the sandbox of a manifest, and this is the state of containers")
	}
	return errors.New("it is a container of an OCI client, and this is the state of a daemon")
}

func (s *Store) decode(name string) (*Record, *Quarantined) {
	quarantine := func(reason string, err error) (*Record, *Quarantined) {
		return nil, &Quarantined{Name: name, Reason: reason, Message: err.Error()}
	}
	dir, err := s.dir(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // removed meanwhile
	case err != nil:
		return quarantine(QuarantinedUnreadable, err)
	}
	defer dir.Close()
	rec, _, err := readRecord(dir, RecordFile, name)
	if errors.Is(err, unix.ENOENT) {
		if err = missing(dir); errors.Is(err, errNoRecord) {
			// Other files are made after the record: where they are, it was written
			// meanwhile, or is lost.
			if rec, _, err = readRecord(dir, RecordFile, name); errors.Is(err, unix.ENOENT) {
				err = errNoRecord
			}
		}
		if err != nil && !s.is(name, dir) {
			return nil, nil // it is being removed
		}
	}
	var damage *damageError
	switch {
	case err == nil && rec == nil:
		return nil, nil // a create died before its first Put
	case err == nil:
		if err := s.foreign(rec); err != nil {
			return quarantine(QuarantinedForeign, err)
		}
		return rec, nil
	case errors.Is(err, ErrNewerRecord):
		return quarantine(QuarantinedNewer, err)
	case errors.As(err, &damage), errors.Is(err, errNoRecord):
		return quarantine(QuarantinedCorrupt, err)
	}
	return quarantine(QuarantinedUnreadable, err)
}

// is says whether dir is (still) the directory of a name.
func (s *Store) is(name string, dir fsys.Dir) bool {
	ours, err := dir.Self()
	if err != nil {
		return false
	}
	now, err := s.dirs.Stat(name)
	return err == nil && now.Ino == ours.Ino && now.Dev == ours.Dev
}

// Listing is what is in the state directory.
type Listing struct {
	Records     []*Record     // sorted by name
	Quarantined []Quarantined // sorted by name
	// Aborted are directories without a record: creates that died before
	// their first Put. Nothing lives in them.
	Aborted []string
}

// List returns every record that can be read, and says of every other why not.
// One bad record never hides the rest.
func (s *Store) List() (*Listing, error) {
	names, err := s.names()
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	l := &Listing{Records: make([]*Record, 0, len(names))}
	for i, r := range s.readAll(names) {
		switch {
		case r.quarantined != nil:
			l.Quarantined = append(l.Quarantined, *r.quarantined)
		case r.exists:
			l.Records = append(l.Records, r.rec)
		default:
			l.Aborted = append(l.Aborted, names[i])
		}
	}
	s.forget(names)
	return l, nil
}

type readResult struct {
	rec         *Record
	quarantined *Quarantined
	exists      bool
}

// readAll reads the records of the names, on all processors.
func (s *Store) readAll(names []string) []readResult {
	out := make([]readResult, len(names))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 1+len(names)/8) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(names)); i = next.Add(1) - 1 {
				if r, n := &out[i], names[i]; s.valid(n) {
					r.rec, r.quarantined, r.exists = s.read(n)
				} else {
					r.quarantined = &Quarantined{Name: n, Reason: QuarantinedForeign, Message: errInvalidName.Error()}
				}
			}
		})
	}
	wg.Wait()
	return out
}

// names lists the entries of the sandboxes directory, sorted.
func (s *Store) names() ([]string, error) {
	names, err := s.dirs.Names(0)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// forget drops cached records of names that are gone. names is sorted.
func (s *Store) forget(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) <= len(names) {
		return
	}
	for n := range s.cache {
		if _, ok := slices.BinarySearch(names, n); !ok {
			delete(s.cache, n)
		}
	}
}
