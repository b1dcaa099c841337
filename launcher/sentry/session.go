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
	numbers, err := c.numbers(ctx)
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
	return renumber(table, numbers), nil
}

// states returns the states of the sandbox's processes by pid. It is empty for a
// sentry of an earlier release, which does not tell.
func (c *Control) states(ctx context.Context) (states wire.States, err error) {
	err = c.readSink(ctx, wire.StatesSink, "states of processes", maxReply, &states)
	if _, refused := errors.AsType[*RemoteError](err); refused {
		return nil, nil
	}
	return states, err
}

// Environment returns the environment that the application was started with. It may
// be asked between Prepare and Execute.
func (c *Control) Environment(ctx context.Context) (env []string, err error) {
	if c.prepared != nil {
		// One answer at a time.
		p := <-c.prepared
		c.prepared <- p
	}
	err = c.readSink(ctx, wire.EnvironmentSink, "environment of the application", maxEnvironment, &env)
	return env, err
}

// maxEnvironment bounds an environment in JSON, where a byte may be six.
const maxEnvironment = 8 << 20

// readSink decodes what a sink of the sentry binary writes, in at most limit bytes.
func (c *Control) readSink(ctx context.Context, sink, what string, limit int64, to any) error {
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	err = c.call(ctx, wire.MethodSession, wire.Session(sink), nil, theirs)
	// The sentry's copy is the only one from here on: its end is the end.
	if err := errors.Join(err, theirs.Close()); err != nil {
		return err
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetReadDeadline(time.Now().Add(CallTimeout)); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	if err := json.NewDecoder(io.LimitReader(conn, limit)).Decode(to); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}
