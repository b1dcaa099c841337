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

	"sandboxctl.dev/cmd/sandboxctl-sentry/clientsocket"
	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
	"sandboxctl.dev/launcher/wire"
)

// Out sends a file or directory of the sandbox to a client, in a goroutine of its own.
func Out(k *kernel.Kernel, work *clientwork.Work, socket int, p string, follow bool) error {
	return serve(work, socket, func(client *clientsocket.Socket) { out(k, work, client, p, follow) })
}

// serve runs f on a client's socket.
func serve(work *clientwork.Work, socket int, f func(*clientsocket.Socket)) error {
	client, err := clientsocket.New(socket, work.Stopped())
	if err != nil {
		work.End()
		return err
	}
	go func() {
		defer work.End()
		defer client.Close()
		f(client)
	}()
	return nil
}

func out(k *kernel.Kernel, work *clientwork.Work, client *clientsocket.Socket, p string, follow bool) {
	t, err := open(k)
	if err != nil {
		answer(client, err)
		return
	}
	defer t.close()
	abs, err := checkPath(p)
	var st linux.Statx
	if err == nil {
		st, err = t.stat(t.named(abs, follow))
	}
	if !answer(client, err) {
		return
	}
	frames := wire.NewFrameWriter(client)
	s := &sender{tree: t, work: work, tar: tar.NewWriter(frames), buf: make([]byte, 64<<10)}
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
func answer(client *clientsocket.Socket, err error) bool {
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
	work    *clientwork.Work
	tar     *tar.Writer
	buf     []byte
	skipped int64
}

func (s *sender) stopped() error {
	select {
	case <-s.work.Stopped():
		return clientwork.ErrQuiet
	default:
		return nil
	}
}

// add adds what an operation leads to. What vanishes meanwhile below a directory is left
// out by the caller.
func (s *sender) add(op *vfs.PathOperation, name string, st linux.Statx, depth int) error {
	if err := s.stopped(); err != nil {
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
		if err := s.stopped(); err != nil {
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
		names, err := s.names(fd)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, n := range names {
			if err := checkName(n); err != nil {
				return err
			}
			child := s.in(fd, n)
			st, err := s.stat(child)
			if notThere(err) {
				continue
			}
			if err == nil {
				err = s.add(child, name+"/"+n, st, depth+1)
			}
			if notThere(err) {
				continue // nothing of it was written
			}
			if _, told := errors.AsType[*fileError](err); err != nil && !told {
				err = &fileError{name + "/" + n, err}
			}
			if err != nil {
				return err
			}
		}
	}
}

// errFull ends a batch.
var errFull = errors.New("enough names")

func (s *sender) names(fd *vfs.FileDescription) (names []string, err error) {
	err = fd.IterDirents(s.ctx, vfs.IterDirentsCallbackFunc(func(d vfs.Dirent) error {
		if len(names) >= batch {
			return errFull
		}
		if d.Name != "." && d.Name != ".." {
			names = append(names, d.Name)
		}
		return nil
	}))
	if errors.Is(err, errFull) {
		err = nil
	}
	return names, err
}

// fileError says which file an error is about.
type fileError struct {
	name string
	err  error
}

func (e *fileError) Error() string { return e.name + ": " + e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }
