// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/desired/imageref"
)

// Names in the store. An image is in two files: its tree, and what is known about it.
// The second is written last: without it there is no image.
const (
	// Directory is where the store is, in the state directory.
	Directory = "images"

	treeSuffix = ".erofs"
	metaSuffix = ".json"
	refsDir    = "refs"  // references, and what they meant when they were resolved
	pullsDir   = "pulls" // layers of pulls that are not complete, a directory for each
)

// RegistriesPath is the file that says how registries are spoken to. It need not exist.
const RegistriesPath = "/etc/sandboxctl/registries.yaml"

// Errors of the store. Those of sources and layers are beside them: see Reason.
var (
	// ErrNotFound says that the store has no such image.
	ErrNotFound = errors.New("the image is not in the store")
	// ErrInUse says that an image can't be removed.
	ErrInUse = errors.New("the image is in use")
	// ErrDiskFull says that there is not enough room.
	ErrDiskFull = errors.New("not enough room on the disk of the images")
	// ErrTooLong says that an image says more about itself than is kept.
	ErrTooLong = errors.New("the configuration of the image is too long")
	// ErrDamaged says that a file of the store is not what it should be.
	ErrDamaged = errors.New("the store of images is damaged")
)

// Store is the images of a state directory. Several processes may use it at a time, and
// several goroutines of each.
type Store struct {
	dir   *os.File
	refs  *os.File
	pulls *os.File
	// unswept is why not everything was removed that killed processes have left.
	unswept error
	// busy is when Has last gave up an image that somebody had alone.
	busy atomic.Pointer[time.Time]
}

// OpenStore opens the store of a state directory, and makes it if there is none. It
// removes what processes that were killed have left of images.
func OpenStore(state string) (*Store, error) {
	dir := filepath.Join(state, Directory)
	for _, d := range []string{state, dir, filepath.Join(dir, refsDir), filepath.Join(dir, pullsDir)} {
		err := atomicfile.MkdirAll(d, 0o700)
		if err == nil {
			err = checkPrivate(d) // before anything is made in it
		}
		if err != nil {
			return nil, fmt.Errorf("make the store of images: %w", err)
		}
	}
	s, err := OpenStoreReadOnly(state)
	if err != nil {
		return nil, err
	}
	// What it can't remove keeps nobody from the images that are there.
	s.unswept = s.sweep()
	return s, nil
}

// Unswept says why OpenStore has not removed all that killed processes have left, nil if
// it has.
func (s *Store) Unswept() error { return s.unswept }

