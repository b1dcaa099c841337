// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/client/protocol"
)

// command runs a command and connects its streams with those of the caller.
func (c *Client) command(ctx context.Context, r *protocol.Request, o *ExecOptions) (code int, err error) {
	if err := checkText(o.Command, o.Env, []string{o.Dir, r.Name}); err != nil {
		return 0, err
	}
	r.Command = &protocol.Command{Args: o.Command, Env: o.Env, Dir: o.Dir, Input: o.Stdin != nil, Merged: same(o.Stdout, o.Stderr)}
	k, err := c.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer k.close()
	// The end of the connection is what ends the command.
	defer context.AfterFunc(ctx, func() { _ = k.conn.Close() })()
	code, err = c.follow(k, r, o)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return code, err
}

// follow reads the answers to a request for a command, and passes its streams on.
func (c *Client) follow(k *connection, r *protocol.Request, o *ExecOptions) (code int, err error) {
	answer, err := c.exchange(k, r)
	if err == nil {
		var s *streams
		if s, err = connectStreams(k, r.Command, o); err != nil {
			return 0, err
		}
		answer, err = c.next(k)
		err = errors.Join(err, s.finish())
	}
	if r.Op == protocol.OpRun && answer != nil {
		// The daemon closes the connection when the sandbox is gone. What becomes of that does not
		// change what the command has done.
		for {
			if _, gone := k.receive(); gone != nil {
				break
			}
		}
	}
	return exitCode(answer), err
}

func exitCode(r *protocol.Response) int {
	if r == nil || r.Exit == nil {
		return 0
	}
	return *r.Exit
}

// streams are the pipes of a command.
type streams struct {
	input  *os.File
	outs   []*output
	copies sync.WaitGroup
}

// connectStreams begins to copy from and to the pipes that came with an answer.
func connectStreams(k *connection, cmd *protocol.Command, o *ExecOptions) (*streams, error) {
	writers := []io.Writer{o.Stdout, o.Stderr}
	if cmd.Merged {
		writers = writers[:1]
	}
	want := len(writers)
	if cmd.Input {
		want++
	}
	if len(k.files) != want {
		return nil, &Error{Kind: ErrFailed, Message: fmt.Sprintf("the daemon passed %d pipes, expected %d; is a descriptor to be had here?", len(k.files), want)}
	}
	files := k.files
	k.files = nil
	s := &streams{}
	for i, w := range writers {
		if w == nil {
			w = io.Discard
		}
		out := &output{pipe: files[i], to: w}
		s.outs = append(s.outs, out)
		s.copies.Go(out.copy)
	}
	if cmd.Input {
		s.input = files[len(files)-1]
		go func() {
			// Whichever of the two has ended: it is no error of the command's.
			_, _ = io.Copy(s.input, o.Stdin)
			s.input.Close()
		}()
	}
	return s, nil
}

// finish copies what the command has written before it ended, and no more: what it has left in the
// background may keep the pipes for ever.
func (s *streams) finish() (err error) {
	if s.input != nil {
		s.input.Close()
	}
	for _, o := range s.outs {
		// A deadline that is over ends the read that waits; what is in the pipe is left to rest.
		_ = o.pipe.SetReadDeadline(time.Unix(1, 0))
	}
	s.copies.Wait()
	for _, o := range s.outs {
		err = errors.Join(err, o.err)
	}
	return err
}

// output is one output of a command.
type output struct {
	pipe *os.File
	to   io.Writer
	err  error
}

// copy copies until the pipe ends, nobody waits any more, or a write fails.
func (o *output) copy() {
	defer o.pipe.Close() // a command that writes more gets EPIPE
	buf := make([]byte, 32<<10)
	for {
		n, err := o.pipe.Read(buf)
		if n > 0 && !o.write(buf[:n]) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.rest(buf)
		}
		if err != nil {
			return
		}
	}
}

// rest copies what is in the pipe now.
func (o *output) rest(buf []byte) {
	raw, err := o.pipe.SyscallConn()
	if err != nil {
		return
	}
	left := 0
	if cerr := raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); cerr != nil || err != nil {
		return
	}
	if o.pipe.SetReadDeadline(time.Time{}) != nil {
		return
	}
	for left > 0 {
		n, err := o.pipe.Read(buf[:min(left, len(buf))])
		if n > 0 && !o.write(buf[:n]) || err != nil {
			return
		}
		left -= n
	}
}

func (o *output) write(b []byte) bool {
	if _, err := o.to.Write(b); err != nil {
		o.err = fmt.Errorf("pass output on: %w", err)
		return false
	}
	return true
}

// same says whether two writers are one. Those that can't be compared are two.
func same(a, b io.Writer) (equal bool) {
	defer func() { _ = recover() }()
	return a != nil && a == b
}
