// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/wire"
)

// Bounds of what is read of one answer and made of it: a sentry that was taken
// over must not exhaust its caller's memory, and three bytes can become a hundred.
const (
	maxReply     = 256 << 10
	maxProcesses = 1 << 20 // of a list of processes
	maxObjects   = 16 << 10
)

// CallTimeout applies when the context of a call has no deadline: a hung sentry
// must not hang its caller.
const CallTimeout = 10 * time.Second

// RemoteError is an error that the sentry answered with. Message is the sentry's
// and not to be trusted with a terminal or a log; Error makes it fit for both.
type RemoteError struct{ Message string }

func (e *RemoteError) Error() string {
	// What follows is the stack of the sentry.
	first, _, _ := strings.Cut(e.Message, ": goroutine ")
	return untrusted.Line(first, 2000)
}

// NotFound says whether there is no such command. gVisor answers with text alone.
func (e *RemoteError) NotFound() bool {
	return strings.Contains(e.Message, unix.ENOENT.Error()) || strings.Contains(e.Message, "not found")
}

// Control is a connection to the control server of one sentry. It speaks
// gVisor's urpc (JSON over a unix stream socket, descriptors beside it) with
// deadlines and a cap on the size of answers, which gVisor's own client, made
// for a trusted peer, does not have. It is not safe for concurrent use.
type Control struct {
	conn *net.UnixConn
	// sandbox is what the sentry calls itself: the name of the sandbox.
	sandbox   string
	preserved []*os.File
	session   *os.File // of what Execute has started, nil before
	// prepared gives the session that Prepare asks for, nil if it was not called.
	prepared chan preparedSession
	// init is Container.init of the application's.
	init bool
	// cgroups are the directories of its group, as far as they are known.
	cgroups []string
}

// dialControl connects to the control socket in the directory of descriptor dir.
func dialControl(ctx context.Context, dir int, sandbox string) (*Control, error) {
	// Through /proc/self/fd, so that neither the length of the state path
	// (sun_path holds 108 bytes) nor a swapped directory matters.
	var d net.Dialer
	for begin := time.Now(); ; {
		c, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(dir)+"/"+ControlSocket)
		if err == nil {
			return &Control{conn: c.(*net.UnixConn), sandbox: sandbox}, nil
		}
		// The sentry has a short queue of those who connect, and is not done with them.
		if !errors.Is(err, unix.EAGAIN) || time.Since(begin) > CallTimeout {
			return nil, fmt.Errorf("connect to control server: %w", err)
		}
		select {
		case <-time.After(busyWait):
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to control server: %w", context.Cause(ctx))
		}
	}
}

// busyWait is how long a sentry is left alone that has many who connect.
const busyWait = 5 * time.Millisecond

// PeerPID is the pid of the process that listens, as the kernel knows it.
func (c *Control) PeerPID() (int, error) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("get peer of control socket: %w", err)
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, fmt.Errorf("get peer of control socket: %w", err)
	}
	if cerr != nil {
		return 0, fmt.Errorf("get peer of control socket: %w", cerr)
	}
	return int(cred.Pid), nil
}

// Close ends the connection, and what Execute has started on it. A call in flight
// returns an error.
func (c *Control) Close() error {
	err := c.conn.Close()
	if c.prepared != nil {
		c.session = (<-c.prepared).session // whatever came of it
		c.prepared = nil
	}
	if c.session != nil {
		err = errors.Join(err, c.session.Close())
	}
	return err
}

type request struct {
	Method string `json:"method"`
	Arg    any    `json:"arg"`
}

type reply struct {
	Success bool            `json:"success"`
	Err     string          `json:"err"`
	Result  json.RawMessage `json:"result"`
}

// call sends one request with files and waits for the answer, which is decoded
// into result unless that is nil. A deadline or the end of ctx closes the
// connection: it can't be used again after an error.
func (c *Control) call(ctx context.Context, method string, arg, result any, files ...*os.File) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(CallTimeout)
	}
	return c.callUntil(ctx, deadline, method, arg, result, files...)
}

