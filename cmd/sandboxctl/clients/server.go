// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/desired/hostpolicy"
)

const (
	// requestTimeout is how long a client may take to say what it wants, all of it.
	requestTimeout = 10 * time.Second
	// answerTimeout is how long an answer may wait for a client that does not read.
	answerTimeout = 10 * time.Second
	// acceptPause follows on an error of accept, as where there are no descriptors.
	acceptPause = 100 * time.Millisecond
	// maxMessage bounds what a client is told of an error.
	maxMessage = 4000
)

// Why a request ends before it is carried out.
var (
	errClientGone = errors.New("the client is gone")
	errStopping   = &protocol.Error{Kind: protocol.KindStopping, Message: "the daemon ends; try again when the next one runs"}
)

// work carries requests out. Each method returns when nothing is left to be done for the client, or
// shortly after ctx has ended.
type work interface {
	// command carries out OpRun and OpExec. life ends with the daemon.
	command(ctx, life context.Context, p *peer, r *protocol.Request, a *answer) error
	list(ctx context.Context, p *peer, name string) ([]protocol.Status, error)
	remove(ctx context.Context, p *peer, name string) error
	// settle returns when nothing is done any more for requests that have ended.
	settle()
}

// Server answers clients.
type Server struct {
	path   string
	policy func() (*hostpolicy.Policy, error)
	work   work
	log    *slog.Logger
	bounds *bounds
	begun  sync.WaitGroup
	// patience is requestTimeout; a test has less.
	patience time.Duration

	mu     sync.Mutex
	socket *socket
	group  int // -1 for none
	warned string
}

// Path is where it listens.
func (s *Server) Path() string { return s.path }

func newServer(path string, policy func() (*hostpolicy.Policy, error), w work, log *slog.Logger) *Server {
	return &Server{path: path, policy: policy, work: w, log: log, bounds: newBounds(), group: -1, patience: requestTimeout}
}

// Run listens until ctx ends, and then until all requests have ended: each is cancelled.
func (s *Server) Run(ctx context.Context) error {
	if p, err := s.policy(); err == nil { // else the first pass says so
		s.apply(p)
	}
	s.mu.Lock()
	l, err := listen(s.path, s.group)
	s.socket = l
	s.mu.Unlock()
	if err != nil {
		return err
	}
	requests, cancel := context.WithCancelCause(context.WithoutCancel(ctx)) // for its cause
	stop := context.AfterFunc(ctx, func() { cancel(errStopping); _ = l.UnixListener.Close() })
	err = s.accept(requests, l)
	stop()
	cancel(errStopping)
	s.mu.Lock()
	s.socket = nil
	cerr := l.close()
	s.mu.Unlock()
	if cerr != nil {
		s.log.Warn("the socket of clients is left; the next daemon removes it", "err", cerr)
	}
	s.begun.Wait()
	s.work.settle()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// apply has the bounds of a policy hold for those who connect from now on.
func (s *Server) apply(p *hostpolicy.Policy) {
	gid, err := GroupOf(&p.Clients)
	s.bounds.setPerUser(p.Clients.Runs())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.group = gid
	if s.socket != nil {
		err = errors.Join(err, s.socket.allow(gid))
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != s.warned { // each pass comes here
		s.log.Warn("only root can use the socket of clients", "err", err)
	}
	s.warned = text
}

func (s *Server) accept(ctx context.Context, l *socket) error {
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// As where there is no descriptor left: those who wait keep their place.
			s.log.Warn("a client could not be accepted", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		p, err := peerOf(conn)
		if err != nil {
			s.log.Warn("a client could not be identified", "err", err)
			conn.Close()
			continue
		}
		a := &answer{conn: conn}
		release, err := s.bounds.take(p.uid)
		if err != nil {
			// Nothing waits in the buffer of a new connection: this does not block.
			a.fail(err)
			conn.Close()
			continue
		}
		s.begun.Go(func() {
			defer release()
			defer conn.Close()
			s.serve(ctx, p, conn, a)
		})
	}
}

// serve carries out the request of a connection.
func (s *Server) serve(life context.Context, p *peer, conn *net.UnixConn, a *answer) {
	r, err := s.read(p, conn)
	if err != nil {
		a.fail(err)
		return
	}
	ctx, cancel := context.WithCancelCause(life)
	var watches sync.WaitGroup
	defer watches.Wait()
	defer conn.Close() // ends the first of them
	defer cancel(nil)  // and the second
	watches.Go(func() {
		// A client says no more than its request. Its end is the end of the request.
		_, _ = conn.Read(make([]byte, 1))
		cancel(errClientGone)
	})
	watches.Go(func() { p.untilGone(ctx, func() { cancel(errClientGone) }) })
	if err := s.carryOut(ctx, life, p, r, a); err != nil {
		a.fail(err)
	}
}

// read reads the request of a client that may make one.
func (s *Server) read(p *peer, conn *net.UnixConn) (*protocol.Request, error) {
	policy, err := s.policy()
	if err != nil {
		return nil, protocol.Failf(protocol.KindFailed, "nothing is begun while the host policy can't be used: %v", err)
	}
	if err := p.admit(policy); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(s.patience)); err != nil {
		return nil, err
	}
	line, err := protocol.ReadLine(conn, protocol.MaxRequest)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, protocol.Failf(protocol.KindRefused, "the request did not come within %s", s.patience)
	case err != nil:
		return nil, protocol.Failf(protocol.KindRefused, "%v", err)
	}
	r, err := protocol.DecodeRequest(line)
	if err == nil {
		err = check(r)
	}
	if err == nil {
		err = p.judge(r, &policy.Clients)
	}
	if err == nil {
		return r, conn.SetReadDeadline(time.Time{})
	}
	if _, typed := errors.AsType[*protocol.Error](err); !typed {
		err = protocol.Failf(protocol.KindRefused, "%v", err)
	}
	return nil, err
}

