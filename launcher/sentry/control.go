// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/untrusted"
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
	said, _, _ := strings.Cut(e.Message, ": goroutine ")
	return untrusted.Line(said, 2000)
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
	conn      *net.UnixConn
	id        string
	preserved []*os.File
	session   *os.File // of what Execute has started, nil before
	// init says that the application is not process 1 but its first child.
	init bool
}

// dialControl connects to the control socket in the directory of descriptor dir.
func dialControl(ctx context.Context, dir int, id string) (*Control, error) {
	// Through /proc/self/fd, so that neither the length of the state path
	// (sun_path holds 108 bytes) nor a swapped directory matters.
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(dir)+"/"+ControlSocket)
	if err != nil {
		return nil, fmt.Errorf("connect to control server: %w", err)
	}
	return &Control{conn: c.(*net.UnixConn), id: id}, nil
}

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
			err = fmt.Errorf("no answer in time: %w", os.ErrDeadlineExceeded)
		}
		return fmt.Errorf("%s: %w", doing(method), err)
	}
	return nil
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
	crashpoint.Before(crashpoint.SetNetwork)
	err := c.call(ctx, wire.MethodSetNetwork, args, nil, sockets...)
	crashpoint.After(crashpoint.SetNetwork)
	return err
}

// StartRoot starts the application.
func (c *Control) StartRoot(ctx context.Context) error {
	return c.call(ctx, wire.MethodStartRoot, c.id, nil)
}

// State says how far the application is: wire.StateCreating and so on.
func (c *Control) State(ctx context.Context) (int, error) {
	var state int
	err := c.call(ctx, wire.MethodRuntimeState, c.id, &state)
	return state, err
}

// Checkpoint writes the state of the sandbox into a file and returns when all of
// it is there. With leave the sandbox goes on, else it ends. Only ctx bounds it.
func (c *Control) Checkpoint(ctx context.Context, leave bool, state *os.File) error {
	return c.callUntil(ctx, time.Time{}, wire.MethodCheckpoint, wire.CheckpointArgs{Metadata: wire.Compressed(), Resume: leave}, nil, state)
}

// Restore has the sandbox, which must not have been started, go on from the
// state in a file.
func (c *Control) Restore(ctx context.Context, state *os.File) error {
	return c.call(ctx, wire.MethodRestore, wire.RestoreArgs{}, nil, state)
}

// Signal sends a signal to the application: to its init, or to all of its
// processes.
func (c *Control) Signal(ctx context.Context, sig unix.Signal, all bool) error {
	if c.init && (sig == unix.SIGSTOP || all && sig != unix.SIGKILL) {
		return c.signalBeside(ctx, sig, all)
	}
	args := wire.SignalArgs{CID: c.id, Signo: int32(sig)}
	if all {
		args.Mode = wire.SignalAllProcesses
	}
	return c.call(ctx, wire.MethodSignal, args, nil)
}

// signalBeside is Signal without the init process: it can't pass a stop on, and of
// what goes to all it would pass on a second one.
func (c *Control) signalBeside(ctx context.Context, sig unix.Signal, all bool) error {
	ps, err := c.Processes(ctx)
	if err != nil {
		return err
	}
	ps = slices.DeleteFunc(ps, func(p wire.Process) bool { return p.PID == 1 || !all && p.PPID != 1 })
	slices.SortFunc(ps, func(a, b wire.Process) int { return cmp.Compare(a.PID, b.PID) })
	for _, p := range ps {
		var gone *RemoteError // it has ended meanwhile
		if err := c.SignalPID(ctx, sig, p.PID); err != nil && !(all && errors.As(err, &gone)) {
			return err
		}
		if !all {
			return nil // orphans are younger
		}
	}
	return nil
}

// SignalPID sends a signal to one process of the sandbox, as numbered in the
// sandbox.
func (c *Control) SignalPID(ctx context.Context, sig unix.Signal, pid int32) error {
	return c.call(ctx, wire.MethodSignal, wire.SignalArgs{CID: c.id, Signo: int32(sig), PID: pid}, nil)
}

