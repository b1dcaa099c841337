// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/wire"
)

// Command is one more process in a sandbox. It ends when its client does, and its
// client when it does.
type Command struct {
	Store *actual.Store
	Name  string // of the sandbox
	// Record is that of the sandbox, nil if there is none to explain its end by.
	Record  *actual.Record
	Control *sentry.Control
	Args    wire.ExecArgs
	// OCI says that a client of runc's started this: errors are in the words that it
	// knows, and SIGHUP is a signal for the command like others. Without, SIGHUP ends
	// this program, and the command with it.
	OCI bool
	// Began is called when the command runs, if it is set.
	Began func(ctx context.Context, pid int32) error

	pid int32
}

// Impatience is how many INT or TERM end exec, and its command with it.
const Impatience = 3

// errTerminalClosed ends a command whose terminal is no more.
var errTerminalClosed = errors.New("the terminal was closed")

// Signals are those that are passed on to a command. With a terminal of ours keys are
// input, and only the change of its size is a signal.
func (c *Command) Signals() []os.Signal {
	if c.Args.StdioIsPty {
		return nil
	}
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}
	if c.OCI {
		signals = append(signals, unix.SIGHUP)
	}
	return notIgnored(signals...)
}

// Run runs a command on our streams, or on a terminal that is connected with ours, and
// returns its exit code as an error.
func (c *Command) Run(ctx context.Context, streams Streams, input bool) (err error) {
	within, s, err := Open(ctx, streams, Options{Signals: c.Signals(), Keys: true, Impatience: Impatience})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	code, err := c.run(within, s, input)
	if err != nil {
		return c.Explain(within, err)
	}
	return exit.Code(code)
}

func (c *Command) run(ctx context.Context, s *Session, input bool) (code int, err error) {
	var ends [3]*os.File
	if c.Args.StdioIsPty {
		if t := os.Getenv("TERM"); t != "" {
			c.Args.Envv = append(c.Args.Envv, "TERM="+t)
		}
		ends, err = s.Terminal()
	} else {
		ends, err = s.Pipes(input)
	}
	if err != nil {
		return 0, err
	}
	if err := c.Start(ctx, ends); err != nil {
		return 0, err
	}
	return s.Run(ctx, c)
}

// Start starts a command with its standard streams.
func (c *Command) Start(ctx context.Context, ends [3]*os.File) (err error) {
	if c.pid, err = c.Control.App().Execute(ctx, c.Args, ends[:]...); err != nil {
		return err
	}
	if c.Began == nil {
		return nil
	}
	return c.Began(ctx, c.pid)
}

// Wait implements Process.
func (c *Command) Wait(ctx context.Context) (int, error) {
	status, err := c.Control.App().WaitPID(ctx, c.pid)
	if err != nil {
		return 0, err
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// HangUp implements Process: the sentry ends a command whose client is gone.
func (c *Command) HangUp(context.Context) error { return errTerminalClosed }

// Signal implements Process. At a terminal a signal is for what the command has in the
// foreground there. Else what ends it goes to all of its process group: a shell waits
// for its children, or would leave them behind.
//
// The connection is one of its own: the other one waits for the command.
func (c *Command) Signal(ctx context.Context, sig unix.Signal) {
	beside, _, err := sentry.Connect(ctx, c.Store, c.Name)
	if err != nil {
		return
	}
	switch {
	case c.Args.StdioIsPty:
		_ = beside.App().SignalForeground(ctx, sig, c.pid)
	case sig == unix.SIGUSR1 || sig == unix.SIGUSR2:
		_ = beside.App().SignalPID(ctx, sig, c.pid)
	default:
		_ = beside.App().SignalGroup(ctx, sig, c.pid)
	}
	_ = beside.Close()
}
