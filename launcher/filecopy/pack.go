// SPDX-License-Identifier: Apache-2.0

package filecopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/untrusted"
)

// Pack writes a file or directory of this host as a tar for a sandbox. file is open; below
// it no link is followed, and each name is looked up in an open directory, so that who
// renames meanwhile has nothing else copied.
func Pack(w io.Writer, file *os.File, name string, o Options) (Report, error) {
	p := &packing{copying: copying{Options: o}, out: tar.NewWriter(w)}
	if err := p.add(file, name, 0); err != nil {
		return p.Report, err
	}
	return p.Report, p.out.Close()
}

// PackStream writes a tar of somebody's as one for a sandbox.
func PackStream(w io.Writer, r io.Reader, o Options) (Report, error) {
	o.KeepLinks = true // they lead to something in the sandbox
	c := &copying{Options: o}
	t, out := entriesOf(r), tar.NewWriter(w)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return c.Report, out.Close()
		}
		if err != nil {
			return c.Report, fmt.Errorf("read archive on standard input: %w", err)
		}
		name := strings.TrimPrefix(h.Name, "./")
		if name == "" && h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
			// The directory itself, as tar c . has it; a comment. There are few of them.
			if c.unnamed++; c.unnamed > c.Entries {
				return c.Report, fmt.Errorf("more than %d files; --max-files allows more", c.Entries)
			}
			continue
		}
		if h.Typeflag == tar.TypeLink {
			return c.Report, fmt.Errorf("%s is a hard link, which is not copied: make the archive with tar --hard-dereference", untrusted.Line(name, 300))
		}
		parts, err := components(name)
		if err == nil {
			err = c.count(h)
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
		case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
			c.Skipped++
			continue
		default:
			h.Typeflag = tar.TypeReg // GNU tar's and old ones, which Go has read as files
		}
		if err == nil {
			err = c.emit(out, t, h, strings.Join(parts, "/"), 0o7777)
		}
		if err != nil {
			return c.Report, err
		}
	}
}

type packing struct {
	copying
	out *tar.Writer
}

func (p *packing) header(st *unix.Stat_t, name string, kind byte) *tar.Header {
	return &tar.Header{
		Typeflag: kind, Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
	}
}

func (p *packing) add(f *os.File, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", untrusted.Line(name, 300), err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h := p.header(&st, name, tar.TypeReg)
		h.Size = st.Size
		return p.write(h, io.LimitReader(f, st.Size))
	case unix.S_IFDIR:
		if err := p.write(p.header(&st, name, tar.TypeDir), nil); err != nil {
			return err
		}
		return p.children(f, name, depth)
	}
	return fmt.Errorf("%s is neither a regular file nor a directory", untrusted.Line(name, 300))
}

func (p *packing) write(h *tar.Header, r io.Reader) error {
	parts, err := components(h.Name)
	if err == nil {
		err = p.count(h)
	}
	if err != nil {
		return err
	}
	err = p.emit(p.out, r, h, strings.Join(parts, "/"), 0o7777)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s became shorter while it was read", h.Name)
	}
	return err
}

const batch = 1024

func (p *packing) children(dir *os.File, name string, depth int) error {
	if depth >= maxDepth {
		return fmt.Errorf("more than %d directories in each other", maxDepth)
	}
	for {
		names, err := dir.Readdirnames(batch)
		for _, n := range names {
			if err := p.child(dir, n, name+"/"+n, depth+1); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

const oneName = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS

func (p *packing) child(dir *os.File, n, name string, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		to := make([]byte, maxPath)
		k, err := unix.Readlinkat(int(dir.Fd()), n, to)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		h := p.header(&st, name, tar.TypeSymlink)
		h.Linkname = string(to[:k])
		return p.write(h, nil)
	case unix.S_IFREG, unix.S_IFDIR:
	default:
		p.Skipped++
		return nil
	}
	f, err := dirfd.Open(int(dir.Fd()), n, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, oneName)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	return p.add(f, name, depth)
}
