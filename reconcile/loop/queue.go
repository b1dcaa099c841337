// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"cmp"
	"slices"
	"time"

	"sandboxctl.dev/reconcile"
)

// maxWaiting bounds the operations that wait and hold no worker: hooks that run,
// processes that do not die; and, counted apart, the stops in their grace period. Each
// costs a goroutine or a thread. Authors decide how long they last, an hour for a stop:
// as many as fill this need more memory for their sandboxes than most hosts have.
const maxWaiting = 2048

// maxRemoving bounds the removals under way. What each waits for is the death of its
// processes, which is the longer the later they are killed: many are killed beside
// each other, and not the next ones when the first are gone.
const maxRemoving = 64

// patience is how long an operation may hold a worker. After that it counts as one
// that waits: nothing that a sentry or the host does can hold a worker for longer.
const patience = 30 * time.Second

// queue remembers in which order names came: those of actions that are due, and the
// references of pulls. One that is served goes to the end: each other name is served at
// most once before one that waits.
type queue struct {
	tickets map[string]uint64 // by name
	last    uint64
}

// order returns the actions in the order in which they are served, and forgets
// names that have none any more.
func (q *queue) order(actions []reconcile.Action) []reconcile.Action {
	out := slices.Clone(actions)
	slices.SortStableFunc(out, func(a, b reconcile.Action) int { return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Name, b.Name)) })
	inOrder(q, out, func(a *reconcile.Action) string { return a.Name })
	return out
}

// inOrder sorts what waits, and puts what is new at the end, in its order.
func inOrder[T any](q *queue, all []T, name func(*T) string) {
	kept := make(map[string]uint64, len(all))
	for i := range all {
		n := name(&all[i])
		t, waits := q.tickets[n]
		if !waits {
			q.last++
			t = q.last
		}
		kept[n] = t
	}
	q.tickets = kept
	slices.SortFunc(all, func(a, b T) int { return cmp.Compare(kept[name(&a)], kept[name(&b)]) })
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
