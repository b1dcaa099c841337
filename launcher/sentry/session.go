// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/wire"
)

// openSession has the sentry end what this connection starts when this program
// ends, however it does. It returns nil for a sentry of an earlier release, which
// can't.
func (c *Control) openSession(ctx context.Context) (*os.File, error) {
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	err = c.call(ctx, wire.MethodSession, wire.Session(wire.SessionSink), nil, theirs)
	if err == nil {
		return ours, nil
	}
	if _, refused := errors.AsType[*RemoteError](err); refused {
		err = nil
	}
	return nil, errors.Join(err, ours.Close())
}

// preparedSession is a session before its command.
type preparedSession struct {
	session *os.File
	err     error
}

// Prepare has the sentry make ready for Execute, while the caller finds out what to
// execute. Nothing else may be asked of it in between.
func (c *Control) Prepare(ctx context.Context) {
	prepared := make(chan preparedSession, 1)
	c.prepared = prepared
	go func() {
		session, err := c.openSession(ctx)
		prepared <- preparedSession{session, err}
	}()
}

// takeSession returns the session that was prepared, or opens one.
func (c *Control) takeSession(ctx context.Context) (*os.File, error) {
	if c.prepared == nil {
		return c.openSession(ctx)
	}
	p := <-c.prepared
	c.prepared = nil
	return p.session, p.err
}

// nameCommand tells the sentry which command belongs to the session.
func (c *Control) nameCommand(pid int32) error {
	if c.session == nil {
		return nil
	}
	if _, err := c.session.WriteString(strconv.Itoa(int(pid)) + "\n"); err != nil {
		return fmt.Errorf("name command: %w", orClosed(err))
	}
	return nil
}

// ProcessTable lists the processes of the sandbox with their states. Those that
// have ended before their state was told are not listed.
func (c *Container) ProcessTable(ctx context.Context) ([]wire.Process, error) {
	ps, err := c.Processes(ctx)
	if err != nil {
		return nil, err
	}
	states, err := c.states(ctx)
	if err != nil {
		return nil, err
	}
	table := ps[:0]
	for _, p := range ps {
		var told bool
		if p.State, told = states[p.PID]; told || states == nil {
			table = append(table, p)
		}
	}
	return table, nil
}

// states returns the states of the sandbox's processes by pid. It is empty for a
// sentry of an earlier release, which does not tell.
func (c *Control) states(ctx context.Context) (wire.States, error) {
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	err = c.call(ctx, wire.MethodSession, wire.Session(wire.StatesSink), nil, theirs)
	// The sentry's copy is the only one from here on: its end is the end.
	err = errors.Join(err, theirs.Close())
	if _, refused := errors.AsType[*RemoteError](err); refused {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("read states of processes: %w", err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetReadDeadline(time.Now().Add(CallTimeout)); err != nil {
		return nil, fmt.Errorf("read states of processes: %w", err)
	}
	var states wire.States
	if err := json.NewDecoder(io.LimitReader(conn, maxReply)).Decode(&states); err != nil {
		return nil, fmt.Errorf("read states of processes: %w", err)
	}
	return states, nil
}
