// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/wire"
)

// Container is one container of a sandbox, on a connection to its sentry: what is
// asked of it names it, and what is asked of the Control is about all of them.
type Container struct {
	*Control
	// id is what the sentry calls it.
	id string
	// init says that the application is not process 1 but its first child.
	init bool
}

// App is the container named actual.AppName. A sentry calls its first container as
// it calls itself.
func (c *Control) App() *Container { return &Container{Control: c, id: c.sandbox, init: c.init} }

// StartRoot starts the application.
func (c *Container) StartRoot(ctx context.Context) error {
	return c.call(ctx, wire.MethodStartRoot, c.id, nil)
}

// State says how far the application is: wire.StateCreating and so on.
func (c *Container) State(ctx context.Context) (int, error) {
	var state int
	err := c.call(ctx, wire.MethodRuntimeState, c.id, &state)
	return state, err
}

// Signal sends a signal to the application: to its init, or to all of its
// processes.
func (c *Container) Signal(ctx context.Context, sig unix.Signal, all bool) error {
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
func (c *Container) signalBeside(ctx context.Context, sig unix.Signal, all bool) error {
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
func (c *Container) SignalPID(ctx context.Context, sig unix.Signal, pid int32) error {
	return c.call(ctx, wire.MethodSignal, wire.SignalArgs{CID: c.id, Signo: int32(sig), PID: pid}, nil)
}

// SignalForeground sends a signal to the process group in the foreground of the
// terminal of a process started by Execute.
func (c *Container) SignalForeground(ctx context.Context, sig unix.Signal, pid int32) error {
	args := wire.SignalArgs{CID: c.id, Signo: int32(sig), PID: pid, Mode: wire.SignalForegroundProcessGroup}
	return c.call(ctx, wire.MethodSignal, args, nil)
}

// SignalGroup sends a signal to the process group that a process started by Execute
// leads.
func (c *Container) SignalGroup(ctx context.Context, sig unix.Signal, pid int32) error {
	args := wire.SignalArgs{CID: c.id, Signo: int32(sig), PID: pid, Mode: wire.SignalProcessGroup}
	return c.call(ctx, wire.MethodSignal, args, nil)
}

// Wait blocks until the application has ended and returns its wait status.
// Only ctx bounds it.
func (c *Container) Wait(ctx context.Context) (unix.WaitStatus, error) {
	var ws uint32
	err := c.callUntil(ctx, time.Time{}, wire.MethodWait, c.id, &ws)
	return unix.WaitStatus(ws), err
}

// WaitPID blocks until a process started by Execute has ended and returns its
// wait status. Only ctx bounds it.
func (c *Container) WaitPID(ctx context.Context, pid int32) (unix.WaitStatus, error) {
	var ws uint32
	err := c.callUntil(ctx, time.Time{}, wire.MethodWaitPID, wire.WaitPIDArgs{CID: c.id, PID: pid}, &ws)
	return unix.WaitStatus(ws), err
}

// Execute starts a process with the files as its descriptors 0, 1, 2, … and
// returns its pid in the sandbox. The process ends at the latest when the
// connection is closed, also by the death of this program.
func (c *Container) Execute(ctx context.Context, args wire.ExecArgs, files ...*os.File) (int32, error) {
	files = append(files, c.preserved...)
	args.ContainerID = c.id
	args.GuestFDs = make([]int, len(files))
	for i := range files {
		args.GuestFDs[i] = i
	}
	// Files that are sent to a sentry stay open until it reads them: a reader of our
	// output would wait for the end of the sandbox. A stopped sentry is sent none.
	var err error
	if c.session, err = c.takeSession(ctx); err != nil {
		return 0, err
	}
	var pid int32
	if err := c.call(ctx, wire.MethodExecuteAsync, args, &pid, files...); err != nil {
		return 0, err
	}
	return pid, c.nameCommand(pid)
}

// Processes lists the processes of the sandbox, without their states.
func (c *Container) Processes(ctx context.Context) ([]wire.Process, error) {
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
func (c *Container) Stats(ctx context.Context) (*wire.EventOut, error) {
	var e wire.EventOut
	if err := c.call(ctx, wire.MethodEvent, c.id, &e); err != nil {
		return nil, err
	}
	return &e, nil
}