// OpenStoreReadOnly opens a store to look at it: fs.ErrNotExist if there is none.
func OpenStoreReadOnly(state string) (*Store, error) {
	s := &Store{}
	err := checkPrivate(state)
	if err == nil {
		s.dir, err = openDir(unix.AT_FDCWD, filepath.Join(state, Directory), 0)
	}
	if err == nil {
		err = actual.CheckPrivate(s.dir)
	}
	if err == nil {
		s.refs, err = openDir(int(s.dir.Fd()), refsDir, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	}
	if err == nil {
		s.pulls, err = openDir(int(s.dir.Fd()), pullsDir, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open the store of images: %w", err)
	}
	return s, nil
}

// checkPrivate refuses a directory that another user owns or may write: who could put a
// link or an image there would have root write elsewhere, or others run that image.
func checkPrivate(path string) error {
	dir, err := openDir(unix.AT_FDCWD, path, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := actual.CheckPrivate(dir); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Current says whether the store is still that of the state directory: it may have been
// removed, mounted or replaced since it was opened.
func (s *Store) Current(state string) bool {
	dir := filepath.Join(state, Directory)
	for path, f := range map[string]*os.File{dir: s.dir, filepath.Join(dir, refsDir): s.refs, filepath.Join(dir, pullsDir): s.pulls} {
		var there, open unix.Stat_t
		if unix.Stat(path, &there) != nil || unix.Fstat(int(f.Fd()), &open) != nil || there.Dev != open.Dev || there.Ino != open.Ino {
			return false
		}
	}
	return true
}

func openDir(at int, path string, resolve uint64) (*os.File, error) {
	return dirfd.Open(at, path, unix.O_RDONLY|unix.O_DIRECTORY, resolve)
}

// Close closes it. Images stay usable.
func (s *Store) Close() error {
	for _, f := range []*os.File{s.dir, s.refs, s.pulls} {
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// meta is what is known about an image.
type meta struct {
	Version int `json:"version"`
	Info
}

// metaVersion is that of the format.
const metaVersion = 1

// mostMeta bounds a file with it.
const mostMeta = 16 << 20

// Info is what is known about an image in the store.
type Info struct {
	Digest   string `json:"digest"`
	Platform string `json:"platform,omitempty"`
	// Created is when it was built, as it says itself, Pulled when it came here.
	Created time.Time `json:"created,omitzero"`
	Pulled  time.Time `json:"pulled"`
	// Bytes is the length of its file, Entries how many files are in it.
	Bytes   int64 `json:"bytes"`
	Entries int   `json:"entries"`
	// Checksum is that of its file: Verify has what it is of.
	Checksum string `json:"checksum,omitempty"`
	// Damaged says what was found wrong with it. It can't be used any more.
	Damaged string `json:"damaged,omitempty"`
	// Layers are the digests of its layers, uncompressed.
	Layers  []string `json:"layers,omitempty"`
	Dropped Dropped  `json:"dropped,omitzero"`
	Config  Config   `json:"config"`
}

// Dropped counts what the layers of an image have, and the image does not: gVisor would
// not serve it.
type Dropped struct {
	// Devices are device files. gVisor opens no device of an image, and takes a
	// character device for the mark of a removed file.
	Devices int `json:"devices,omitempty"`
	// Xattrs are files with extended attributes: gVisor can't read them in EROFS.
	Xattrs int `json:"xattrs,omitempty"`
	// Capabilities are those of them that were file capabilities.
	Capabilities int `json:"fileCapabilities,omitempty"`
}

// plain says whether a digest is one, and returns its hexadecimal digits.
func plain(digest string) (string, bool) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	return hex, ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// openFile opens a small file of the store.
func openFile(dir *os.File, name string) (f *os.File, size int64, err error) {
	f, err = dirfd.Open(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrDamaged, name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// readFile reads a small file of the store.
func readFile(dir *os.File, name string) ([]byte, error) {
	f, size, err := openFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := dirfd.ReadRegular(f, size, mostMeta)
	if err == nil && len(b) > mostMeta {
		err = fmt.Errorf("%w: %s is too long", ErrDamaged, name)
	}
	return b, err
}

// info reads what is known about an image.
func (s *Store) info(hex string) (Info, error) {
	b, err := readFile(s.dir, hex+metaSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, ErrNotFound
	}
	if err != nil {
		return Info{}, err
	}
	var m meta
	if err := json.Unmarshal(b, &m); err != nil {
		return Info{}, fmt.Errorf("%w: %s: %w", ErrDamaged, hex+metaSuffix, err)
	}
	return m.Info, checkMeta(hex, m.Version, m.Digest)
}

// outline is info without the configuration. That may be megabytes of what whoever made
// the image likes, and the loop looks at every image in each of its passes: it comes last
// in the file, and is not read.
func (s *Store) outline(hex string) (i Info, err error) {
	f, size, err := openFile(s.dir, hex+metaSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return i, ErrNotFound
	}
	if err != nil {
		return i, err
	}
	defer f.Close()
	damaged := func(err error) (Info, error) {
		return Info{}, fmt.Errorf("%w: %s: %w", ErrDamaged, hex+metaSuffix, err)
	}
	// It was written as a whole, or cut later.
	var end [2]byte
	if _, err := f.ReadAt(end[:], size-int64(len(end))); err != nil || string(end[:]) != "\n}" {
		return damaged(errors.Join(errors.New("it has no end"), err))
	}
	var version int
	wanted := map[string]any{"version": &version, "digest": &i.Digest, "bytes": &i.Bytes}
	d := json.NewDecoder(io.LimitReader(f, mostMeta))
	if _, err := d.Token(); err != nil {
		return damaged(err)
	}
	for len(wanted) > 0 && d.More() {
		name, err := d.Token()
		if err != nil {
			return damaged(err)
		}
		key, _ := name.(string)
		to := wanted[key]
		delete(wanted, key)
		if to == nil {
			to = new(json.RawMessage)
		}
		if err := d.Decode(to); err != nil {
			return damaged(err)
		}
	}
	return i, checkMeta(hex, version, i.Digest)
}

// checkMeta says whether what is known about an image is about it, and can be understood.
func checkMeta(hex string, version int, digest string) error {
	switch {
	case version != metaVersion:
		return fmt.Errorf("%w: %s has version %d, this program knows %d", ErrDamaged, hex+metaSuffix, version, metaVersion)
	case digest != "sha256:"+hex:
		return fmt.Errorf("%w: %s is about %q", ErrDamaged, hex+metaSuffix, digest)
	}
	return nil
}

// Has says whether an image is in the store, and nobody has it alone. Who removes images
// has many of them alone, and may have been stopped: all calls together wait but a moment.
func (s *Store) Has(digest string) bool {
	wait := hasPatience
	if at := s.busy.Load(); at != nil && time.Since(*at) < busyFor {
		wait = 0
	}
	img, err := s.find(digest, s.outline, wait)
	if errors.Is(err, ErrBusy) {
		s.busy.Store(new(time.Now()))
	}
	if err != nil {
		return false
	}
	img.Close()
	return true
}

// Find takes an image that is in the store: ErrNotFound otherwise. The image is the
// caller's to close.
func (s *Store) Find(digest string) (*Image, error) {
	return s.find(digest, s.info, lockPatience)
}

func (s *Store) find(digest string, read func(hex string) (Info, error), wait time.Duration) (*Image, error) {
	hex, ok := plain(digest)
	if !ok {
		return nil, fmt.Errorf("%w: %q is not a digest: expected sha256: and 64 hexadecimal digits", imageref.ErrInvalid, digest)
	}
	for {
		f, err := s.openTree(hex, unix.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, digest)
		}
		if err != nil {
			return nil, err
		}
		img, again, err := s.take(f, hex, read, wait)
		if err == nil && !again {
			return img, nil
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", digest, err)
		}
	}
}

// take locks the file of an image. again says that the file was removed meanwhile.
func (s *Store) take(f *os.File, hex string, read func(hex string) (Info, error), wait time.Duration) (img *Image, again bool, err error) {
	// Who has the lock alone removes the image or is about to finish it, which takes
	// moments. A program that was stopped meanwhile must not hold up its callers.
	if err := flockSoon(f, unix.LOCK_SH, wait); err != nil {
		return nil, false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, false, err
	}
	if st.Nlink == 0 {
		return nil, true, nil
	}
	info, err := read(hex)
	if err != nil {
		return nil, false, err
	}
	if info.Damaged != "" {
		return nil, false, fmt.Errorf("%w: %s; fetch or import the image again", ErrDamaged, info.Damaged)
	}
	if st.Size != info.Bytes {
		return nil, false, fmt.Errorf("%w: %s has %d bytes instead of %d; remove the image and pull it again", ErrDamaged, hex+treeSuffix, st.Size, info.Bytes)
	}
	return &Image{Digest: info.Digest, Config: info.Config, Info: info, store: s.dir, file: f, hex: hex}, false, nil
}

func (s *Store) openTree(hex string, flags uint64) (*os.File, error) {
	return openTree(s.dir, hex, flags)
}

func openTree(dir *os.File, hex string, flags uint64) (*os.File, error) {
	return dirfd.Open(int(dir.Fd()), hex+treeSuffix, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
}

// lockPatience is how long an image is waited for that somebody has alone.
const (
	lockPatience = time.Second
	lockEvery    = 10 * time.Millisecond
	// hasPatience is that of Has. Once it was for nothing, Has does not wait for busyFor.
	hasPatience = 100 * time.Millisecond
	busyFor     = 5 * time.Second
)

// ErrBusy says that another program holds up the image.
var ErrBusy = errors.New("another program is removing the image and does not finish")

// flockSoon takes a lock within a time.
func flockSoon(f *os.File, how int, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; <-time.After(lockEvery) {
		err := flock(f, how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if !time.Now().Before(deadline) {
			return ErrBusy
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// in is a directory for the atomic writer.
func in(dir *os.File) atomicfile.In { return atomicfile.In{Dir: fsys.Of(dir)} }

// Dir is the directory of the store, for those who look how much room its disk has.
func (s *Store) Dir() *os.File { return s.dir }

// Begin begins the file of an image.
func (s *Store) Begin() (*atomicfile.Pending, error) { return begin(s.dir, 0o400) }

// Scratch begins a file that is needed for as long as a pull lasts.
func (s *Store) Scratch() (*atomicfile.Pending, error) { return begin(s.pulls, 0o600) }

func begin(dir *os.File, mode os.FileMode) (*atomicfile.Pending, error) {
	p, err := atomicfile.Begin(dir, mode)
	if err != nil {
		return nil, Full(err)
	}
	return p, nil
}

// Put puts an image into the store. The caller has the claim to it.
func (s *Store) Put(ctx context.Context, tree *atomicfile.Pending, i Info) error {
	hex, ok := plain(i.Digest)
	if !ok {
		return fmt.Errorf("%w: %q", imageref.ErrInvalid, i.Digest)
	}
	st, err := tree.Stat()
	if err != nil {
		return err
	}
	i.Bytes = st.Size()
	// The disk writes meanwhile.
	if i.Checksum, err = checksum(ctx, tree.File); err != nil {
		return err
	}
	b, err := json.MarshalIndent(meta{Version: metaVersion, Info: i}, "", "\t")
	if err != nil {
		return err
	}
	if len(b) > mostMeta {
		// Nobody could read it again: JSON takes up to six bytes for one.
		return fmt.Errorf("%w: what its configuration says takes %d MiB, at most %d are kept", ErrTooLong, len(b)>>20, mostMeta>>20)
	}
	if err := tree.Commit(hex + treeSuffix); err != nil {
		return Full(err)
	}
	// From here on there is an image.
	return Full(in(s.dir).Write(hex+metaSuffix, b, 0o600))
}

// Full says what the error of a write means.
func Full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}
