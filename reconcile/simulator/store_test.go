// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// store is the real one, over the disk of the host.
type store struct {
	h *host
	*actual.Store
}

func (h *host) openStore() (*store, error) {
	s, err := actual.OpenSimulated(&dir{h: h, n: h.state, name: "state"}, statePath)
	if err != nil {
		return nil, err
	}
	return &store{h, s}, nil
}

// Put has the checker know what was promised.
func (s *store) Put(r *actual.Record) error { return s.promise(r, s.Store.Put(r)) }

// PutIntent has the checker know what was promised: how it ended. A power cut may undo
// the rest.
func (s *store) PutIntent(r *actual.Record) error {
	err := s.Store.PutIntent(r)
	if r.Ending.App().Exit == nil {
		return err
	}
	return s.promise(r, err)
}

func (s *store) promise(r *actual.Record, err error) error {
	if err == nil && !s.h.running().p.dead {
		s.h.check.put(r)
	}
	return err
}

// Remove has the checker know what was taken back.
func (s *store) Remove(name string) error {
	delete(s.h.check.puts, name)
	return s.Store.Remove(name)
}

// sigkill sends SIGKILL to a process for a sandbox. Dying takes a moment.
func (h *host) sigkill(t *task, p *proc, name string) error {
	return h.call(t, harmless, fmt.Sprintf("kill %d", p.id.PID), func(bool) error {
		h.stats.Kills++
		h.writes++
		if p.reaped {
			return unix.ESRCH
		}
		if p.role == "stranger" || p.name != name {
			h.breach("I3: a signal for a process of %s reached pid %d, which is of %s %s", name, p.id.PID, p.role, p.name)
		}
		if !p.dead {
			h.check.signalled(h, p)
			p.killed = true
		}
		return nil
	})
}

func ignoreMissing(err error) error {
	if missing(err) {
		return nil
	}
	return err
}

// absent says whether a mistake takes a record that can't be used for none.
func (h *host) absent(held *actual.Quarantined) bool {
	return held.Reason == actual.QuarantinedUnreadable && h.is("error-is-absence") || held.Reason == actual.QuarantinedCorrupt && h.is("corrupt-is-absence")
}

// observer is the real one, and what the checker sees of it.
type observer struct {
	h *host
	p *program
	*actual.Observer
}

// Observe implements reconcile.Observer.
func (o *observer) Observe(ctx context.Context) (*actual.Snapshot, error) {
	snap, err := o.Observer.Observe(ctx)
	switch {
	case o.p.dead:
		return nil, errDead
	case err != nil:
		return nil, err
	}
	snap.Quarantined = slices.DeleteFunc(snap.Quarantined, func(held actual.Quarantined) bool {
		if !o.h.absent(&held) {
			return false
		}
		snap.Aborted = append(snap.Aborted, held.Name)
		return true
	})
	o.h.check.observed(o.h, snap)
	return snap, nil
}
