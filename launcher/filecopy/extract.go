// SPDX-License-Identifier: Apache-2.0

package filecopy

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/untrusted"
)

// below is how each path of a copy is resolved: no link is followed, and nothing but the
// tree that is being made is entered.
const below = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// Extract writes the one file or directory that a tar of a sandbox has as name into an
// open directory. finish is called when all was read, and says whether it is whole. Until
// then all is below another name, which is removed if anything fails.
func Extract(dir *os.File, name string, r io.Reader, o Options, finish func() error) (Report, error) {
	x := &extraction{copying: copying{Options: o}, buf: make([]byte, 64<<10)}
	stage, err := newStage(dir)
	if err != nil {
		return x.Report, err
	}
	x.stage = stage.dir
	err = x.extract(entriesOf(r))
	if err == nil {
		err = finish()
	}
	if err == nil && x.top == "" {
		err = errors.New("the sandbox has sent nothing")
		if x.Links > 0 {
			err = errors.New("it is a symbolic link that leads elsewhere; -L follows it, --keep-links copies it as it is")
		}
	}
	if err == nil {
		err = x.setDirs()
	}
	if err == nil {
		err = place(stage.dir, x.top, dir, name)
	}
	return x.Report, errors.Join(err, stage.remove())
}

// place gives what is whole its name. A file replaces a file; a directory replaces nothing.
func place(from *os.File, top string, dir *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), top, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("look at the copy: %w", err)
	}
	flags := uint(unix.RENAME_NOREPLACE)
	var there unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &there, unix.AT_SYMLINK_NOFOLLOW)
	regular := err == nil && there.Mode&unix.S_IFMT == unix.S_IFREG
	if regular && st.Mode&unix.S_IFMT == unix.S_IFREG {
		flags = 0
	}
	err = unix.Renameat2(int(from.Fd()), top, int(dir.Fd()), name, flags)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s is there already, and only a file replaces a file: remove it, or name another destination", untrusted.Line(name, 300))
	}
	if err != nil {
		return fmt.Errorf("name the copy %s: %w", untrusted.Line(name, 300), err)
	}
	return nil
}

// stage is a directory of mode 0700 beside the destination, with what is not whole yet.
type stage struct {
	parent, dir *os.File
	name        string
}

func newStage(parent *os.File) (*stage, error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it does not fail
	s := &stage{parent: parent, name: fmt.Sprintf(".sandboxctl-cp-%x", random)}
	if err := unix.Mkdirat(int(parent.Fd()), s.name, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for the copy: %w", err)
	}
	d, err := dirfd.Open(int(parent.Fd()), s.name, unix.O_RDONLY|unix.O_DIRECTORY, below)
	if err != nil {
		return nil, fmt.Errorf("open the directory for the copy: %w", err)
	}
	s.dir = d
	// The directory around it may be somebody else's, who can put another one in its place.
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil || int(st.Uid) != os.Geteuid() || st.Mode&0o7777 != 0o700 {
		d.Close()
		return nil, errors.Join(err, fmt.Errorf("the directory %s that was made for the copy is another one by now", s.name))
	}
	return s, nil
}

// remove removes what is in the directory by its descriptor: by its name, which the owner
// of the directory around it can give to another, only one that is empty.
func (s *stage) remove() error {
	defer s.dir.Close()
	fd := int(s.dir.Fd())
	names, err := untrusted.List(fd, mostTops)
	for _, name := range names {
		_, rerr := untrusted.NewRemover(fd, math.MaxInt).Remove(name)
		err = errors.Join(err, rerr)
	}
	if rerr := unix.Unlinkat(int(s.parent.Fd()), s.name, unix.AT_REMOVEDIR); rerr != nil {
		err = errors.Join(err, &os.PathError{Op: "remove", Path: s.name, Err: rerr})
	}
	if err != nil {
		return fmt.Errorf("remove what was copied in part: %w", err)
	}
	return nil
}

// mostTops is more than a copy has beside each other: one file or directory, and what
// was moved up while it is removed.
const mostTops = 1 << 20

type extraction struct {
	copying
	stage *os.File
	// top is the name that everything is below, "" before there is one.
	top  string
	dirs []madeDir
	buf  []byte
}

// madeDir is a directory whose attributes are set when everything is in it.
type madeDir struct {
	path  string
	attrs attributes
}

type attributes struct {
	mode     uint32
	uid, gid int
	mtime    time.Time
}

// attributesOf are those of a file on this host. Never set-user-ID: root of a sandbox
// chooses the owner and the content.
func (o *Options) attributesOf(h *tar.Header) attributes {
	a := attributes{uint32(h.Mode) & 0o777, -1, -1, h.ModTime}
	if o.Archive {
		a.uid, a.gid = h.Uid, h.Gid
	}
	if o.UID >= 0 {
		a.uid, a.gid = o.UID, o.GID
	}
	return a
}

func (x *extraction) extract(t *entries) error {
	for {
		h, parts, err := x.next(t)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case x.top == "" && len(parts) == 1:
			x.top = parts[0]
		case x.top != parts[0]:
			return fmt.Errorf("the sandbox has sent %q, which was not asked for", untrusted.Line(h.Name, 200))
		}
		if err := x.entry(t, h, strings.Join(parts, "/")); err != nil {
			return fmt.Errorf("%s: %w", untrusted.Line(h.Name, 300), err)
		}
	}
}