// callUntil is call with the deadline given; the zero time is none.
func (c *Control) callUntil(ctx context.Context, deadline time.Time, method string, arg, result any, files ...*os.File) error {
	if err := c.conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("%s: %w", doing(method), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	if err := c.roundTrip(method, arg, result, files); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("no answer in time: %w", cmp.Or(c.frozen(), os.ErrDeadlineExceeded))
		}
		return fmt.Errorf("%s: %w", doing(method), err)
	}
	return nil
}

// frozen is the error that nothing of the sandbox runs because a cgroup is frozen, nil
// if none is or that can't be told.
func (c *Control) frozen() error {
	by, err := cgroup.FrozenBy(c.cgroups)
	if err != nil || by == "" {
		return nil //nolint:nilerr // the sentry is asked, and may answer
	}
	return fmt.Errorf("the cgroup %s is frozen, so that nothing in it can run; thaw it first", by)
}

func (c *Control) roundTrip(method string, arg, result any, files []*os.File) error {
	msg, err := json.Marshal(request{Method: method, Arg: arg})
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.conn.WriteMsgUnix(msg, oob, nil)
	if err == nil && n < len(msg) {
		_, err = c.conn.Write(msg[n:])
	}
	if err != nil {
		return fmt.Errorf("send request: %w", orClosed(err))
	}
	var r reply
	limit := int64(maxReply)
	if method == wire.MethodProcesses {
		limit = maxProcesses
	}
	limited := &io.LimitedReader{R: c.conn, N: limit}
	if err := json.NewDecoder(limited).Decode(&r); err != nil {
		if limited.N <= 0 {
			return fmt.Errorf("read answer: longer than %d bytes", limit)
		}
		return fmt.Errorf("read answer: %w", orClosed(err))
	}
	if !r.Success {
		return &RemoteError{Message: r.Err}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(r.Result, result); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// orClosed has the ways in which a connection ends say that it has: which of
// them it is depends on how far the sentry got.
func orClosed(err error) error {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, unix.EPIPE, unix.ECONNRESET} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
	}
	return err
}

// SetNetwork gives the sandbox its interfaces when it starts, with a packet
// socket for each that is not loopback.
func (c *Control) SetNetwork(ctx context.Context, args wire.NetworkArgs, sockets ...*os.File) error {
	return crashpoint.Do(crashpoint.SetNetwork, func() error { return c.call(ctx, wire.MethodSetNetwork, args, nil, sockets...) })
}

// Checkpoint writes the state of the sandbox into a file and returns when all of
// it is there. With leave the sandbox resumes, else it ends. Only ctx bounds it.
func (c *Control) Checkpoint(ctx context.Context, leave, compressed bool, state *os.File) error {
	// Its end would come after the thaw, when nobody waits for it any more.
	if err := c.frozen(); err != nil {
		return err
	}
	// gVisor stops the tasks of the guest, and not what the sentry does beside them.
	quiet, err := c.quiet(ctx)
	if err != nil {
		return err
	}
	if quiet != nil {
		defer func() { _ = quiet.Close() }() // nothing was written to it
	}
	return c.callUntil(ctx, time.Time{}, wire.MethodCheckpoint, wire.CheckpointArgs{Metadata: wire.StateForm(compressed), Resume: leave}, nil, state)
}

// Restore has the sandbox, which must not have been started, go on from the
// state in a file.
func (c *Control) Restore(ctx context.Context, state *os.File) error {
	return c.call(ctx, wire.MethodRestore, wire.RestoreArgs{}, nil, state)
}

// Preserve has Execute give these files to what it starts, after those that it
// is called with.
func (c *Control) Preserve(files []*os.File) { c.preserved = files }

// Pause stops every process of the sandbox and returns when all are stopped.
func (c *Control) Pause(ctx context.Context) error {
	return c.call(ctx, wire.MethodPause, nil, nil)
}

// Resume lets the processes of the sandbox go on.
func (c *Control) Resume(ctx context.Context) error {
	return c.call(ctx, wire.MethodResume, nil, nil)
}
