// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// Roles of processes that wait, as the process list shows them.
const (
	waitingSentry = "sentry"
	waitingGofer  = "gofer"
)

// leastWaitedMemory is the least limit of memory that a sandbox of waiting processes has.
// What they took before they were in its group is not accounted to it: less than 0.5 % of
// this.
const leastWaitedMemory = 1 << 30

// Unfit says why a sandbox can't have processes that waited, "" if it can. They are of one
// kind: nobody in a user namespace of its own and a network namespace of its own, in which
// there is nothing yet, and a gofer with the ids of this host.
func Unfit(st *setup.Setup) string {
	memory := setup.Limit(st.Limits.Memory, st.Defaults.Memory)
	switch {
	case st.HostNetwork:
		return "it has the network of the host"
	case st.NetNS != "":
		return "its network namespace was there before it (spec.network.mode netns or cni)"
	case st.HostUserns():
		return "spec.fileAccess is direct"
	case st.Maps != nil:
		return "it has idMappings"
	case memory > 0 && memory < leastWaitedMemory:
		return "its limit of memory is less than 1 GiB"
	}
	return ""
}

// Waiting are a sentry and a gofer that wait for a sandbox. What a sandbox has taken is nil.
type Waiting struct {
	Sentry, Gofer *proc.Child
	// Refused is why one that was told what to become was not used, nil if each was.
	Refused error
	// Misfit is why one was not told, "" if each was.
	Misfit string
	// Warm is what the sentry has if it has booted a kernel, nil if it only waits.
	Warm *Warm
	said *os.File // what they have written to stderr
}

// WaitingLaunch is what they are started from.
type WaitingLaunch struct {
	// Sentry and Gofer are the programs, whose names are their paths.
	Sentry, Gofer *os.File
	// State is the path of the state directory.
	State string
	// CgroupFD is the group that both start in, -1 if there is none.
	CgroupFD int
}

// StartWaiting starts a sentry and a gofer that wait. They are not prepared yet.
func StartWaiting(la *WaitingLaunch) (_ *Waiting, err error) {
	fd, err := unix.MemfdCreate("waiting", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create memory file: %w", err)
	}
	w := &Waiting{said: os.NewFile(uintptr(fd), "waiting")}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Abandon())
		}
	}()
	start := func(role string, p proc.Program) (c *proc.Child, err error) {
		p.Stderr, p.CgroupFD = w.said, la.CgroupFD
		err = crashpoint.Do(crashpoint.WaitingStart, func() (err error) { c, err = proc.StartWaiting(role, la.State, p); return err })
		if err != nil {
			return nil, err
		}
		if err := errors.Join(c.SetOOMScore(proc.SandboxOOMScore), c.WaitingPriority(false)); err != nil {
			return nil, errors.Join(err, c.Abandon())
		}
		return c, nil
	}
	if w.Sentry, err = start(waitingSentry, proc.Program{Path: la.Sentry.Name(), Binary: la.Sentry, Attr: sentryAttr(&setup.Setup{})}); err != nil {
		return nil, err
	}
	attr, err := goferAttr(nil)
	if err != nil {
		return nil, err
	}
	empty, err := netns.Empty()
	if err != nil {
		return nil, err
	}
	if w.Gofer, err = start(waitingGofer, proc.Program{Path: la.Gofer.Name(), Binary: la.Gofer, Attr: attr, Netns: empty}); err != nil {
		return nil, err
	}
	return w, nil
}

// Prepare waits until both have prepared themselves. They run with the priority of others
// from then on.
func (w *Waiting) Prepare(ctx context.Context) error {
	for _, c := range w.children() {
		if err := c.Prepared(ctx); err != nil {
			return fmt.Errorf("%w: %s", err, w.lastWords())
		}
		if err := c.WaitingPriority(true); err != nil {
			return err
		}
	}
	return nil
}

// lastWords is the beginning of what they have written.
func (w *Waiting) lastWords() string {
	b := make([]byte, 1000)
	n, err := w.said.ReadAt(b, 0)
	if n == 0 {
		return fmt.Sprintf("nothing was printed (%v)", err)
	}
	return untrusted.Line(string(b[:n]), len(b))
}

func (w *Waiting) children() []*proc.Child {
	var out []*proc.Child
	for _, c := range []*proc.Child{w.Sentry, w.Gofer} {
		if c != nil {
			out = append(out, c)
		}
	}
	return out
}

// Identities are those of both, for a record.
func (w *Waiting) Identities() (out []process.Identity) {
	for _, c := range w.children() {
		out = append(out, c.Identity)
	}
	return out
}

// Whole says whether nothing of it was taken, and both live.
func (w *Waiting) Whole() bool {
	return w.Sentry != nil && w.Gofer != nil && !w.Sentry.Ended() && !w.Gofer.Ended()
}

// Abandon ends what was not taken. It may be called of nil.
func (w *Waiting) Abandon() error {
	if w == nil {
		return nil
	}
	var errs []error
	for _, c := range w.children() {
		errs = append(errs, c.Abandon())
	}
	errs = append(errs, w.Warm.close(), w.said.Close())
	w.Sentry, w.Gofer, w.Warm = nil, nil, nil
	return errors.Join(errs...)
}

// waiter is one process that waits, of which another one can be taken.
type waiter struct {
	of *Waiting
	at **proc.Child
}

func (w *Waiting) sentry() waiter {
	if w == nil {
		return waiter{}
	}
	return waiter{w, &w.Sentry}
}

func (w *Waiting) gofer() waiter {
	if w == nil {
		return waiter{}
	}
	return waiter{w, &w.Gofer}
}

// start has the process become the program, or starts the program if it can't. waited says
// which.
func (w waiter) start(p *proc.Program) (c *proc.Child, waited bool, err error) {
	if w.at == nil || *w.at == nil {
		c, err = proc.StartGated(*p)
		return c, false, err
	}
	if why := wire.Fits(p.Args, len(p.Donation.Descriptors())); why != "" {
		w.of.Misfit = why
		c, err = proc.StartGated(*p)
		return c, false, err
	}
	c, *w.at = *w.at, nil
	herr := c.Become(p)
	if herr == nil {
		return c, true, nil
	}
	// It has ended, or is stopped, say. The sandbox is started all the same.
	w.of.Refused = errors.Join(w.of.Refused, fmt.Errorf("%w: %s", herr, w.of.lastWords()))
	if err := c.Abandon(); err != nil {
		return nil, false, errors.Join(herr, err, p.Donation.Close(), p.Gate.Close())
	}
	c, err = proc.StartGated(*p)
	return c, false, err
}
