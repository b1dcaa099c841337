// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/show"
)

// relay connects our streams with a command in a sandbox. The command gets pipes
// of the relay's own and never a stream of ours: a sentry makes what it is given
// non-blocking, for everybody who has the same open file; a terminal can be read
// through each stream that leads to it; and in a regular file a sentry keeps an
// offset of its own, from 0, and would write over what is there.
type relay struct {
	given  []*os.File // the command's ends, ours to close when it has its own
	copy   []func()   // what begins when the command has its ends
	outs   []*outlet
	ended  *os.File // closed when the command has ended
	wait   *os.File // its read end, which every outlet waits for
	copies sync.WaitGroup
	// broken is told when a stream of the command is not taken any more. The pipe
	// stays open until what it is told was closed: so a command that is to get
	// SIGPIPE gets that first, and then the error of its write.
	broken chan chan struct{}
	over   chan struct{} // closed with ended
	// settled says that finish was called, or that nobody waits for the copies.
	settled bool
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
	r.copy = append(r.copy, func() { r.feed(pw, stream) })
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

// output gives a stream to write to.
func (r *relay) output(stream io.Writer) (*os.File, error) {
	pr, pw, err := blockingPipe()
	if err != nil {
		return nil, err
	}
	r.given = append(r.given, pw)
	r.copy = append(r.copy, func() { r.drain(pr, stream) })
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

// drain copies from a pipe to a stream.
func (r *relay) drain(pipe *os.File, stream io.Writer) {
	o := &outlet{pipe: pipe, to: writer(stream)}
	if show.IsTerminal(stream) {
		o.to = &terminalFilter{to: o.to}
	}
	r.start(o)
}

// terminal copies what a command writes on the terminal whose master is pty.
func (r *relay) terminal(pty console.Console, stream io.Writer) error {
	fd, err := unix.FcntlInt(pty.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicate terminal: %w", err)
	}
	o := &outlet{pipe: os.NewFile(uintptr(fd), "terminal"), to: writer(stream), terminal: true}
	r.copy = append(r.copy, func() { r.start(o) })
	return nil
}

// start starts to copy.
func (r *relay) start(o *outlet) {
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

// started closes our ends of what the sandbox has now, and begins to copy: when it
// closes its own, the copies come to their end. Before there is a command nothing is
// read: if it could not be started, nobody has the ends, and what it would have read is
// left to others.
func (r *relay) started() error {
	var errs []error
	for _, f := range r.given {
		errs = append(errs, f.Close())
	}
	for _, begin := range r.copy {
		begin()
	}
	r.given, r.copy = nil, nil
	return errors.Join(errs...)
}

// finish copies what the command has written, and no more: what it left in the
// background may keep its streams open for ever. The reader of a stream that went
// away is no error; the command was told.
func (r *relay) finish() error {
	r.settled = true
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

// abort releases what was given, and copies what was written, if nobody has waited for
// the command: what failed to start may have said why. It does nothing after finish.
func (r *relay) abort() error {
	if r.settled {
		return nil
	}
	return errors.Join(r.started(), r.finish())
}
