// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/config"

	"sandboxctl.dev/cmd/sandboxctl-sentry/application"
	"sandboxctl.dev/launcher/wire"
)

// warm is a sentry that boots its kernel before it has a sandbox.
type warm struct {
	gate    int
	conf    *config.Config
	clients *sessions
	app     *application.Second
	// opts are those of its sandbox, from the claim on.
	opts   atomic.Pointer[options]
	out    *concealer
	forget func()
	// claimed says that it has a sandbox, or is about to.
	claimed atomic.Bool
}

// wait tells the launcher that the kernel runs, and waits beside it for a sandbox. Until its
// gate is open it ends together with the daemon that started it.
func (w *warm) wait() error {
	b, err := json.Marshal(w.conf)
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	if _, err := unix.Write(w.gate, b); err != nil {
		return fmt.Errorf("report to the launcher: %w", err)
	}
	// It has been run for the last time before it is at rest, or it has a sandbox.
	time.AfterFunc(settleDelay+time.Second, func() {
		if !w.claimed.Load() {
			w.forget()
		}
	})
	go func() {
		if code := w.serve(); code != wire.ExitOK {
			os.Exit(code)
		}
	}()
	return nil
}

// serve takes a claim and waits for the gate. It returns the code to exit with if there is
// nothing to live for.
func (w *warm) serve() int {
	msg, err := readMessage(w.gate, wire.MaxClaim)
	if err != nil || len(msg) == 0 {
		return wire.ExitGateClosed
	}
	w.claimed.Store(true)
	if err := w.take(msg); err != nil {
		fmt.Fprintf(w.out, "claim: %v\n", err)
		return wire.ExitUsage
	}
	if msg, err = readMessage(w.gate, 1); err != nil || len(msg) != 1 || msg[0] != wire.GateOpen {
		return wire.ExitGateClosed
	}
	_ = unix.Close(w.gate) // nothing was written to it that is not read
	heap.settleSoon()
	return wire.ExitOK
}

// take makes it the sentry of a sandbox.
func (w *warm) take(msg []byte) error {
	claim, err := wire.DecodeClaim(msg)
	if err != nil {
		return err
	}
	opts, flags, err := parseOptions(claim.Args)
	if err != nil {
		return err
	}
	k := w.clients.current.Load()
	if flags.NArg() != 2 || flags.Arg(0) != wire.VerbBoot || k == nil {
		return errors.New("expected the name of a sandbox")
	}
	if err := setErrnos(opts.errnos); err != nil {
		return err
	}
	heap.boot()
	w.clients.environment.Store(&claim.Environment)
	w.out.conceal(claim.Environment, opts.private)
	if len(w.out.values) > 0 {
		log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: w.out}})
	}
	setLogLevel(opts.logLevel)
	ctx := k.SupervisorContext()
	uts := k.RootUTSNamespace()
	uts.SetHostName(ctx, claim.Hostname)
	uts.SetDomainName(ctx, claim.Domainname)
	opts.exitFD = w.opts.Load().exitFD
	w.opts.Store(opts)
	w.app.Is(flags.Arg(1))
	go w.app.End()
	w.forwardSignals()
	wire.Rename(os.Args, claim.Args)
	if _, err := unix.Write(w.gate, wire.Taken()); err != nil {
		return fmt.Errorf("answer the launcher: %w", err)
	}
	return nil
}

// forwardSignals passes to the application what gVisor passes to the first container, which
// blocks all of it.
func (w *warm) forwardSignals() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, ended...)
	go func() {
		for s := range signals {
			if n, ok := s.(syscall.Signal); ok {
				w.app.Signal(int32(n))
			}
		}
	}()
}

// readMessage reads one message of a socket that keeps them apart, none at its end. What is
// longer is cut.
func readMessage(socket, most int) ([]byte, error) {
	// Not a read at once: it would hold the room for the message meanwhile.
	for {
		fds := []unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}}
		if _, err := unix.Ppoll(fds, nil, nil); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
	b := make([]byte, most)
	for {
		if n, err := unix.Read(socket, b); !errors.Is(err, unix.EINTR) {
			return b[:max(n, 0)], err
		}
	}
}

// newWarm returns what a warm sentry has, nil for any other.
func newWarm(opts *options, conf *config.Config, pre *prepared, clients *sessions, out *concealer) *warm {
	if !opts.warm {
		return nil
	}
	w := &warm{gate: opts.gateFD, conf: conf, clients: clients, app: application.NewSecond(), out: out, forget: pre.forget}
	if w.forget == nil {
		w.forget = func() {} // it did not wait before it booted
	}
	w.opts.Store(opts)
	clients.current.created = w.app.Created
	return w
}

// ended returns the options of the sandbox whose kernel has ended. A kernel that ends before
// its application says nothing of that one's end.
func (w *warm) ended(opts *options) (*options, error) {
	if w == nil {
		return opts, nil
	}
	if !w.app.Ended() {
		return nil, errors.New("the kernel ended before the application")
	}
	return w.opts.Load(), nil
}
