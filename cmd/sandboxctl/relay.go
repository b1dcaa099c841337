// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// relay connects our streams with a command in a sandbox. The command gets pipes
// of the relay's own and never a stream of ours: a sentry makes what it is given
// non-blocking, for everybody who has the same open file; a terminal can be read
// through each stream that leads to it; and in a regular file a sentry keeps an
// offset of its own, from 0, and would write over what is there.
type relay struct {
	given  []*os.File // the command's ends, ours to close when it has its own
	outs   []*outlet
	ended  *os.File // closed when the command has ended
	wait   *os.File // its read end, which every outlet waits for
	copies sync.WaitGroup
	// broken is told when a stream of the command is not taken any more. The pipe
	// stays open until what it is told was closed: so a command that is to get
	// SIGPIPE gets that first, and then the error of its write.
	broken chan chan struct{}
	over   chan struct{} // closed with ended
}

// newRelay returns a relay, which finish or abort must end.
func newRelay() (*relay, error) {
	r := &relay{broken: make(chan chan struct{}), over: make(chan struct{})}
	var err error
	r.wait, r.ended, err = blockingPipe()
	return r, err
}

// blockingPipe makes a pipe that blocks. A process that is given an end shares its
// O_NONBLOCK flag with us.
func blockingPipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("create pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// empty gives an input that has ended.
func (r *relay) empty() (*os.File, error) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	r.given = append(r.given, f)
	return f, nil
}

// input gives a stream to read from. The command reads its end when the stream
// ends.
func (r *relay) input(stream io.Reader) (*os.File, error) {
	pr, pw, err := blockingPipe()
	if err != nil {
		return nil, err
	}
	r.given = append(r.given, pr)
	r.feed(pw, stream)
	return pr, nil
}

// feed copies a stream into a pipe until it ends or nobody reads the pipe any
// more, and closes the pipe.
func (r *relay) feed(pipe *os.File, stream io.Reader) (ended chan struct{}) {
	ended = make(chan struct{})
	from := reader(stream)
	if raw, ok := from.(rawStream); ok {
		from = wanted{raw, int(pipe.Fd())}
	}
	go func() {
		defer close(ended)
		// No error of ours, whichever of the two it was.
		_, _ = io.Copy(pipe, from)
		_ = pipe.Close()
	}()
	return ended
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

// output gives a stream to write to.
func (r *relay) output(stream io.Writer) (*os.File, error) {
	pr, pw, err := blockingPipe()
	if err != nil {
		return nil, err
	}
	r.given = append(r.given, pw)
	r.drain(pr, stream)
	return pw, nil
}

// outputs gives two streams to write to. Two that lead to the same file are one, as
// otherwise what is written to them would not keep its order.
func (r *relay) outputs(stdout, stderr io.Writer) (out, errs *os.File, err error) {
	if out, err = r.output(stdout); err != nil || sameFile(stdout, stderr) {
		return out, out, err
	}
	errs, err = r.output(stderr)
	return out, errs, err
}

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

// drain copies from a pipe to a stream.
func (r *relay) drain(pipe *os.File, stream io.Writer) {
	o := &outlet{pipe: pipe, to: writer(stream)}
	if isTerminal(stream) {
		o.to = &terminalFilter{to: o.to}
	}
	r.copy(o)
}

// terminal copies what a command writes on the terminal whose master is pty.
func (r *relay) terminal(pty console.Console, stream io.Writer) error {
	fd, err := unix.FcntlInt(pty.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicate terminal: %w", err)
	}
	r.copy(&outlet{pipe: os.NewFile(uintptr(fd), "terminal"), to: writer(stream), terminal: true})
	return nil
}

func (r *relay) copy(o *outlet) {
	r.outs = append(r.outs, o)
	wait := int(r.wait.Fd())
	r.copies.Go(func() {
		if o.err = o.copy(wait); o.err != nil {
			r.tell()
		}
		o.err = errors.Join(o.err, o.pipe.Close())
	})
}

// tell tells that a stream is broken, if somebody listens.
func (r *relay) tell() {
	told := make(chan struct{})
	select {
	case r.broken <- told:
		<-told
	case <-r.over:
	}
}

// streams gives all three.
func (r *relay) streams(a *app) (out [3]*os.File, err error) {
	if out[0], err = r.input(a.stdin); err != nil {
		return out, err
	}
	out[1], out[2], err = r.outputs(a.stdout, a.stderr)
	return out, err
}

// started closes our copies of what the sandbox has now: when it closes its
// own, the copies come to their end.
func (r *relay) started() error {
	var errs []error
	for _, f := range r.given {
		errs = append(errs, f.Close())
	}
	r.given = nil
	return errors.Join(errs...)
}

// finish copies what the command has written, and no more: what it left in the
// background may keep its streams open for ever. The reader of a stream that went
// away is no error; the command was told.
func (r *relay) finish() error {
	close(r.over)
	err := r.ended.Close()
	r.copies.Wait()
	err = errors.Join(err, r.wait.Close())
	for _, o := range r.outs {
		if !errors.Is(o.err, unix.EPIPE) {
			err = errors.Join(err, o.err)
		}
	}
	return err
}

// abort releases what was given if the command did not start, and does nothing
// after started.
func (r *relay) abort() error {
	if r.given == nil {
		return nil
	}
	return errors.Join(r.started(), r.finish())
}

// outlet copies from a pipe, or from the master of a terminal, to a stream.
type outlet struct {
	pipe     *os.File
	to       io.Writer
	terminal bool
	err      error
}

// copy copies until the pipe ends, the stream fails, or wait ends; then it copies
// what is in the pipe by now.
func (o *outlet) copy(wait int) error {
	pipe := int(o.pipe.Fd())
	buf := make([]byte, 64<<10)
	for {
		fds := []unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}, {Fd: int32(wait), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for output: %w", err)
		}
		if fds[1].Revents != 0 {
			return o.rest(pipe, buf)
		}
		if fds[0].Revents == 0 {
			continue
		}
		if n, err := o.move(pipe, buf); n == 0 {
			return err
		}
	}
}

