// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/launcher/tarend"
	"sandboxctl.dev/launcher/volume/freshdir"
)

// Limits bound what an archive may become. Who has made it is not trusted.
type Limits struct {
	// Bytes are those of all files, holes too; 0 is what is free on the disk.
	Bytes int64
	// Files is how many there may be; 0 is what the disk has room for.
	Files int64
	// Size is what the volume is declared to hold, 0 if nobody says.
	Size int64
}

var (
	// ErrArchive says that an archive is refused.
	ErrArchive = errors.New("the archive is refused")
	errCut     = fmt.Errorf("%w: it was cut short", ErrArchive)
)

// Restore makes a volume of an archive: ErrExists if there is one. The volume is there when
// all of it is on the disk, and not before.
func (s *Store) Restore(ctx context.Context, name string, r io.Reader, most Limits) error {
	v, declared, err := s.claim(ctx, name)
	if err != nil {
		return err
	}
	defer v.Close()
	most.Size = cmp.Or(most.Size, declared)
	if err := v.restore(ctx, r, most); err != nil {
		// Nothing has seen it: what there is of it goes, also where the caller ends.
		return errors.Join(err, v.discard(context.WithoutCancel(ctx)))
	}
	return nil
}

// claim makes and locks the directory of a new volume. size is that of an unused one there.
func (s *Store) claim(ctx context.Context, name string) (v *Volume, size int64, err error) {
	for {
		v, err = s.lock(ctx, name, unix.LOCK_EX, lockPatience)
		if errors.Is(err, ErrNotFound) {
			if err := s.makeEntry(name); err != nil {
				return nil, 0, err
			}
			continue
		}
		if v == nil && err == nil {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		empty, err := freshdir.Empty(v.dir)
		if err == nil && empty {
			return v, size, nil
		}
		unfinished, untouched := false, false // untouched: declared, and nothing has used it
		if err == nil {
			unfinished, err = v.unfinished()
		}
		if err == nil && !unfinished {
			untouched, err = v.untouched()
		}
		switch {
		case err != nil:
		case unfinished: // of a restore or a start that was killed, with a size of its own time
			err = v.discard(ctx)
		case untouched:
			size, err = v.Size, v.discard(ctx)
		default:
			err = fmt.Errorf("%w: %s; remove it first, or restore under another name", ErrExists, name)
		}
		v.Close()
		if err != nil {
			return nil, 0, err
		}
	}
}

func (v *Volume) restore(ctx context.Context, r io.Reader, most Limits) error {
	// First of all: what is there without it is somebody's.
	if err := v.writeMeta(Meta{Restoring: true, Size: most.Size}); err != nil {
		return err
	}
	to, err := v.openOrMakeData()
	if err != nil {
		return err
	}
	defer to.Close()
	if err := rootOf(nil).give(to); err != nil { // this program's umask must not decide
		return err
	}
	if err := v.claimSized(ctx, to, most.Size); err != nil {
		return err
	}
	u := &unpacking{ctx: ctx, to: to, left: most, disk: room.NewGauge(to)}
	if err := u.bound(); err != nil {
		return err
	}
	end := &tarend.Reader{From: r}
	if err := u.all(tar.NewReader(end)); err != nil {
		if most.Size != 0 && errors.Is(err, unix.EDQUOT) {
			err = fmt.Errorf("%w: it holds more than the size of the volume, which is declared as %d bytes: %w", ErrArchive, most.Size, err)
		}
		return err
	}
	if !end.Ends() {
		return errCut
	}
	if _, err := io.Copy(tarend.Behind{Empty: u.entries == 0}, whileWanted{ctx: ctx, r: r}); err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	// All of it, before anything says that it is there.
	if err := crashpoint.Do(crashpoint.VolumeSync, func() error { return unix.Syncfs(int(to.Fd())) }); err != nil {
		return fmt.Errorf("write to the disk: %w", err)
	}
	return v.writeMeta(Meta{Project: v.Project, Size: most.Size})
}

// unpacking is one archive on its way into a directory that nobody else can reach.
type unpacking struct {
	ctx  context.Context //nolint:containedctx // of the one restore that it is for
	to   *os.File
	left Limits
	disk *room.Gauge
	ours bool
	// entries are those that there were, also those that are no files.
	entries int
}

// bound completes the limits by what the disk has room for.
func (u *unpacking) bound() error {
	if err := u.disk.Look(); err != nil {
		return err
	}
	bytes, files, err := room.Of(u.to)
	if err != nil {
		return err
	}
	if u.left.Bytes == 0 {
		u.left.Bytes = bytes
	}
	if u.left.Files == 0 {
		u.left.Files = files
	}
	return nil
}

func (u *unpacking) all(t *tar.Reader) error {
	whole := false
	for {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return errCut
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrArchive, err)
		}
		u.entries++
		if h.Typeflag == tar.TypeXGlobalHeader {
			u.ours = u.ours || h.PAXRecords[beginsRecord] != ""
			whole = whole || h.PAXRecords[endsRecord] != ""
			continue
		}
		if u.left.Files--; u.left.Files < 0 {
			return fmt.Errorf("%w: it has too many files for the disk", ErrArchive)
		}
		if u.left.Bytes -= h.Size; h.Size < 0 || u.left.Bytes < 0 {
			return fmt.Errorf("%w: its files are larger than the disk has room for, or than --max-size allows", ErrArchive)
		}
		err = u.disk.Look()
		if err == nil {
			err = crashpoint.Do(crashpoint.VolumeEntry, func() error { return u.entry(h, t) })
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return errCut
			}
			return fmt.Errorf("%s: %w", shown(h.Name), err)
		}
	}
	if u.ours && !whole {
		return errCut
	}
	if u.ctx.Err() != nil { // who has ended it may have ended what it reads from
		return context.Cause(u.ctx)
	}
	return nil
}