// SignalForeground sends a signal to the process group in the foreground of the
// terminal of a process started by Execute.
func (c *Control) SignalForeground(ctx context.Context, sig unix.Signal, pid int32) error {
	args := wire.SignalArgs{CID: c.id, Signo: int32(sig), PID: pid, Mode: wire.SignalForegroundProcessGroup}
	return c.call(ctx, wire.MethodSignal, args, nil)
}

// SignalGroup sends a signal to the process group that a process started by Execute
// leads.
func (c *Control) SignalGroup(ctx context.Context, sig unix.Signal, pid int32) error {
	args := wire.SignalArgs{CID: c.id, Signo: int32(sig), PID: pid, Mode: wire.SignalProcessGroup}
	return c.call(ctx, wire.MethodSignal, args, nil)
}

// Wait blocks until the application has ended and returns its wait status.
// Only ctx bounds it.
func (c *Control) Wait(ctx context.Context) (unix.WaitStatus, error) {
	var ws uint32
	err := c.callUntil(ctx, time.Time{}, wire.MethodWait, c.id, &ws)
	return unix.WaitStatus(ws), err
}

// WaitPID blocks until a process started by Execute has ended and returns its
// wait status. Only ctx bounds it.
func (c *Control) WaitPID(ctx context.Context, pid int32) (unix.WaitStatus, error) {
	var ws uint32
	err := c.callUntil(ctx, time.Time{}, wire.MethodWaitPID, wire.WaitPIDArgs{CID: c.id, PID: pid}, &ws)
	return unix.WaitStatus(ws), err
}

// Preserve has Execute give these files to what it starts, after those that it
// is called with.
func (c *Control) Preserve(files []*os.File) { c.preserved = files }

// Execute starts a process with the files as its descriptors 0, 1, 2, … and
// returns its pid in the sandbox. The process ends at the latest when the
// connection is closed, also by the death of this program.
func (c *Control) Execute(ctx context.Context, args wire.ExecArgs, files ...*os.File) (int32, error) {
	files = append(files, c.preserved...)
	args.ContainerID = c.id
	args.GuestFDs = make([]int, len(files))
	for i := range files {
		args.GuestFDs[i] = i
	}
	// Files that are sent to a sentry stay open until it reads them: a reader of our
	// output would wait for the end of the sandbox. A stopped sentry is sent none.
	var err error
	if c.session, err = c.openSession(ctx); err != nil {
		return 0, err
	}
	var pid int32
	if err := c.call(ctx, wire.MethodExecuteAsync, args, &pid, files...); err != nil {
		return 0, err
	}
	return pid, c.nameCommand(pid)
}

// Pause stops every process of the sandbox and returns when all are stopped.
func (c *Control) Pause(ctx context.Context) error {
	return c.call(ctx, wire.MethodPause, nil, nil)
}

// Resume lets the processes of the sandbox go on.
func (c *Control) Resume(ctx context.Context) error {
	return c.call(ctx, wire.MethodResume, nil, nil)
}

// Processes lists the processes of the sandbox, without their states.
func (c *Control) Processes(ctx context.Context) ([]wire.Process, error) {
	var list json.RawMessage
	if err := c.call(ctx, wire.MethodProcesses, c.id, &list); err != nil {
		return nil, err
	}
	// One by one: each may be made of two bytes.
	var ps []wire.Process
	dec := json.NewDecoder(bytes.NewReader(list))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') && t != nil {
		return nil, fmt.Errorf("%s: decode answer: expected a list", doing(wire.MethodProcesses))
	}
	for dec.More() && len(ps) < maxObjects {
		var p wire.Process
		if err := dec.Decode(&p); err != nil {
			return nil, fmt.Errorf("%s: decode answer: %w", doing(wire.MethodProcesses), err)
		}
		ps = append(ps, p)
	}
	if dec.More() {
		return nil, fmt.Errorf("%s: decode answer: more than %d processes", doing(wire.MethodProcesses), maxObjects)
	}
	return ps, nil
}

// Stats returns what the sentry knows of the sandbox's use of resources.
func (c *Control) Stats(ctx context.Context) (*wire.EventOut, error) {
	var e wire.EventOut
	if err := c.call(ctx, wire.MethodEvent, c.id, &e); err != nil {
		return nil, err
	}
	return &e, nil
}
