// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/wire"
)

// ErrHostNetwork says that a sandbox has no ports of its own.
var ErrHostNetwork = errors.New("the sandbox is on the network of the host (network.mode: host): connect to the port of the host itself")

// errEarlier is for sentries that do not know a sink.
var errEarlier = errors.New("the sandbox was started by an earlier release of sandboxctl, which can't do this; restart the sandbox")

// Forward connects with a port in the sandbox. What is returned carries the bytes of the
// connection; each direction ends by itself. Port 0 connects with nothing and only asks
// whether ports can be forwarded.
func (c *Control) Forward(ctx context.Context, port uint16) (*net.UnixConn, error) {
	conn, err := c.openSink(ctx, wire.Forward(port))
	if err == nil {
		return conn, nil
	}
	line, told := errors.AsType[*lineError](err)
	switch {
	case told && line.text == wire.ForwardHostNetwork:
		err = ErrHostNetwork
	case told && line.text == wire.ForwardRefused:
		err = fmt.Errorf("nothing in the sandbox listens on 127.0.0.1:%[1]d, [::1]:%[1]d or all addresses", port)
	}
	return nil, err
}

// lineError is what a sink answers with instead of an empty line. It is the sentry's and
// not to be trusted with a terminal; Error makes it fit for one.
type lineError struct{ text string }

func (e *lineError) Error() string { return untrusted.Line(e.text, 500) }

// maxLine bounds the first line of a sink.
const maxLine = 1000

// openSink gives a sink of the sentry binary one end of a socket, and returns the other
// one when the sink has answered that it does what it was asked for.
func (c *Control) openSink(ctx context.Context, args wire.SessionArgs) (*net.UnixConn, error) {
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	err = c.call(ctx, wire.MethodSession, args, nil, theirs)
	// The sentry's copy is the only one from here on: its end is the end.
	if err := errors.Join(err, theirs.Close()); err != nil {
		if remote, ok := errors.AsType[*RemoteError](err); ok && remote.NotFound() {
			return nil, errEarlier
		}
		return nil, err
	}
	generic, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	conn := generic.(*net.UnixConn)
	if err := readLine(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// readLine reads the first line of a sink, and not a byte more. One that is not empty is
// an error.
func readLine(ctx context.Context, conn *net.UnixConn) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(answerTimeout)
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var line []byte
	for len(line) < maxLine {
		var b [1]byte
		switch _, err := conn.Read(b[:]); {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("no answer in time: %w", err)
		case err != nil:
			return fmt.Errorf("read answer: %w", orClosed(err))
		case b[0] != '\n':
			line = append(line, b[0])
			continue
		case len(line) > 0:
			return &lineError{string(line)}
		}
		return conn.SetReadDeadline(time.Time{})
	}
	return fmt.Errorf("read answer: longer than %d bytes", maxLine)
}

// answerTimeout is that of a call, and what the sentry itself waits for the guest before it
// answers: for each of two addresses of its loopback as long as a call may take.
const answerTimeout = 3 * CallTimeout

// quiet has the sentry do nothing for other clients but commands until the socket that it
// returns is closed. That is nil for a sentry that does none of it: one of an earlier
// release, or before its application.
func (c *Control) quiet(ctx context.Context) (*net.UnixConn, error) {
	conn, err := c.openSink(ctx, wire.Session(wire.QuietSink))
	if _, refused := errors.AsType[*RemoteError](err); refused || errors.Is(err, errEarlier) {
		return nil, nil
	}
	return conn, err
}
