// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/launcher/wire"
)

// StartWaiting starts a child that waits for what it is to become. Of the program Args,
// Donation and Gate are not needed. It leaves when this process ends, or closes it.
func StartWaiting(role, state string, p Program) (*Child, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create socket pair: %w", err)
	}
	p.Gate = os.NewFile(uintptr(fds[0]), "waiting")
	theirs := os.NewFile(uintptr(fds[1]), "waiting")
	p.Donation = new(Donation)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", os.DevNull, err), p.Gate.Close(), theirs.Close())
	}
	defer null.Close()
	p.Donation.files, err = wire.WaitingFDs(theirs, null)
	if err != nil {
		return nil, errors.Join(err, p.Gate.Close(), p.Donation.Close())
	}
	p.Args = wire.WaitingArgv(role, state)
	c, err := StartGated(p)
	if err != nil {
		return nil, err
	}
	c.waits = true
	return c, nil
}

// Prepared waits until a child that waits has prepared itself.
func (c *Child) Prepared(ctx context.Context) error {
	fds := []unix.PollFd{{Fd: int32(c.gate.Fd()), Events: unix.POLLIN}, {Fd: int32(c.PIDFD.Fd()), Events: unix.POLLIN}}
	if err := Poll(ctx, fds); err != nil {
		return err
	}
	return wire.ReadPrepared(c.gate)
}

// Ended says whether the child has ended. It is not reaped.
func (c *Child) Ended() bool {
	fds := []unix.PollFd{{Fd: int32(c.PIDFD.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}

// Become makes a child that waits the program's, as if StartGated had started that: it has
// its command line, its stderr and its descriptors, and waits at its gate. On error, and if
// it does not answer soon, it is not to be used, and the program can be started instead.
func (c *Child) Become(p *Program) error {
	if !c.waits {
		return errors.New("it does not wait")
	}
	stderr := p.Stderr
	if stderr == nil {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", os.DevNull, err)
		}
		defer null.Close()
		stderr = null
	}
	err := crashpoint.Do(crashpoint.WaitingHand, func() error {
		if err := wire.Hand(c.gate, p.Args, stderr, p.Donation.files); err != nil {
			return err
		}
		return c.taken()
	})
	if err != nil {
		return fmt.Errorf("hand over to a waiting process: %w", err)
	}
	// It has copies of all of them, and ends with its gate from here on, as any other. That
	// something could not be closed is no reason to start the program a second time.
	_, _ = c.gate.Close(), p.Donation.Close()
	c.gate, c.waits, c.Waited = p.Gate, false, true
	// It is in the group of those that wait.
	c.InGroup = false
	return nil
}

// takeTimeout is how long a waiting process may take to become what it is told. One that is
// stopped never does, and is not waited for any longer than a start without it takes.
const takeTimeout = 100 * time.Millisecond

// taken waits until a child that waits has answered that it is what it was told to become.
func (c *Child) taken() error {
	fds := []unix.PollFd{{Fd: int32(c.gate.Fd()), Events: unix.POLLIN}, {Fd: int32(c.PIDFD.Fd()), Events: unix.POLLIN}}
	for until := time.Now().Add(takeTimeout); ; {
		n, err := unix.Poll(fds, int(max(0, time.Until(until)).Milliseconds()))
		switch {
		case n > 0:
			return wire.ReadTaken(c.gate)
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("poll: %w", err)
		case time.Until(until) <= 0:
			return fmt.Errorf("no answer within %s", takeTimeout)
		}
	}
}

// Started are the processes that the child has started, and those that these have. The child
// waits, and has waited for none of them: their numbers are their own.
func (c *Child) Started() ([]int, error) {
	_, children, err := family(c.PID)
	return children, err
}

// WaitingPriority has a child that waits, and what it has started, run when nobody else
// wants the processor; with usual as others do. The child must not have been waited for: then its number is its own.
func (c *Child) WaitingPriority(usual bool) error {
	policy := uint32(unix.SCHED_IDLE)
	if usual {
		policy = unix.SCHED_NORMAL
	}
	return setPolicy(c.PID, policy)
}

// Serves has a child that has become a warm sentry be that of a sandbox: it is sent the claim,
// of wire.Claim, and waits at its gate like any other. On error, and if it does not answer
// soon, it is not to be used.
func (c *Child) Serves(claim []byte) error {
	err := crashpoint.Do(crashpoint.WarmClaim, func() error {
		if err := wire.SendClaim(c.gate, claim); err != nil {
			return err
		}
		return c.taken()
	})
	if err != nil {
		return fmt.Errorf("claim a warm sentry: %w", err)
	}
	return nil
}

// Conf waits for the configuration that a warm sentry tells when its kernel runs.
func (c *Child) Conf(ctx context.Context) (json.RawMessage, error) {
	fds := []unix.PollFd{{Fd: int32(c.gate.Fd()), Events: unix.POLLIN}, {Fd: int32(c.PIDFD.Fd()), Events: unix.POLLIN}}
	if err := Poll(ctx, fds); err != nil {
		return nil, err
	}
	return wire.ReadConf(c.gate)
}

// NewWarmGate makes the gate of a warm sentry, which takes a claim before it opens.
func NewWarmGate(d *Donation) (ours *os.File, fd int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("create start gate: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "start gate"), d.GiveFD(fds[1], "start gate"), nil
}
