// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
)

var euid = os.Geteuid()

// kernel is what a program asks of the host about processes.
type kernel struct{ h *host }

func (h *host) processes() process.Processes { return process.Processes{Kernel: kernel{h}} }

// BootID implements process.Kernel.
func (k kernel) BootID() (string, error) { return k.h.boot, nil }

// PIDNamespace implements process.Kernel.
func (k kernel) PIDNamespace() (uint64, error) { return 0, nil }

// PidfdOpen implements process.Kernel.
func (k kernel) PidfdOpen(pid int) (process.Pidfd, error) {
	t := k.h.running()
	var p *proc
	err := k.h.call(t, looks, fmt.Sprintf("pidfd_open %d", pid), func(bool) error {
		if p = k.h.procs[pid]; p == nil {
			return unix.ESRCH
		}
		return nil
	})
	if err != nil && k.h.is("unknown-is-dead") {
		err = unix.ESRCH
	}
	if err != nil {
		return nil, err
	}
	if t.loop {
		p.watched = t.p // an Observer's: it looks again when it dies
	}
	return &pidfd{h: k.h, proc: p, p: t.p}, nil
}

// StartTime implements process.Kernel.
func (k kernel) StartTime(pid int) (uint64, error) {
	if k.h.is("liveness-by-pid") {
		// Whoever has the number is taken for the one on record.
		for _, name := range manifestNames {
			rec := k.h.onRecord(name)
			if rec == nil {
				continue
			}
			for _, id := range []*process.Identity{rec.Sentry, rec.Gofer} {
				if id != nil && id.PID == pid {
					return id.StartTime, nil
				}
			}
		}
	}
	p := k.h.procs[pid]
	if p == nil {
		return 0, os.ErrNotExist
	}
	return p.id.StartTime, nil
}

// pidfd is a descriptor that a program has of a process.
type pidfd struct {
	h *host
	*proc
	p *program
}

// Inode implements process.Pidfd.
func (f *pidfd) Inode() (uint64, error) {
	if f.h.is("liveness-by-pid") || f.h.is("liveness-by-start-time") {
		return 0, nil
	}
	return f.id.Inode, nil
}

// Dead implements process.Pidfd.
func (f *pidfd) Dead() (bool, error) {
	if f.p.dead {
		return false, errDead
	}
	return f.dead, nil
}

// Wait implements process.Pidfd.
func (f *pidfd) Wait(ctx context.Context) error {
	t := f.h.running()
	deadline, _ := ctx.Deadline()
	f.h.park(t, func() bool { return f.dead || ctx.Err() != nil }, deadline)
	switch {
	case t.p.dead:
		return errDead
	case f.dead:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !deadline.IsZero() && !time.Now().Before(deadline):
		return context.DeadlineExceeded
	}
	return errors.New("interrupted")
}

// Signal implements process.Pidfd.
func (f *pidfd) Signal(unix.Signal) error {
	return f.h.sigkill(f.h.running(), f.proc, f.h.running().sandbox)
}

// Reap implements process.Pidfd.
func (f *pidfd) Reap() bool {
	if !f.dead || f.reaped || f.parent != f.p || f.p.dead {
		return false
	}
	f.h.reap(f.proc)
	return true
}

// FD implements process.Pidfd.
func (f *pidfd) FD() int { return -1 }

// Close implements process.Pidfd.
func (f *pidfd) Close() error { return nil }
