// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/wire"
)

// Pair is a sentry and its gofer while they are being started.
type Pair struct {
	Sentry, Gofer *proc.Child
	// Files are the single files that they serve.
	Files []actual.SharedFile
	// OnDisk is what they write to the disk of the state directory.
	OnDisk []actual.OnDisk
	// Waited says that the sentry was there before its sandbox was asked for.
	Waited bool
	ready  *os.File // start-sync: one byte says the control server is up
	// app is what the application is started from in a warm sentry, nil in any other.
	app *application
}

// Close closes what the launcher has of both.
func (p *Pair) Close() {
	p.Sentry.Close()
	p.Gofer.Close()
	_ = p.closeOwn() // nothing was written to it
}

// closeOwn closes what is neither the sentry's nor the gofer's.
func (p *Pair) closeOwn() error {
	err := p.app.close()
	if p.ready != nil {
		err = errors.Join(err, p.ready.Close())
	}
	return err
}

// Open opens the gates, the gofer's first.
func (p *Pair) Open() error {
	return errors.Join(
		crashpoint.Do(crashpoint.GoferGate, func() error { return p.Gofer.Open(gofer.GateOpen) }),
		crashpoint.Do(crashpoint.SentryGate, func() error { return p.Sentry.Open(wire.GateOpen) }),
	)
}

// Abandon kills both before they are on record.
func (p *Pair) Abandon() error {
	return errors.Join(p.Sentry.Abandon(), p.Gofer.Abandon(), p.closeOwn())
}

// Connect waits for the sentry's control server and connects to it, and to
// nobody else.
func (p *Pair) Connect(ctx context.Context, dir int, name string) (*sentry.Control, error) {
	if p.app != nil {
		return p.app.warm.takeControl(), nil // it is connected
	}
	if err := waitReady(ctx, p.ready, p.Sentry, p.Gofer); err != nil {
		return nil, err
	}
	return sentry.Dial(ctx, dir, name, p.Sentry.PID)
}

// waitReady waits for the sentry's control server.
func waitReady(ctx context.Context, ready *os.File, s, gofer *proc.Child) error {
	fds := []unix.PollFd{
		{Fd: int32(ready.Fd()), Events: unix.POLLIN},
		{Fd: int32(s.PIDFD.Fd()), Events: unix.POLLIN},
		{Fd: int32(gofer.PIDFD.Fd()), Events: unix.POLLIN},
	}
	if err := proc.Poll(ctx, fds); err != nil {
		return fmt.Errorf("wait for control server: %w", err)
	}
	if fds[0].Revents&unix.POLLIN != 0 {
		var b [1]byte
		if n, err := ready.Read(b[:]); n == 1 {
			return nil
		} else if fds[1].Revents == 0 && fds[2].Revents == 0 {
			return fmt.Errorf("wait for control server: %w", err)
		}
	}
	// A gofer leaves as soon as its sentry has: if both are gone, the sentry was
	// first. A sentry that is about to be gone has closed its end of ready.
	if fds[0].Revents == 0 && fds[1].Revents == 0 {
		return errors.New("wait for control server: the gofer exited")
	}
	return errors.New("wait for control server: the sentry exited")
}
