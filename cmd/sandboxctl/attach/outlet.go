// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

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
