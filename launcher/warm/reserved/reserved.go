// SPDX-License-Identifier: Apache-2.0

// Package reserved counts which of the processes that wait for a sandbox are kept for claims of
// which pool. All that wait are alike: a pool has a number of them, and nobody else takes these. It
// starts and ends nothing.
package reserved

import (
	"maps"
	"slices"
	"sync"
)

// Pool is what a pool keeps ready.
type Pool struct {
	Size int
	// Template identifies its template, and Policy the host policy, which has a part in what a
	// sandbox of it needs.
	Template, Policy string
	// Recreate says that what waits for another template is to be made again.
	Recreate bool
}

// Book says what is kept for whom. The zero value keeps nothing.
type Book struct {
	mu    sync.Mutex
	pools map[string]Pool
	most  int            // of all pools together
	held  map[string]int // how many of those that wait are a pool's
	unfit map[string]string
	// spent is how many of those that wait are to be ended, since they are of an older template.
	spent int
}

// Want says which pools there are. What a pool had that is gone is everybody's.
func (b *Book) Want(pools map[string]Pool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, old := range b.pools {
		now, there := pools[name]
		switch {
		case !there:
			delete(b.held, name)
			delete(b.unfit, name)
		case now.Template != old.Template:
			delete(b.unfit, name)
			if now.Recreate {
				b.spent += b.held[name]
				delete(b.held, name)
			}
		case now.Policy != old.Policy:
			delete(b.unfit, name)
		}
	}
	b.pools = maps.Clone(pools)
}

// Total is how many are kept for pools, of which there may be most.
func (b *Book) Total(most int) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.most = most
	for _, k := range b.allotted() {
		n += k
	}
	return n
}

// allotted is how many each pool may have: in the order of their names, as long as there are some.
func (b *Book) allotted() map[string]int {
	out, left := map[string]int{}, b.most
	for _, name := range slices.Sorted(maps.Keys(b.pools)) {
		if b.unfit[name] == "" {
			out[name] = min(b.pools[name].Size, left)
			left -= out[name]
		}
	}
	return out
}

// settle gives those that wait to pools, as far as they lack some. It returns how many are left for
// everybody.
func (b *Book) settle(waiting int) (left int) {
	if b.held == nil {
		b.held = map[string]int{}
	}
	allotted := b.allotted()
	left = max(waiting-b.spent, 0)
	names := slices.Sorted(maps.Keys(b.pools))
	for _, name := range names { // what they have stays theirs
		b.held[name] = min(b.held[name], allotted[name], left)
		left -= b.held[name]
	}
	for _, name := range names {
		more := min(allotted[name]-b.held[name], left)
		b.held[name] += more
		left -= more
	}
	return left
}

// Take calls take for a start, unless all that wait are kept for others. pool is that of the claim
// that is started, "" if it is none; waiting counts those that wait. Nobody else takes one meanwhile.
func (b *Book) Take(pool string, waiting func() int, take func() bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.settle(waiting())
	switch {
	case pool != "" && b.held[pool] > 0:
		if !take() {
			return false
		}
		b.held[pool]--
		return true
	case left > 0:
		return take()
	}
	return false
}

// For is how many of those that wait a start can have; see Take.
func (b *Book) For(pool string, waiting int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.settle(waiting)
	if pool != "" {
		left += b.held[pool]
	}
	return left
}

// Unfit says that no process that waits is fit for the template of a pool, and why: none is kept for
// it until that, or the host policy, is another one.
func (b *Book) Unfit(pool, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.pools[pool]; !there {
		return
	}
	if b.unfit == nil {
		b.unfit = map[string]string{}
	}
	b.unfit[pool] = why
	delete(b.held, pool)
}

// Wanted says whether a pool is to keep some ready.
func (b *Book) Wanted(pool string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pools[pool].Size > 0
}

// Spent is how many of those that wait are to be ended. They are the caller's to end.
func (b *Book) Spent() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, b.spent = b.spent, 0
	return n
}

// Ready is how many of those that wait each pool has, nil if none has any.
func (b *Book) Ready(waiting int) (out map[string]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(waiting)
	for name, n := range b.held {
		if n > 0 {
			if out == nil {
				out = map[string]int{}
			}
			out[name] = n
		}
	}
	return out
}
