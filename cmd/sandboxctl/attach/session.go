// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"

	"golang.org/x/sys/unix"
)

// Streams are the standard streams of this program.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Process is what a session is connected with.
type Process interface {
	// Signal passes on a signal that this program got or a key stands for. There is no
	// error to report: the process may have ended meanwhile.
	Signal(ctx context.Context, sig unix.Signal)
	// HangUp tells it that our terminal is gone. An error ends the session.
	HangUp(ctx context.Context) error
	// Wait waits for its end and returns its exit code, 128+N if signal N ended it.
	Wait(ctx context.Context) (code int, err error)
}

// Options are how a session treats what it gets.
type Options struct {
	// Signals are passed on to the process.
	Signals []os.Signal
	// Keys says that the kernel sends no signals for the keys and the size of the
	// process's terminal, because the processes that have it are in a sandbox. The
	// session does then.
	Keys bool
	// Impatience is how many INT or TERM end the session, 0 if none do: a command that
	// ignores them must not keep its caller.
	Impatience int
}

// Session is one process connected with our streams.
type Session struct {
	streams  Streams
	opts     Options
	relay    *relay
	terminal *terminal // nil without
	signals  chan os.Signal
	cancel   context.CancelCauseFunc
	stop     []func()
}

// Open begins a session. From here on signals are for the process and do not end this
// program. The context that it returns outlives ctx, and ends with the session, or when
// somebody has had enough. Close must be called.
func Open(ctx context.Context, streams Streams, opts Options) (context.Context, *Session, error) {
	r, err := newRelay()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s := &Session{streams: streams, opts: opts, relay: r, cancel: cancel, signals: make(chan os.Signal, 8)}
	if len(opts.Signals) > 0 { // Notify without any takes none for all
		signal.Notify(s.signals, opts.Signals...)
	}
	s.onEnd(func() { signal.Stop(s.signals) })
	if opts.Impatience > 0 {
		s.onEnd(giveUp(opts.Impatience, cancel))
	}
	return ctx, s, nil
}

func (s *Session) onEnd(f func()) { s.stop = append(s.stop, f) }

// Close ends a session, also one whose process did not start.
func (s *Session) Close() error {
	for _, f := range slices.Backward(s.stop) {
		f()
	}
	s.stop = nil
	s.cancel(nil)
	return s.relay.abort()
}

// Pipes gives the ends of pipes for the process's standard streams. Without input it
// gets one that has ended.
func (s *Session) Pipes(input bool) (ends [3]*os.File, err error) {
	if input {
		ends[0], err = s.relay.input(s.streams.In)
	} else {
		ends[0], err = s.relay.empty()
	}
	if err != nil {
		return ends, err
	}
	ends[1], ends[2], err = s.relay.outputs(s.streams.Out, s.streams.Err)
	return ends, err
}

// Terminal gives a terminal for the process that is like ours: three times the same
// file.
func (s *Session) Terminal() (ends [3]*os.File, err error) {
	t, tty, err := openTerminal(s.streams.In)
	if err != nil {
		return ends, err
	}
	s.terminal = t
	s.relay.given = append(s.relay.given, tty)
	s.onEnd(t.close)
	if err := s.relay.terminal(t.theirs, s.streams.Out); err != nil {
		return ends, err
	}
	signal.Notify(s.signals, unix.SIGWINCH)
	return [3]*os.File{tty, tty, tty}, nil
}

// Started begins to copy: the process has its ends, or is as good as started. A process
// that somebody waits for would else stand still when its pipe or terminal is full.
// Run does the same where the caller has not.
func (s *Session) Started() error { return s.relay.started() }

// Run connects a process that has been started, until it ends. It returns its exit
// code.
func (s *Session) Run(ctx context.Context, p Process) (code int, err error) {
	stop := s.forward(ctx, p)
	defer stop()
	if s.terminal != nil {
		var restore func() error
		if restore, err = s.takeTerminal(ctx, p); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, restore()) }()
	}
	if err := s.Started(); err != nil {
		return 0, err
	}
	code, err = p.Wait(ctx)
	if err != nil && ctx.Err() != nil {
		// Who has had enough does not wait for the reader of the output.
		s.relay.settled = true
		return 0, err
	}
	// Also of a process that was lost with its sandbox, there is what it has written.
	stop()
	if s.terminal == nil {
		// Nobody is left to pass them on to: they end this program, also where it can't
		// write what the process has written.
		signal.Reset(listenedTo...)
	}
	return code, errors.Join(err, s.relay.finish())
}

// takeTerminal has our terminal pass on each key as it is, to that of the process.
func (s *Session) takeTerminal(ctx context.Context, p Process) (restore func() error, err error) {
	restore, err = s.terminal.raw()
	if err != nil {
		return nil, err
	}
	var to io.Writer = s.terminal.master
	if s.opts.Keys {
		to = &keyboard{terminal: s.terminal, signal: func(sig unix.Signal) { p.Signal(ctx, sig) }}
	}
	from := reader(s.terminal.in)
	go func() {
		// A terminal never ends but for good.
		_, _ = io.Copy(to, from)
		s.hangUp(ctx, p)
	}()
	return restore, nil
}

func (s *Session) hangUp(ctx context.Context, p Process) {
	if err := p.HangUp(ctx); err != nil {
		s.cancel(err)
	}
}
