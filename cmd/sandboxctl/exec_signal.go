// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/sentry"
)

// listen is signal.Notify without the signals that the caller of this program
// has it ignore, as nohup does, and a shell for what it runs in the background.
func listen(ch chan<- os.Signal, signals ...os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(ch, s)
		}
	}
}

// listenedTo are all signals that exec, and main around it, ever listen to. Reset
// without arguments goes through every signal there is, which took 2 ms.
var listenedTo = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGPIPE}

// impatience is how many INT or TERM end this program, and the command with it: a
// command that ignores them must not keep its caller.
const impatience = 3

// giveUp cancels when somebody has had enough.
func giveUp(cancel context.CancelCauseFunc) (stop func()) {
	ch := make(chan os.Signal, 2*impatience)
	done := make(chan struct{})
	listen(ch, unix.SIGINT, unix.SIGTERM)
	go func() {
		for n := 0; ; {
			select {
			case <-done:
				return
			case <-ch:
				if n++; n == impatience {
					cancel(fmt.Errorf("interrupted %d times; the command is ended", n))
				}
			}
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(ch)
		close(done)
	})
}

// listen returns the signals that are for the command. With a terminal only a
// change of its size is one; keys are input.
func (x *execution) listen() chan os.Signal {
	ch := make(chan os.Signal, 8)
	wanted := []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}
	switch {
	case x.tty:
		wanted = []os.Signal{unix.SIGWINCH}
	case x.oci:
		wanted = append(wanted, unix.SIGHUP)
	}
	listen(ch, wanted...)
	return ch
}

// forwardSignals passes signals to the command, and SIGPIPE when nobody takes its
// output any more: gVisor sends none for what is a pipe of the host.
func (x *execution) forwardSignals(ctx context.Context, pid int32, signals chan os.Signal, broken <-chan chan struct{}) (stop func()) {
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case told := <-broken:
				x.signal(ctx, pid, unix.SIGPIPE)
				close(told)
			case s := <-signals:
				if x.tty {
					x.signalForeground(ctx, pid, s.(unix.Signal))
				} else {
					x.signal(ctx, pid, s.(unix.Signal))
				}
			}
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
	})
}

// signal sends a signal to the command. What ends it goes to all of its process
// group: a shell waits for its children, or would leave them behind.
func (x *execution) signal(ctx context.Context, pid int32, sig unix.Signal) {
	x.connected(ctx, func(c *sentry.Control) error {
		if sig == unix.SIGUSR1 || sig == unix.SIGUSR2 {
			return c.SignalPID(ctx, sig, pid)
		}
		return c.SignalGroup(ctx, sig, pid)
	})
}

// signalForeground signals what the command has in the foreground of its terminal.
func (x *execution) signalForeground(ctx context.Context, pid int32, sig unix.Signal) {
	x.connected(ctx, func(c *sentry.Control) error { return c.SignalForeground(ctx, sig, pid) })
}

// connected calls f with a connection of its own: the other one waits for the
// command. There is no error to tell: the command may have ended meanwhile.
func (x *execution) connected(ctx context.Context, f func(*sentry.Control) error) {
	c, _, err := sentry.Connect(ctx, x.store, x.name)
	if err != nil {
		return
	}
	_, _ = f(c), c.Close()
}
