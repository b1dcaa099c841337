// SPDX-License-Identifier: Apache-2.0

// Package clientsocket is a stream socket whose other end a client of the sentry has.
// Whoever waits for it holds no thread: gVisor's one poller tells when something can be
// read or written. A thread each would use up the sandbox's limit of processes.
package clientsocket

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/fdnotifier"
	"gvisor.dev/gvisor/pkg/waiter"
)

// ErrStopped is returned by calls that were waiting when the socket was stopped.
var ErrStopped = errors.New("stopped")

// Socket is such a socket. One goroutine may read and another one write.
type Socket struct {
	fd    int
	queue waiter.Queue
	stop  <-chan struct{}
	gone  waiter.Entry
	once  sync.Once
	// hungUp is closed when the client has no use for what is written.
	hungUp chan struct{}
}

// New takes over a descriptor. Calls return when stop is closed.
func New(fd int, stop <-chan struct{}) (*Socket, error) {
	s := &Socket{fd: fd, stop: stop, hungUp: make(chan struct{})}
	err := unix.SetNonblock(fd, true)
	if err == nil {
		err = fdnotifier.AddFD(int32(fd), &s.queue)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for a socket: %w", err), unix.Close(fd))
	}
	s.gone = waiter.NewFunctionEntry(waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) {
		s.once.Do(func() { close(s.hungUp) })
	})
	if err := s.register(&s.gone); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// HungUp is closed when both directions are shut: the client has gone, or it has ended its
// direction after we ended ours.
func (s *Socket) HungUp() <-chan struct{} { return s.hungUp }

func (s *Socket) register(e *waiter.Entry) error {
	s.queue.EventRegister(e)
	if err := fdnotifier.UpdateFD(int32(s.fd)); err != nil {
		s.queue.EventUnregister(e)
		return fmt.Errorf("wait for a socket: %w", err)
	}
	return nil
}

func (s *Socket) unregister(e *waiter.Entry) {
	s.queue.EventUnregister(e)
	// It fails only if the descriptor is no longer there.
	_ = fdnotifier.UpdateFD(int32(s.fd))
}

// try calls f until it does not have to wait.
func (s *Socket) try(mask waiter.EventMask, f func() (int, error)) (int, error) {
	n, err := f()
	if !again(err) {
		return n, err
	}
	e, ready := waiter.NewChannelEntry(mask | waiter.EventHUp | waiter.EventErr)
	if err := s.register(&e); err != nil {
		return 0, err
	}
	defer s.unregister(&e)
	for {
		if n, err := f(); !again(err) {
			return n, err
		}
		select {
		case <-ready:
		case <-s.stop:
			return 0, ErrStopped
		}
	}
}

func again(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }

// Read implements io.Reader.
func (s *Socket) Read(b []byte) (int, error) {
	n, err := s.try(waiter.ReadableEvents, func() (int, error) { return unix.Read(s.fd, b) })
	if err != nil {
		return 0, err
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write implements io.Writer.
func (s *Socket) Write(b []byte) (written int, err error) {
	for written < len(b) {
		// The runtime ignores SIGPIPE of descriptors that are neither stdout nor stderr.
		n, err := s.try(waiter.WritableEvents, func() (int, error) { return unix.Write(s.fd, b[written:]) })
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// EndWrite tells the client that nothing more comes.
func (s *Socket) EndWrite() error { return s.shutdown(unix.SHUT_WR) }

// EndRead tells the client that nothing more is taken.
func (s *Socket) EndRead() error { return s.shutdown(unix.SHUT_RD) }

func (s *Socket) shutdown(how int) error {
	if err := unix.Shutdown(s.fd, how); err != nil {
		return fmt.Errorf("shut down a socket: %w", err)
	}
	return nil
}

// Close closes the socket, when nobody reads or writes it any more.
func (s *Socket) Close() {
	s.unregister(&s.gone)
	s.close()
}

func (s *Socket) close() {
	fdnotifier.RemoveFD(int32(s.fd))
	_ = unix.Close(s.fd) // of a socket it says nothing
}