func (s *Server) carryOut(ctx, life context.Context, p *peer, r *protocol.Request, a *answer) error {
	switch r.Op {
	case protocol.OpHello:
		return a.send(&protocol.Response{Done: true})
	case protocol.OpList:
		list, err := s.work.list(ctx, p, r.Name)
		if err != nil {
			return err
		}
		return a.send(&protocol.Response{Done: true, Sandboxes: list})
	case protocol.OpRemove:
		if err := s.work.remove(ctx, p, r.Name); err != nil {
			return err
		}
		return a.send(&protocol.Response{Done: true})
	}
	return s.work.command(ctx, life, p, r, a)
}

// answer is the connection with a client, to write to.
type answer struct {
	conn *net.UnixConn
	// told says that the client has its last message.
	told bool
}

// send sends a message, with descriptors if there are any. A client that does not read has
// answerTimeout.
func (a *answer) send(r *protocol.Response, files ...*os.File) error {
	line, err := protocol.Encode(r)
	if err != nil {
		return err
	}
	if err := a.conn.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	n, _, err := a.conn.WriteMsgUnix(line, oob, nil)
	if err == nil && n < len(line) {
		_, err = a.conn.Write(line[n:])
	}
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// exit tells how the command has ended. It is the last message.
func (a *answer) exit(code int) error {
	a.told = true
	return a.send(&protocol.Response{Exit: &code})
}

// fail tells what is wrong, unless the client has its answer. One that is gone is told nothing.
func (a *answer) fail(err error) {
	if a.told {
		return
	}
	a.told = true
	e, ok := errors.AsType[*protocol.Error](err)
	if !ok {
		e = &protocol.Error{Kind: protocol.KindFailed, Message: err.Error()}
	}
	r := &protocol.Response{Error: &protocol.Error{Kind: e.Kind, Message: untrusted.Line(e.Message, maxMessage)}}
	if c, ok := errors.AsType[*commandError](err); ok {
		r.Exit = &c.code
	}
	_ = a.send(r)
}

// commandError is a command that can't be executed.
type commandError struct {
	code int
	err  *protocol.Error
}

func (e *commandError) Error() string { return e.err.Message }
func (e *commandError) Unwrap() error { return e.err }
