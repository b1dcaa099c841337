// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
)

// pids is how many process numbers there are: the pairs of all names, and a few
// for others.
const pids = 13

type gate int

const (
	gateNone gate = iota // not a process of a sandbox
	gateShut
	gateOpen
	gateEOF // the process that held it has died
)

// proc is a process. It stays what it is when its number is given again: a
// pointer to it is a pidfd.
type proc struct {
	id      process.Identity
	role    string // sentry, gofer, stranger
	name    string
	uid     string
	attempt int64
	hash    string // of the spec it runs
	image   string // its root, "" if that is none
	content int    // of the file that its manifest refers to: what a gofer has, what the application of a sentry has read

	dead, reaped bool
	killed       bool // SIGKILL is on its way
	gate         gate
	holder       *program // of the gate's write end
	parent       *program // nil: init
	partner      *proc
	exitFile     *inode
	watched      *program // that looks again when it dies

	ready   bool      // its control server answers
	started bool      // its application was started
	asked   bool      // the application got its stop signal
	ended   *int      // how the application ended
	wrote   bool      // its exit record
	left    bool      // a gofer that has seen its sentry die
	running bool      // a record said so
	undone  bool      // the create that made it has failed
	doomed  bool      // it will not come up
	hung    bool      // it does nothing
	stuck   time.Time // until then it does not die, either
}

// spawn makes a process. The number that became free last is often the next.
func (h *host) spawn(p *proc) error {
	var free []int
	for n := 2; n < 2+pids; n++ {
		if h.procs[n] == nil {
			free = append(free, n)
		}
	}
	if len(free) == 0 {
		return unix.EAGAIN
	}
	pid := free[h.rng.IntN(len(free))]
	if h.rng.IntN(3) > 0 && slices.Contains(free, h.lastFree) {
		pid = h.lastFree
	}
	h.inode++
	if h.used[pid] {
		h.stats.PIDReuses++
	}
	h.used[pid] = true
	p.id = process.Identity{PID: pid, Inode: h.inode, StartTime: uint64(time.Since(h.booted)/(10*time.Millisecond)) + 100, BootID: h.boot}
	h.procs[pid] = p
	return nil
}

// die ends a process. One whose parent lives stays a zombie until that reaps it.
func (h *host) die(p *proc) {
	if p.dead {
		return
	}
	p.dead = true
	if p.parent == nil || p.parent.dead {
		if !h.lazyInit {
			h.reap(p)
		}
	}
	// The daemon polls the pidfds that it has.
	if d := h.daemon; d != nil && !d.dead && p.watched == d {
		h.notify()
	}
}

func (h *host) reap(p *proc) {
	if p.reaped || !p.dead {
		return
	}
	p.reaped = true
	if h.procs[p.id.PID] == p {
		delete(h.procs, p.id.PID)
		// Some are reaped in no order at one step.
		if h.freedAt != h.stats.Steps || p.id.PID > h.lastFree {
			h.lastFree, h.freedAt = p.id.PID, h.stats.Steps
		}
	}
	for _, g := range h.cgroups {
		delete(g, p)
	}
}

// hostSteps are what the processes will do by themselves, in the order of their
// numbers.
func (h *host) hostSteps() []func() {
	out := h.scratch[:0]
	for n := 2; n < 2+pids; n++ {
		if p := h.procs[n]; p != nil {
			if f := h.next(p); f != nil {
				out = append(out, f)
			}
		}
	}
	h.scratch = out
	return out
}

// next is what a process does next, nil if it waits.
func (h *host) next(p *proc) func() {
	switch {
	case p.dead:
		if (p.parent == nil || p.parent.dead) && !h.lazyInit {
			return func() { h.reap(p) }
		}
		return nil
	case p.role == "stranger":
		return nil
	case p.killed && time.Now().Before(p.stuck):
		return nil
	case p.killed:
		return func() { h.die(p) }
	case p.hung:
		return nil
	case p.gate == gateEOF, p.gate == gateOpen && p.doomed:
		return func() { h.die(p) }
	case p.gate != gateOpen:
		return nil
	case p.role == "gofer":
		switch {
		case p.left:
			return func() { h.die(p) }
		case p.partner.dead:
			return func() { h.writeExit(p, 0); p.left = true }
		}
		return nil
	}
	// A sentry.
	switch {
	case p.wrote:
		return func() { h.die(p) }
	case p.ended != nil:
		return func() { h.writeExit(p, *p.ended); p.wrote = true }
	case p.partner.dead:
		// It has lost its files: the application is killed.
		return func() {
			if p.started {
				p.ended = new(int(unix.SIGKILL))
				return
			}
			h.die(p)
		}
	case !p.ready:
		return func() { p.ready = true }
	case p.asked && p.started:
		return func() {
			p.asked = false
			if h.rng.IntN(3) > 0 {
				p.ended = new(0)
			}
		}
	}
	return nil
}

// writeExit writes the exit record of a process into the file it was given.
// status is a wait status.
func (h *host) writeExit(p *proc, status int) {
	if p.exitFile == nil {
		return
	}
	b, err := actual.EncodeExit(actual.ExitRecord{UID: p.uid, Attempt: p.attempt, Status: uint32(status), At: time.Now().Add(h.skew)})
	if err != nil {
		h.breach("encode exit: %v", err)
		return
	}
	if err := h.disk.write(p.exitFile, b, false); err == nil && p.role == "sentry" {
		h.exits[exitKey{p.uid, p.attempt}] = true
	}
}

type exitKey struct {
	uid     string
	attempt int64
}

// sandboxProcs are the live processes of sandboxes, by number.
func (h *host) sandboxProcs() []*proc {
	out := h.procScratch[:0]
	for n := 2; n < 2+pids; n++ {
		if p := h.procs[n]; p != nil && !p.dead && p.gate != gateNone {
			out = append(out, p)
		}
	}
	h.procScratch = out
	return out
}

func (h *host) find(name, role string) *proc {
	ps := slices.DeleteFunc(slices.Clone(h.sandboxProcs()), func(p *proc) bool { return p.name != name || p.role != role })
	if len(ps) == 0 {
		return nil
	}
	return slices.MaxFunc(ps, func(a, b *proc) int { return cmp.Compare(a.id.Inode, b.id.Inode) })
}