// maxTerminalRest bounds what is copied of a terminal after the command has ended,
// which may have left something that goes on writing. It is more than the kernel
// keeps.
const maxTerminalRest = 1 << 20

func (o *outlet) rest(pipe int, buf []byte) error {
	if o.terminal {
		return o.terminalRest(pipe, buf)
	}
	left, err := unix.IoctlGetInt(pipe, unix.TIOCINQ)
	if err != nil {
		return fmt.Errorf("look for output: %w", err)
	}
	for left > 0 {
		n, err := o.move(pipe, buf[:min(left, len(buf))])
		if n == 0 {
			return err
		}
		left -= n
	}
	return o.end()
}

// terminalRest reads until there is nothing: a terminal does not say how much there
// is, but a read takes all of it.
func (o *outlet) terminalRest(pipe int, buf []byte) error {
	if err := unix.SetNonblock(pipe, true); err != nil {
		return fmt.Errorf("look for output: %w", err)
	}
	for left := maxTerminalRest; left > 0; {
		n, err := o.move(pipe, buf)
		if n == 0 {
			return err
		}
		left -= n
	}
	return nil
}

// move copies once. It returns 0 at the end and on errors.
func (o *outlet) move(pipe int, buf []byte) (int, error) {
	n, err := unix.Read(pipe, buf)
	switch {
	case errors.Is(err, unix.EINTR):
		return o.move(pipe, buf)
	case o.terminal && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EAGAIN)):
		return 0, nil // nobody has it open, or there is nothing now
	case err != nil:
		return 0, fmt.Errorf("read output: %w", err)
	case n == 0:
		return 0, o.end()
	}
	if _, err := o.to.Write(buf[:n]); err != nil {
		return 0, fmt.Errorf("write output: %w", err)
	}
	return n, nil
}

// end writes what a filter has kept back.
func (o *outlet) end() error {
	if c, ok := o.to.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

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
