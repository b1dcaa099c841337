// SPDX-License-Identifier: Apache-2.0

// Package packer makes a tar of a directory.
//
// The directory may be writable for others while it is read: each name is opened below
// its directory, and what was opened is what is read. No link is followed.
package packer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
)

// beneath is how names in the directory are opened.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// Pack reads a directory as a tar. The same tree gives the same bytes.
func Pack(ctx context.Context, dir string) (io.ReadCloser, error) {
	root, err := dirfd.Open(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	r, w := io.Pipe()
	go func() {
		defer root.Close()
		p := &packing{ctx: ctx, w: tar.NewWriter(w), links: map[inode]string{}}
		w.CloseWithError(p.run(root))
	}()
	return r, nil
}

type inode struct{ dev, ino uint64 }

type packing struct {
	ctx   context.Context
	w     *tar.Writer
	dev   uint64
	links map[inode]string // names of files that have several
}

func (p *packing) run(root *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return err
	}
	p.dev = st.Dev
	if err := p.w.WriteHeader(header(&st, "./", tar.TypeDir)); err != nil {
		return err
	}
	if err := p.directory(root, ""); err != nil {
		return err
	}
	return p.w.Close()
}

func header(st *unix.Stat_t, name string, kind byte) *tar.Header {
	return &tar.Header{
		Typeflag: kind, Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
}

func (p *packing) directory(d *os.File, prefix string) error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", path.Join("/", prefix), err)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		if err := p.entry(d, n, prefix+n); err != nil {
			return fmt.Errorf("%s: %w", prefix+n, err)
		}
	}
	return nil
}

func (p *packing) entry(d *os.File, name, full string) error {
	f, err := dirfd.Open(int(d.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was removed meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := p.links[inode{st.Dev, st.Ino}]; ok {
			h := header(&st, full, tar.TypeLink)
			h.Linkname = first
			return p.w.WriteHeader(h)
		}
		p.links[inode{st.Dev, st.Ino}] = full
	}
	switch kind {
	case unix.S_IFDIR:
		return p.subdirectory(d, &st, name, full)
	case unix.S_IFREG:
		return p.file(d, &st, name, full)
	case unix.S_IFLNK:
		h := header(&st, full, tar.TypeSymlink)
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.Fd()), "", b)
		if err != nil {
			return err
		}
		h.Linkname = string(b[:n])
		return p.w.WriteHeader(h)
	case unix.S_IFIFO:
		return p.w.WriteHeader(header(&st, full, tar.TypeFifo))
	}
	return nil // sockets and devices: nothing in a sandbox could use them
}

// subdirectory is a directory: of one where another file system is mounted, only that it
// is there.
func (p *packing) subdirectory(d *os.File, st *unix.Stat_t, name, full string) error {
	if err := p.w.WriteHeader(header(st, full+"/", tar.TypeDir)); err != nil || st.Dev != p.dev {
		return err
	}
	sub, err := p.open(d, st, name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer sub.Close()
	return p.directory(sub, full+"/")
}

func (p *packing) file(d *os.File, st *unix.Stat_t, name, full string) error {
	f, err := p.open(d, st, name, unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	h := header(st, full, tar.TypeReg)
	h.Size = st.Size
	if err := p.w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(p.w, io.LimitReader(f, st.Size))
	if err == nil && n != st.Size {
		err = errors.New("it became shorter while it was read")
	}
	return err
}

var errReplaced = errors.New("it was replaced while it was read")

// open opens for reading what was looked at.
func (p *packing) open(d *os.File, st *unix.Stat_t, name string, flags uint64) (*os.File, error) {
	f, err := dirfd.Open(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|flags, beneath)
	if err != nil {
		return nil, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		f.Close()
		return nil, err
	}
	if now.Dev != st.Dev || now.Ino != st.Ino {
		f.Close()
		return nil, errReplaced
	}
	return f, nil
}
