// SPDX-License-Identifier: Apache-2.0

package guestfiles

import (
	"errors"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"

	"sandboxctl.dev/cmd/sandboxctl-sentry/clientsocket"
	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
)

// errGone says that nobody waits for a copy any more.
var errGone = errors.New("the client is gone")

// client is who a copy is for.
type client struct {
	*clientsocket.Socket
	work *clientwork.Work
	// left is closed when the copy is to end, for whatever reason.
	left chan struct{}
}

// serve runs f for a client on its socket.
func serve(work *clientwork.Work, socket int, f func(*client)) error {
	s, err := clientsocket.New(socket, work.Stopped())
	if err != nil {
		work.End()
		return err
	}
	c, done := &client{s, work, make(chan struct{})}, make(chan struct{})
	go func() {
		select {
		case <-work.Stopped():
		case <-s.HungUp():
		case <-done:
		}
		close(c.left)
	}()
	go func() {
		defer work.End()
		defer s.Close()
		defer close(done)
		f(c)
	}()
	return nil
}

// stopped says why a copy is to end. Each loop over what the guest says asks it: a directory
// without end, of which nothing is sent, would keep the copy of a client that is gone, and
// there are few of them.
func (c *client) stopped() error {
	select {
	case <-c.left:
	default:
		return nil
	}
	select {
	case <-c.work.Stopped():
		return clientwork.ErrQuiet
	default:
		return errGone
	}
}

// waiting is a context in which whatever waits for the guest, as for a file system that it
// serves itself, ends with the copy.
type waiting struct {
	context.Context
	left <-chan struct{}
}

// Interrupted implements context.Blocker.
func (w *waiting) Interrupted() bool {
	select {
	case <-w.left:
		return true
	default:
		return w.Context.Interrupted()
	}
}

// Block implements context.Blocker.
func (w *waiting) Block(c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-w.left:
		return linuxerr.ErrInterrupted
	}
}
