// SPDX-License-Identifier: Apache-2.0

package guestfiles

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"

	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
	"sandboxctl.dev/launcher/wire"
)

// In writes what a client sends into the sandbox, in a goroutine of its own.
func In(k *kernel.Kernel, work *clientwork.Work, socket int, p string, into bool) error {
	return serveFiles(k, work, socket, func(t *tree, c *client) { in(t, c, p, into) })
}

func in(t *tree, client *client, p string, into bool) {
	r := &receiver{tree: t, client: client, buf: make([]byte, 64<<10)}
	parent, err := r.destination(p, into)
	if !answer(client, err) {
		return
	}
	r.dirs = []openDir{{fd: parent}}
	frames := wire.NewFrameReader(client)
	err = r.receive(tar.NewReader(frames))
	err = errors.Join(err, r.leave(0))
	var result wire.CopyResult
	if err != nil {
		result.Error = err.Error()
		_ = client.EndRead() // ends what the client still sends
	}
	_ = wire.NewFrameWriter(client).End(&result) // the client may be gone
}

// receiver writes files of a tar into the sandbox.
type receiver struct {
	*tree
	client *client
	buf    []byte
	// top replaces the first component of each name, "" for none.
	top string
	// dirs are the directory that all is below, and those below it that are open.
	dirs []openDir
}

// openDir is a directory that is written to. Its attributes are set when it is left: each
// file in it changes its time.
type openDir struct {
	fd     *vfs.FileDescription
	name   string
	header *tar.Header // nil if it was not in the tar
}

// destination opens the directory that is written to.
func (r *receiver) destination(p string, into bool) (*vfs.FileDescription, error) {
	abs, err := checkPath(p)
	if err != nil {
		return nil, err
	}
	st, err := r.stat(r.named(abs, true))
	switch {
	case err == nil && isDir(st):
	case err != nil && !notThere(err):
		return nil, err
	case into || strings.HasSuffix(p, "/"):
		return nil, errors.New("there is no such directory in the sandbox")
	default:
		r.top = path.Base(abs)
		abs = path.Dir(abs)
	}
	fd, _, err := r.openAt(r.named(abs, true), linux.O_RDONLY|linux.O_DIRECTORY)
	if notThere(err) {
		return nil, fmt.Errorf("there is no directory %s in the sandbox", abs)
	}
	return fd, err
}

func (r *receiver) receive(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.client.stopped(); err != nil {
			return err
		}
		if err := r.add(t, h); err != nil {
			return &fileError{h.Name, err}
		}
	}
}

// add writes one entry.
func (r *receiver) add(content io.Reader, h *tar.Header) error {
	parts := strings.Split(strings.TrimSuffix(h.Name, "/"), "/")
	if r.top != "" {
		parts[0] = r.top
	}
	if len(parts) > maxDepth {
		return fmt.Errorf("more than %d directories in each other", maxDepth)
	}
	for _, p := range parts {
		if err := checkName(p); err != nil {
			return err
		}
	}
	last := len(parts) - 1
	if err := r.enter(parts[:last]); err != nil {
		return err
	}
	dir, name := r.dirs[len(r.dirs)-1].fd, parts[last]
	switch h.Typeflag {
	case tar.TypeDir:
		return r.makeDir(dir, name, h)
	case tar.TypeReg:
		return r.replace(dir, name, func(temp string) error { return r.writeFile(dir, temp, content, h) })
	case tar.TypeSymlink:
		return r.replace(dir, name, func(temp string) error {
			if err := r.vfs.SymlinkAt(r.ctx, r.creds, r.in(dir, temp), h.Linkname); err != nil {
				return err
			}
			return r.vfs.SetStatAt(r.ctx, r.creds, r.in(dir, temp), &vfs.SetStatOptions{Stat: linux.Statx{
				Mask: linux.STATX_UID | linux.STATX_GID, UID: uint32(h.Uid), GID: uint32(h.Gid),
			}})
		})
	}
	return fmt.Errorf("entry of type %q, expected a file, a directory or a symbolic link", h.Typeflag)
}