func (x *extraction) entry(t io.Reader, h *tar.Header, p string) error {
	parent, err := dirfd.Open(int(x.stage.Fd()), path.Dir(p), unix.O_PATH|unix.O_DIRECTORY, below)
	if err != nil {
		return err
	}
	defer parent.Close()
	dir, name := int(parent.Fd()), path.Base(p)
	switch h.Typeflag {
	case tar.TypeDir:
		x.dirs = append(x.dirs, madeDir{p, x.attributesOf(h)})
		return unix.Mkdirat(dir, name, 0o700)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, dir, name); err != nil {
			return err
		}
		a := x.attributesOf(h)
		if a.uid < 0 {
			return nil
		}
		return unix.Fchownat(dir, name, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	f, err := createAt(dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := x.write(f, content{t, &x.copying}, h.Size); err != nil {
		return err
	}
	if err := x.attributesOf(h).set(f); err != nil {
		return err
	}
	return f.Close()
}

// createAt creates a file that was not there. Nobody else can have opened it before its
// attributes are set.
func createAt(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

var zeros [64 << 10]byte

// write writes a file. What is zero becomes a hole: a file of a sandbox that is large by
// its holes only does not fill the disk.
func (x *extraction) write(f *os.File, r io.Reader, size int64) error {
	var at int64
	for at < size {
		n, err := io.ReadFull(r, x.buf[:min(int64(len(x.buf)), size-at)])
		if err != nil {
			return err
		}
		if !bytes.Equal(x.buf[:n], zeros[:n]) {
			if _, err := f.WriteAt(x.buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	return f.Truncate(size)
}

func (a attributes) set(f *os.File) error {
	if a.uid >= 0 {
		if err := f.Chown(a.uid, a.gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(os.FileMode(a.mode)); err != nil {
		return err
	}
	at := unix.NsecToTimespec(a.mtime.UnixNano())
	return unix.UtimesNanoAt(int(f.Fd()), "", []unix.Timespec{at, at}, unix.AT_EMPTY_PATH)
}

// setDirs sets the attributes of directories, the inner ones first.
func (x *extraction) setDirs() error {
	for _, d := range slices.Backward(x.dirs) {
		f, err := dirfd.Open(int(x.stage.Fd()), d.path, unix.O_RDONLY|unix.O_DIRECTORY, below)
		if err != nil {
			return err
		}
		err = d.attrs.set(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", untrusted.Line(d.path, 300), err)
		}
	}
	return nil
}

// Rewrite writes the tar of a sandbox again, as one that whoever reads it need not fear:
// checked as Extract does, with nothing of it but names, sizes, modes, times and, if they
// are kept, owners.
func Rewrite(w io.Writer, r io.Reader, o Options, finish func() error) (Report, error) {
	c := &copying{Options: o}
	t, out := entriesOf(r), tar.NewWriter(w)
	// What was written, and what it is. Who unpacks it may follow a link that an entry
	// before has made: nothing comes twice, and everything is in a directory that came.
	seen := map[string]byte{}
	for {
		h, parts, err := c.next(t)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = expected(seen, parts, h.Typeflag)
		}
		if err == nil {
			err = c.emit(out, t, h, strings.Join(parts, "/"), 0o777)
		}
		if err != nil {
			return c.Report, err
		}
	}
	// The end is not written before it is known that all is there.
	if err := finish(); err != nil {
		return c.Report, err
	}
	return c.Report, out.Close()
}

// expected says what is wrong with the place of an entry, and remembers it.
func expected(seen map[string]byte, parts []string, typ byte) error {
	name := strings.Join(parts, "/")
	if _, twice := seen[name]; twice {
		return fmt.Errorf("the sandbox sends %q twice", untrusted.Line(name, 200))
	}
	if len(parts) == 1 && len(seen) > 0 || len(parts) > 1 && seen[path.Dir(name)] != tar.TypeDir {
		return fmt.Errorf("the sandbox sends %q, which is not in what was asked for", untrusted.Line(name, 200))
	}
	seen[name] = typ
	return nil
}

// emit writes one entry of a tar.
func (c *copying) emit(out *tar.Writer, r io.Reader, h *tar.Header, name string, mask int64) error {
	n := &tar.Header{Typeflag: h.Typeflag, Name: name, Size: h.Size, Mode: h.Mode & mask, ModTime: h.ModTime, Linkname: h.Linkname, Format: tar.FormatPAX}
	if h.Typeflag == tar.TypeDir {
		n.Name += "/"
	}
	if c.Archive {
		n.Uid, n.Gid = h.Uid, h.Gid
	}
	if c.UID >= 0 {
		n.Uid, n.Gid = c.UID, c.GID
	}
	if err := out.WriteHeader(n); err != nil {
		return fmt.Errorf("%s: %w", untrusted.Line(name, 300), err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	if _, err := io.Copy(out, content{r, c}); err != nil {
		return fmt.Errorf("%s: %w", untrusted.Line(name, 300), err)
	}
	return nil
}
