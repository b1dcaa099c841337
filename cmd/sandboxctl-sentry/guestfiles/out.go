// SPDX-License-Identifier: Apache-2.0

package guestfiles

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"

	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
	"sandboxctl.dev/launcher/wire"
)

// Out sends a file or directory of the sandbox to a client, in a goroutine of its own.
func Out(k *kernel.Kernel, work *clientwork.Work, socket int, p string, follow bool) error {
	return serveFiles(k, work, socket, func(t *tree, c *client) { out(t, c, p, follow) })
}

func out(t *tree, client *client, p string, follow bool) {
	abs, err := checkPath(p)
	var st linux.Statx
	if err == nil {
		st, err = t.stat(t.named(abs, follow))
	}
	if !answer(client, err) {
		return
	}
	frames := wire.NewFrameWriter(client)
	s := &sender{tree: t, client: client, tar: tar.NewWriter(frames), buf: make([]byte, 64<<10)}
	name := path.Base(abs)
	if name == "/" {
		name = "root" // the client has a name of its own for it
	}
	err = s.add(t.named(abs, follow), name, st, 0)
	if err == nil {
		err = s.tar.Close()
	}
	result := wire.CopyResult{Skipped: s.skipped}
	if err != nil {
		result.Error = err.Error()
	}
	_ = frames.End(&result) // the client may be gone
}

// answer writes the first line: empty, or an error.
func answer(client *client, err error) bool {
	line := ""
	if err != nil {
		line = err.Error()
	}
	_, werr := client.Write([]byte(line + "\n"))
	return err == nil && werr == nil
}

// sender writes a tar of files of the sandbox.
type sender struct {
	*tree
	client  *client
	tar     *tar.Writer
	buf     []byte
	skipped int64
}

// add adds what an operation leads to. What vanishes meanwhile below a directory is left
// out by the caller.
func (s *sender) add(op *vfs.PathOperation, name string, st linux.Statx, depth int) error {
	if err := s.client.stopped(); err != nil {
		return err
	}
	if len(name) > maxPath {
		return fmt.Errorf("a path of %d bytes, expected at most %d", len(name), maxPath)
	}
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.UID), Gid: int(st.GID),
		ModTime: time.Unix(st.Mtime.Sec, 0), Format: tar.FormatPAX,
	}
	switch kind(st) {
	case linux.ModeDirectory:
		return s.addDir(op, h, depth)
	case linux.ModeRegular:
		return s.addFile(op, h)
	case linux.ModeSymlink:
		to, err := s.vfs.ReadlinkAt(s.ctx, s.creds, op)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, to
		return s.tar.WriteHeader(h)
	}
	if depth == 0 {
		return errors.New("it is neither a regular file nor a directory nor a symbolic link")
	}
	s.skipped++
	return nil
}

func (s *sender) addFile(op *vfs.PathOperation, h *tar.Header) error {
	fd, st, err := s.openAt(op, linux.O_RDONLY)
	if err != nil {
		return err
	}
	defer fd.DecRef(s.ctx)
	if kind(st) != linux.ModeRegular {
		return errors.New("it has become another kind of file while it was read")
	}
	h.Typeflag, h.Size = tar.TypeReg, int64(st.Size)
	if err := s.tar.WriteHeader(h); err != nil {
		return err
	}
	// As many bytes as were announced: a file that grows could have no end. Files of
	// procfs say that they have none.
	for at := int64(0); at < h.Size; {
		if err := s.client.stopped(); err != nil {
			return err
		}
		n, err := fd.PRead(s.ctx, usermem.BytesIOSequence(s.buf[:min(int64(len(s.buf)), h.Size-at)]), at, vfs.ReadOptions{})
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return errors.New("it became shorter while it was read")
		}
		if _, err := s.tar.Write(s.buf[:n]); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// batch is how many names of a directory are read at once.
const batch = 512

func (s *sender) addDir(op *vfs.PathOperation, h *tar.Header, depth int) error {
	if depth >= maxDepth {
		return fmt.Errorf("more than %d directories in each other", maxDepth)
	}
	fd, st, err := s.openAt(op, linux.O_RDONLY|linux.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer fd.DecRef(s.ctx)
	if !isDir(st) {
		return errors.New("it has become another kind of file while it was read")
	}
	h.Typeflag = tar.TypeDir
	name := h.Name
	h.Name += "/"
	if err := s.tar.WriteHeader(h); err != nil {
		return err
	}
	for {
		names, more, err := s.names(fd)
		if err != nil || !more {
			return err
		}
		for _, n := range names {
			if err := s.addChild(fd, name, n, depth+1); err != nil {
				return err
			}
		}
	}
}

// addChild adds what has a name in a directory, if it is still there.
func (s *sender) addChild(dir *vfs.FileDescription, in, n string, depth int) error {
	if err := s.client.stopped(); err != nil {
		return err
	}
	if err := checkName(n); err != nil {
		return err
	}
	child := s.in(dir, n)
	st, err := s.stat(child)
	if err == nil {
		err = s.add(child, in+"/"+n, st, depth)
	}
	if err == nil || notThere(err) {
		return nil // nothing of it was written
	}
	if _, told := errors.AsType[*fileError](err); !told {
		err = &fileError{in + "/" + n, err}
	}
	return err
}

// errFull ends a batch.
var errFull = errors.New("enough names")

// names reads some names of a directory. more says that there was anything at all: a file
// system may have nothing but the directory itself among the first ones.
func (s *sender) names(fd *vfs.FileDescription) (names []string, more bool, err error) {
	if err := s.client.stopped(); err != nil {
		return nil, false, err
	}
	err = fd.IterDirents(s.ctx, vfs.IterDirentsCallbackFunc(func(d vfs.Dirent) error {
		if err := s.client.stopped(); err != nil {
			return err
		}
		if len(names) >= batch {
			return errFull
		}
		more = true
		if d.Name != "." && d.Name != ".." {
			names = append(names, d.Name)
		}
		return nil
	}))
	if errors.Is(err, errFull) {
		err = nil
	}
	return names, more, err
}

// fileError says which file an error is about.
type fileError struct {
	name string
	err  error
}

func (e *fileError) Error() string { return e.name + ": " + e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }
