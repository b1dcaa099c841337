// SPDX-License-Identifier: Apache-2.0

package source

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image/compression"
)

// files is a tree that an image is in: a directory or an archive.
type files interface {
	// open opens a file: ErrMissing if there is none.
	open(name string) (file, error)
	Close() error
}

// file is a file in it.
type file struct {
	io.ReaderAt
	io.Closer
	size int64
}

// read reads a small file.
func read(f files, name string, most int64) ([]byte, error) {
	in, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if in.size > most {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are read", ErrInvalid, name, in.size, most)
	}
	b := make([]byte, in.size)
	if _, err := io.ReadFull(io.NewSectionReader(in, 0, in.size), b); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// openLayer opens a layer for reading from an offset on.
func openLayer(f files, name string, offset int64) (io.ReadCloser, int64, error) {
	in, err := f.open(name)
	if err != nil {
		return nil, 0, err
	}
	offset = min(offset, in.size)
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(in, offset, in.size-offset), in}, offset, nil
}

// where is an absolute path, which must be below a directory if that is not empty.
type where struct{ beneath, path string }

func (w where) open(flags uint64) (*os.File, error) {
	if w.beneath == "" {
		return dirfd.Open(unix.AT_FDCWD, w.path, flags, unix.RESOLVE_NO_MAGICLINKS)
	}
	// The path is resolved once, here: what is swapped later changes nothing.
	const noLinks = unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	rel, err := filepath.Rel(w.beneath, w.path)
	if err != nil || !filepath.IsLocal(rel) {
		return nil, fmt.Errorf("%w: %s is not below %s", imageref.ErrInvalid, w.path, w.beneath)
	}
	if rel == "." {
		return dirfd.Open(unix.AT_FDCWD, w.path, flags, noLinks)
	}
	dir, err := dirfd.Open(unix.AT_FDCWD, w.beneath, unix.O_PATH|unix.O_DIRECTORY, noLinks)
	if err != nil {
		return nil, fmt.Errorf("the host policy allows %s: %w", w.beneath, err)
	}
	defer dir.Close()
	return dirfd.Open(int(dir.Fd()), rel, flags, noLinks|unix.RESOLVE_BENEATH)
}

// openRegular opens a file that is read as an archive. It waits for nobody: a fifo is
// refused.
func openRegular(name string, open func(flags uint64) (*os.File, error)) (*os.File, int64, error) {
	f, err := open(unix.O_RDONLY | unix.O_NONBLOCK)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, 0, fmt.Errorf("%w: there is no file %s", ErrMissing, name)
	case errors.Is(err, unix.EXDEV):
		// A layout may come from somebody else: its links must not read files of the host.
		return nil, 0, fmt.Errorf("%w: %s is a link that leads out of the layout; copy the layout with cp -rL", ErrInvalid, name)
	case err != nil:
		return nil, 0, openError(name, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrInvalid, name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func openError(name string, err error) error {
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: a component is a symbolic link, which could be changed to lead elsewhere; name the real path", err)
	}
	return fmt.Errorf("open %s: %w", name, err)
}

// directory is a directory. Links in it are followed as far as they stay in it.
type directory struct{ *os.File }

func openDirectory(at where) (directory, error) {
	f, err := at.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) {
		return directory{}, fmt.Errorf("%w: there is no directory %s", ErrMissing, at.path)
	}
	if err != nil {
		return directory{}, openError(at.path, err)
	}
	return directory{f}, nil
}

func (d directory) open(name string) (file, error) {
	f, size, err := openRegular(name, func(flags uint64) (*os.File, error) {
		return dirfd.Open(int(d.Fd()), name, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
	})
	if err != nil {
		return file{}, err
	}
	return file{f, f, size}, nil
}

// Bounds of an archive.
const (
	mostArchived = 100_000 // names
	mostHops     = 8       // from link to link
)

// archive is a tar. Its files are found once, and read where they are.
type archive struct {
	f     Temp
	found map[string]member
}

// Temp is a file that is read at any place, and may have been written before.
type Temp interface {
	io.ReadWriteSeeker
	io.ReaderAt
	io.Closer
}

// member is a file in the archive, or a link to one.
type member struct {
	offset, size int64
	link         string
}

// openArchive opens an archive. One that is compressed as a whole is written
// uncompressed to a temporary file first.
func openArchive(ctx context.Context, at where, tmp func() (Temp, error)) (*archive, error) {
	name := at.path
	f, _, err := openRegular(name, at.open)
	if err != nil {
		return nil, err
	}
	a := &archive{f: f, found: map[string]member{}}
	if err := a.expand(ctx, tmp); err != nil {
		a.f.Close()
		if errors.Is(err, compression.ErrInvalid) {
			err = fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return nil, fmt.Errorf("decompress %s: %w", name, err)
	}
	if err := a.index(ctx); err != nil {
		a.f.Close()
		return nil, fmt.Errorf("%w: %s is not an archive of docker, podman or skopeo: %w", ErrInvalid, name, err)
	}
	return a, nil
}

// expand replaces the file of a compressed archive.
func (a *archive) expand(ctx context.Context, tmp func() (Temp, error)) error {
	in := bufio.NewReaderSize(a.f, 128<<10)
	if head, err := in.Peek(4); err != nil || !compression.Is(head) {
		return nil // if it is too short, the index will tell
	}
	r, err := compression.Open(in)
	if err != nil {
		return err
	}
	defer r.Close()
	out, err := tmp()
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, cancellable{ctx, r}); err != nil {
		out.Close()
		return err
	}
	a.f.Close()
	a.f = out
	return nil
}

// cancellable ends a copy with its context.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c cancellable) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// index finds the files. It reads headers only: a tar.Reader seeks over the rest.
func (a *archive) index(ctx context.Context) error {
	if _, err := a.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for t := tar.NewReader(a.f); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF) && len(a.found) == 0:
			return errors.New("it is empty")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, tar.ErrInsecurePath):
			return err
		case len(a.found) >= mostArchived:
			return fmt.Errorf("it has more than %d files", mostArchived)
		}
		m := member{size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
			if m.offset, err = a.f.Seek(0, io.SeekCurrent); err != nil {
				return err
			}
		case tar.TypeSymlink:
			m.link = path.Join(path.Dir(h.Name), h.Linkname)
		case tar.TypeLink:
			m.link = path.Clean(h.Linkname)
		default:
			continue
		}
		a.found[path.Clean(h.Name)] = m
	}
}

func (a *archive) has(name string) bool {
	_, ok := a.found[name]
	return ok
}

// open follows links inside of the archive: docker has them for layers that are the same.
func (a *archive) open(name string) (file, error) {
	name = path.Clean(name)
	for range mostHops {
		m, ok := a.found[name]
		switch {
		case !ok:
			return file{}, fmt.Errorf("%w: %s is not in the archive", ErrMissing, name)
		case m.link == "":
			return file{io.NewSectionReader(a.f, m.offset, m.size), io.NopCloser(nil), m.size}, nil
		}
		name = m.link
	}
	return file{}, fmt.Errorf("%w: links in the archive lead to nothing", ErrInvalid)
}

// Close closes the archive.
func (a *archive) Close() error { return a.f.Close() }