// enter opens the directories of a path, and leaves those that are not on it.
func (r *receiver) enter(parts []string) error {
	same := 0
	for same < len(parts) && same+1 < len(r.dirs) && r.dirs[same+1].name == parts[same] {
		same++
	}
	if err := r.leave(same + 1); err != nil {
		return err
	}
	for _, name := range parts[same:] {
		dir := r.dirs[len(r.dirs)-1].fd
		fd, _, err := r.openAt(r.in(dir, name), linux.O_RDONLY|linux.O_DIRECTORY)
		if err != nil {
			return err
		}
		r.dirs = append(r.dirs, openDir{fd: fd, name: name})
	}
	return nil
}

// leave closes directories until there are n.
func (r *receiver) leave(n int) (err error) {
	for len(r.dirs) > n {
		d := r.dirs[len(r.dirs)-1]
		r.dirs = r.dirs[:len(r.dirs)-1]
		if d.header != nil {
			err = errors.Join(err, d.fd.SetStat(r.ctx, attributesOf(d.header)))
		}
		d.fd.DecRef(r.ctx)
	}
	return err
}

func attributesOf(h *tar.Header) vfs.SetStatOptions {
	at := linux.NsecToStatxTimestamp(h.ModTime.UnixNano())
	return vfs.SetStatOptions{Stat: linux.Statx{
		Mask: linux.STATX_MODE | linux.STATX_UID | linux.STATX_GID | linux.STATX_ATIME | linux.STATX_MTIME,
		Mode: uint16(h.Mode & 0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid), Atime: at, Mtime: at,
	}}
}

// makeDir makes a directory and stays in it. One that is there is written to, and keeps
// its attributes.
func (r *receiver) makeDir(dir *vfs.FileDescription, name string, h *tar.Header) error {
	err := r.vfs.MkdirAt(r.ctx, r.creds, r.in(dir, name), &vfs.MkdirOptions{Mode: 0o700})
	there := linuxerr.Equals(linuxerr.EEXIST, err)
	if err != nil && !there {
		return err
	}
	fd, _, err := r.openAt(r.in(dir, name), linux.O_RDONLY|linux.O_DIRECTORY)
	if err != nil {
		return err
	}
	if there {
		h = nil
	}
	r.dirs = append(r.dirs, openDir{fd, name, h})
	return nil
}

// replace has make create a new name, and gives it the name wanted when it is whole.
func (r *receiver) replace(dir *vfs.FileDescription, name string, create func(temp string) error) error {
	temp := fmt.Sprintf(".sandboxctl-cp-%016x", rand.Uint64())
	err := create(temp)
	if err == nil {
		err = r.vfs.RenameAt(r.ctx, r.creds, r.in(dir, temp), r.in(dir, name), &vfs.RenameOptions{})
	}
	if err != nil && !linuxerr.Equals(linuxerr.EEXIST, err) {
		_ = r.vfs.UnlinkAt(r.ctx, r.creds, r.in(dir, temp)) // it may not be there
	}
	return err
}

// writeFile writes a new file. What is zero becomes a hole.
func (r *receiver) writeFile(dir *vfs.FileDescription, temp string, content io.Reader, h *tar.Header) error {
	fd, err := r.vfs.OpenAt(r.ctx, r.creds, r.in(dir, temp), &vfs.OpenOptions{
		Flags: linux.O_WRONLY | linux.O_CREAT | linux.O_EXCL | linux.O_NOFOLLOW | linux.O_LARGEFILE, Mode: 0o600,
	})
	if err != nil {
		return err
	}
	defer fd.DecRef(r.ctx)
	size := int64(0)
	for {
		if err := r.client.stopped(); err != nil {
			return err
		}
		n, err := io.ReadFull(content, r.buf)
		if werr := r.writeAt(fd, r.buf[:n], size); werr != nil {
			return werr
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && size == h.Size {
			break
		}
		if err != nil {
			return err
		}
	}
	if size > 0 {
		if err := fd.SetStat(r.ctx, vfs.SetStatOptions{Stat: linux.Statx{Mask: linux.STATX_SIZE, Size: uint64(size)}}); err != nil {
			return err
		}
	}
	return fd.SetStat(r.ctx, attributesOf(h))
}

var zeros [64 << 10]byte

func (r *receiver) writeAt(fd *vfs.FileDescription, b []byte, at int64) error {
	if bytes.Equal(b, zeros[:len(b)]) {
		return nil
	}
	for len(b) > 0 {
		n, err := fd.PWrite(r.ctx, usermem.BytesIOSequence(b), at, vfs.WriteOptions{})
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		b, at = b[n:], at+n
	}
	return nil
}
