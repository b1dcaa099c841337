// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// notIgnored are those of the signals that the caller of this program does not have
// it ignore, as nohup does, and a shell for what it runs in the background.
func notIgnored(signals ...os.Signal) (out []os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			out = append(out, s)
		}
	}
	return out
}

// listenedTo are all signals that sessions, and main around them, ever listen to.
// Reset without arguments goes through every signal there is, which took 2 ms.
var listenedTo = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGWINCH, unix.SIGPIPE}

// giveUp cancels after so many INT or TERM.
func giveUp(impatience int, cancel context.CancelCauseFunc) (stop func()) {
	signals := notIgnored(unix.SIGINT, unix.SIGTERM)
	if len(signals) == 0 {
		return func() {} // Notify would take none for all
	}
	ch := make(chan os.Signal, 2*impatience)
	done := make(chan struct{})
	signal.Notify(ch, signals...)
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
	return func() {
		signal.Stop(ch)
		close(done)
	}
}

// forward passes signals on to the process, in their order, until it is stopped. A
// stream of the process that nobody reads any more is one too: gVisor sends no SIGPIPE
// for a pipe of the host.
func (s *Session) forward(ctx context.Context, p Process) (stop func()) {
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case told := <-s.relay.broken:
				if s.terminal != nil {
					s.hangUp(ctx, p)
				} else {
					p.Signal(ctx, unix.SIGPIPE)
				}
				close(told)
			case sig := <-s.signals:
				if sig == unix.SIGWINCH && s.terminal != nil {
					s.terminal.resize()
					if !s.opts.Keys {
						continue // the kernel tells those who have it
					}
				}
				p.Signal(ctx, sig.(unix.Signal))
			}
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(s.signals)
		close(done)
	})
}
