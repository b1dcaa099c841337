// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/fate"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/wire"
)

// killTimeout is how long a sentry may take to kill a command whose time is over. Then the
// connection with it is closed, which ends the command too.
const killTimeout = 5 * time.Second

// execution is a command in a sandbox.
type execution struct {
	name string
	// seen is the run of the sandbox that is meant, nil for the one that runs, whosever it is: that
	// is for root.
	seen    *oneoff.Incarnation
	request *protocol.Request
	began   time.Time
	cancel  context.CancelCauseFunc
}

// remaining is how much of its time is left, if it has a bound.
func (e *execution) remaining() (left time.Duration, bounded bool) {
	return max(0, e.request.Timeout-time.Since(e.began)), e.request.Timeout > 0
}

func (e *execution) timedOut() error {
	return protocol.Failf(protocol.KindTimeout, "timed out after %s", e.request.Timeout)
}

// orTimedOut is err, unless the time is over: then whatever failed has failed by that.
func (e *execution) orTimedOut(err error) error {
	if left, bounded := e.remaining(); bounded && left == 0 {
		return e.timedOut()
	}
	return err
}

// execute runs the command, and tells the client of its beginning and its end.
func (b *sandboxes) execute(ctx context.Context, e *execution, a *answer) error {
	control, rec, pid, err := b.begin(ctx, e, a)
	if control != nil {
		defer control.Close() // and with it what is left of the command
	}
	if err != nil {
		return err
	}
	if left, bounded := e.remaining(); bounded {
		timer := time.AfterFunc(left, func() { b.timeOver(ctx, e, rec, pid) })
		defer timer.Stop()
	}
	status, err := control.App().WaitPID(ctx, pid)
	switch {
	case e.orTimedOut(nil) != nil:
		return e.timedOut()
	case err != nil:
		return b.became(ctx, control, rec, e, err)
	case status.Signaled():
		return a.exit(128 + int(status.Signal()))
	}
	return a.exit(status.ExitStatus())
}

// begin connects with the sandbox and starts the command, within its time: a sentry that stands
// still does not answer. The connection is there with some errors too.
func (b *sandboxes) begin(ctx context.Context, e *execution, a *answer) (control *sentry.Control, rec *actual.Record, pid int32, err error) {
	if left, bounded := e.remaining(); bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, left, e.timedOut())
		defer cancel()
	}
	// Why it does not run is in the manifests, and who reads these needs a turn.
	control, rec, err = sentry.Connect(ctx, b.store, e.name)
	if err != nil {
		kind := protocol.KindStart
		if e.request.Op == protocol.OpExec { // it was to run already
			kind = protocol.KindNotFound
		}
		return nil, nil, 0, e.orTimedOut(protocol.Failf(kind, "%v", err))
	}
	if e.seen != nil && *e.seen != oneoff.IncarnationOf(rec) {
		return control, rec, 0, protocol.Failf(protocol.KindEnded, "sandbox %s was replaced or restarted meanwhile", e.name)
	}
	args, err := b.args(ctx, control, rec, e.request.Command)
	if err == nil {
		pid, err = start(ctx, control, args, e.request.Command, a)
	}
	if err != nil {
		err = e.orTimedOut(b.became(ctx, control, rec, e, err))
	}
	return control, rec, pid, err
}

// args are how the command is started: as the application was, with what the client adds.
func (b *sandboxes) args(ctx context.Context, control *sentry.Control, rec *actual.Record, c *protocol.Command) (args wire.ExecArgs, err error) {
	control.Prepare(ctx)
	args, private, err := built.Exec(b.store, rec, c.Args)
	if err == nil && private {
		args.Envv, err = control.Environment(ctx)
	}
	args.Envv = append(args.Envv, c.Env...)
	if c.Dir != "" {
		args.WorkingDirectory = c.Dir
	}
	return args, err
}

// start starts the command with pipes, and gives the client the other ends of these. This program
// keeps none: how fast a client reads and writes is between it and the command.
func start(ctx context.Context, control *sentry.Control, args wire.ExecArgs, c *protocol.Command, a *answer) (pid int32, err error) {
	p, err := newPipes(c)
	if err != nil {
		return 0, err
	}
	defer p.close()
	pid, err = control.App().Execute(ctx, args, p.theirs[:]...)
	if err != nil {
		return 0, err
	}
	return pid, a.send(&protocol.Response{Started: true}, p.client...)
}

// timeOver kills a command whose time is over.
func (b *sandboxes) timeOver(ctx context.Context, e *execution, rec *actual.Record, pid int32) {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	// The connection is one of its own: the other one waits for the command.
	beside, err := sentry.ConnectTo(ctx, b.store, rec)
	if err == nil {
		err = beside.App().SignalGroup(ctx, unix.SIGKILL, pid)
		beside.Close()
	}
	if err == nil {
		// The command has ended, and its connection tells so.
		select {
		case <-ctx.Done():
		case <-time.After(killTimeout):
		}
	}
	e.cancel(e.timedOut())
}

// became says why a command did not start, or what became of it.
func (b *sandboxes) became(ctx context.Context, control *sentry.Control, rec *actual.Record, e *execution, err error) error {
	if _, typed := errors.AsType[*protocol.Error](err); typed || ctx.Err() != nil {
		return err
	}
	if !errors.Is(err, sentry.ErrClosed) {
		err = attach.CommandError(e.request.Command.Args[0], control.App().ExplainCommand(ctx, err))
		if c, ok := errors.AsType[*exit.Error](err); ok {
			return &commandError{c.Code, &protocol.Error{Kind: protocol.KindCommand, Message: err.Error()}}
		}
		return err
	}
	end := fate.Of(ctx, b.store, rec)
	switch {
	case end == nil:
		return protocol.Failf(protocol.KindEnded, "the sandbox ended while the command was running")
	case end.Reason == actual.ReasonOOMKilled:
		return protocol.Failf(protocol.KindOutOfMemory, "out of memory, the sandbox ended while the command was running (%s): %s", end.Reason, end.Message)
	case end.Message == "":
		return protocol.Failf(protocol.KindEnded, "the sandbox ended while the command was running: %s", end.Reason)
	}
	return protocol.Failf(protocol.KindEnded, "the sandbox ended while the command was running: %s: %s", end.Reason, end.Message)
}

// pipes are those of a command.
type pipes struct {
	theirs [3]*os.File // the ends that the command gets
	client []*os.File  // the others: output, errors, input
	all    []*os.File
}

// newPipes makes pipes that block: an end shares its flags with nobody but who has the same end.
func newPipes(c *protocol.Command) (*pipes, error) {
	p := &pipes{}
	if err := p.make(c); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pipes) make(c *protocol.Command) error {
	outputs := 2
	if c.Merged {
		outputs = 1
	}
	for i := range outputs {
		r, w, err := p.pipe()
		if err != nil {
			return err
		}
		p.theirs[1+i], p.client = w, append(p.client, r)
	}
	if c.Merged {
		p.theirs[2] = p.theirs[1]
	}
	if c.Input {
		r, w, err := p.pipe()
		p.theirs[0], p.client = r, append(p.client, w)
		return err
	}
	empty, err := os.Open(os.DevNull)
	if err == nil {
		p.theirs[0], p.all = empty, append(p.all, empty)
	}
	return err
}

func (p *pipes) pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("create pipe: %w", err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe")
	p.all = append(p.all, r, w)
	return r, w, nil
}

func (p *pipes) close() {
	for _, f := range p.all {
		_ = f.Close()
	}
}
