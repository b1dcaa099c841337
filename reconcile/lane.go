// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"
	"slices"
	"time"

	"sandboxctl.dev/actual"
)

// Lane is a queue of actions with workers of its own: actions of one lane never
// wait for those of another. A sandbox that ends again and again can't keep the
// workers from a change that somebody makes, or from cleaning up.
type Lane int

// The lanes.
const (
	LaneRestart Lane = iota // starts that nobody asked for: after an exit, a failure, a reboot
	LaneChange              // starts that somebody asked for: a manifest, an edit, a restart
	LaneClean               // cleaning up after what is dead, and what costs no time
	LaneStop                // stops that wait for their application
	LaneRemove              // removals whose application gets no time: the kernel alone decides how long
	laneCount
)

// maxWaiting bounds the operations that wait and hold no worker: stops in their
// grace period, hooks that run, processes that do not die. Each costs a goroutine.
const maxWaiting = 256

// maxRemoving bounds the removals under way. What each waits for is the death of its
// processes, which is the longer the later they are killed: many are killed beside
// each other, and not the next ones when the first are gone.
const maxRemoving = 64

// patience is how long an operation may hold a worker. After that it counts as one
// that waits: nothing that a sentry or the host does can hold a worker for longer.
const patience = 30 * time.Second

func graceful(a *Action) bool { return a.Op == OpDestroy && a.Ending.Grace > 0 }

func laneOf(a *Action) Lane {
	switch {
	case graceful(a):
		return LaneStop
	case a.Forget:
		return LaneRemove
	case a.Op == OpResume:
		return LaneRestart // a start that is resumed
	case a.Op != OpCreate:
		return LaneClean
	}
	switch a.Reason {
	case actual.ReasonNew, actual.ReasonSpecChanged, actual.ReasonRestartRequested, actual.ReasonResumed:
		return LaneChange
	}
	return LaneRestart
}

// queue remembers in which order actions became due. A name that is served goes to
// the end: each other name is served at most once before one that waits.
type queue struct {
	tickets map[string]uint64 // by name
	last    uint64
}

// order returns the actions in the order in which they are served, and forgets
// names that have none any more.
func (q *queue) order(actions []Action) []Action {
	out := slices.Clone(actions)
	slices.SortStableFunc(out, func(a, b Action) int { return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Name, b.Name)) })
	kept := make(map[string]uint64, len(out))
	for i := range out {
		t, waits := q.tickets[out[i].Name]
		if !waits {
			q.last++
			t = q.last
		}
		kept[out[i].Name] = t
	}
	q.tickets = kept
	slices.SortFunc(out, func(a, b Action) int { return cmp.Compare(kept[a.Name], kept[b.Name]) })
	return out
}

// served takes a name out of the queue.
func (q *queue) served(name string) { delete(q.tickets, name) }

// pace bounds how many starts there are in any second.
type pace struct{ starts []time.Time }

// wait takes a place for one start, or says how long there is none. perSecond 0 is
// no bound.
func (p *pace) wait(now time.Time, perSecond int) time.Duration {
	old := 0
	for old < len(p.starts) && now.Sub(p.starts[old]) >= time.Second {
		old++
	}
	p.starts = slices.Delete(p.starts, 0, old)
	if n := len(p.starts); perSecond > 0 && n >= perSecond {
		return time.Second - now.Sub(p.starts[n-perSecond])
	}
	p.starts = append(p.starts, now)
	return 0
}