// plain is the path in the volume that a name in an archive means.
func plain(name string) (string, error) {
	p := strings.TrimPrefix(path.Clean("./"+strings.TrimSuffix(name, "/")), "./")
	if strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) || !filepath.IsLocal(p) || strings.Contains("/"+name+"/", "/../") {
		return "", fmt.Errorf("%w: the name leads out of the volume", ErrArchive)
	}
	if strings.Count(p, "/") > maxDepth { // of any length: directories are opened one by one
		return "", fmt.Errorf("%w: %w", ErrArchive, errTooDeep)
	}
	return p, nil
}

// parent opens the directory that an entry is in. What is missing of the way is made. Links
// that the archive has put there are not followed.
func (u *unpacking) parent(p string) (*os.File, string, error) {
	dir, err := openDir(u.to, ".", unix.O_RDONLY)
	if err != nil {
		return nil, "", err
	}
	if d := path.Dir(p); d != "." {
		dir, err = openSubPath(dir, d, rootOf(nil), false)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		err = fmt.Errorf("%w: %w", ErrArchive, err)
	}
	return dir, path.Base(p), err
}

func (u *unpacking) entry(h *tar.Header, r io.Reader) error {
	p, err := plain(h.Name)
	if err != nil {
		return err
	}
	for _, id := range []int{h.Uid, h.Gid} {
		if id < 0 || id >= math.MaxUint32 { // the kernel would take it for another one, or for none
			return fmt.Errorf("%w: %d is no id", ErrArchive, id)
		}
	}
	if p == "." {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the volume itself is a directory", ErrArchive)
		}
		return finish(u.to, h)
	}
	dir, name, err := u.parent(p)
	if err != nil {
		return err
	}
	defer dir.Close()
	fd := int(dir.Fd())
	switch h.Typeflag {
	case tar.TypeDir:
		if err := unix.Mkdirat(fd, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		d, err := openDir(dir, name, unix.O_RDONLY)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrArchive, err)
		}
		defer d.Close()
		return finish(d, h)
	case tar.TypeReg:
		return u.file(dir, name, h, whileWanted{ctx: u.ctx, r: r})
	case tar.TypeLink:
		return u.link(dir, name, h.Linkname)
	case tar.TypeSymlink:
		// It is never followed here, and leads inside of a sandbox later.
		if err := unix.Symlinkat(h.Linkname, fd, name); err != nil {
			return err
		}
	case tar.TypeFifo:
		// Nobody else can reach it. Its mode is no matter of this program's umask.
		if err := unix.Mknodat(fd, name, unix.S_IFIFO, 0); err != nil {
			return err
		}
		if err := unix.Fchmodat(fd, name, uint32(h.Mode)&0o777, 0); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: entries of type %q are not restored", ErrArchive, h.Typeflag)
	}
	err = unix.Fchownat(fd, name, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW)
	return errors.Join(err, setTime(fd, name, h))
}

// link makes another name of a regular file that was restored before.
func (u *unpacking) link(dir *os.File, name, target string) error {
	p, err := plain(target)
	if err != nil {
		return err
	}
	from, base, err := u.parent(p)
	if err != nil {
		return err
	}
	defer from.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%w: it is a hard link to %s: %w", ErrArchive, shown(target), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("%w: it is a hard link to a directory", ErrArchive)
	}
	return unix.Linkat(int(from.Fd()), base, int(dir.Fd()), name, 0)
}

func (u *unpacking) file(dir *os.File, name string, h *tar.Header, r io.Reader) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if _, err := io.CopyBuffer(&withHoles{f: f, disk: u.disk}, r, make([]byte, holeUnit)); err != nil {
		return err
	}
	if err := f.Truncate(h.Size); err != nil {
		return err
	}
	return finish(f, h)
}

// holeUnit is how much of zeros in a row becomes a hole.
const holeUnit = 4 << 10

// withHoles writes a file, and leaves out what is zeros.
type withHoles struct {
	f    *os.File
	disk *room.Gauge
	at   int64
}

var noData [holeUnit]byte

func (w *withHoles) Write(b []byte) (int, error) {
	if !bytes.Equal(b, noData[:len(b)]) {
		if err := w.disk.Grow(len(b)); err != nil {
			return 0, err
		}
		err := crashpoint.Do(crashpoint.VolumeWrite, func() error {
			_, err := w.f.WriteAt(b, w.at)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	w.at += int64(len(b))
	return len(b), nil
}

// finish gives an open file or directory its owner, attributes, mode and time, in this order:
// each takes something of those after it away.
func finish(f *os.File, h *tar.Header) error {
	if err := f.Chown(h.Uid, h.Gid); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || !restorable(name) {
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0); err != nil {
			return fmt.Errorf("set the extended attribute %q: %w", name, err)
		}
	}
	if err := unix.Fchmod(int(f.Fd()), uint32(h.Mode)&0o7777); err != nil {
		return err
	}
	return setTime(int(f.Fd()), "", h)
}

func setTime(fd int, name string, h *tar.Header) error {
	at, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return fmt.Errorf("%w: its time: %w", ErrArchive, err)
	}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{at, at}, flags)
}
