// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// rawStream reads and writes a file without Go's help. Go ends a program that
// writes to a pipe without a reader as its standard output, and knows only at the
// start whether a file blocks: a program that shares it may change that.
type rawStream struct{ fd int }

func reader(stream io.Reader) io.Reader {
	if f, ok := stream.(*os.File); ok {
		return rawStream{int(f.Fd())}
	}
	return stream
}

func writer(stream io.Writer) io.Writer {
	if f, ok := stream.(*os.File); ok {
		return rawStream{int(f.Fd())}
	}
	return stream
}

func (s rawStream) Read(b []byte) (n int, err error) {
	err = s.retry(unix.POLLIN, func() error {
		n, err = unix.Read(s.fd, b)
		return err
	})
	if n <= 0 && err == nil {
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (s rawStream) Write(b []byte) (written int, err error) {
	for written < len(b) {
		err := s.retry(unix.POLLOUT, func() error {
			n, err := unix.Write(s.fd, b[written:])
			written += max(n, 0)
			return err
		})
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// retry waits where the file does not block.
func (s rawStream) retry(event int16, call func() error) error {
	for {
		err := call()
		switch {
		case errors.Is(err, unix.EAGAIN):
			// Its own error is the one to tell.
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: event}}, -1)
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// wanted is a stream that ends when nobody reads a pipe any more: what comes
// afterwards is left in the stream, for its next reader.
type wanted struct {
	rawStream
	pipe int
}

func (w wanted) Read(b []byte) (int, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(w.pipe)}}
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for input: %w", err)
		case fds[1].Revents&unix.POLLERR != 0:
			return 0, io.EOF
		}
		return w.rawStream.Read(b)
	}
}

// sameFile says whether two streams lead to the same file.
func sameFile(a, b any) bool {
	f, ok1 := a.(*os.File)
	g, ok2 := b.(*os.File)
	if !ok1 || !ok2 {
		return false
	}
	fi, err1 := f.Stat()
	gi, err2 := g.Stat()
	return err1 == nil && err2 == nil && os.SameFile(fi, gi)
}
