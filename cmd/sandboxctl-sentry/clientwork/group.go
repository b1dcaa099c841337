// SPDX-License-Identifier: Apache-2.0

// Package clientwork counts what a sentry does for clients on goroutines of its own,
// beside gVisor's control server: forwarded connections, copies of files. There is a
// bound of it, and all of it has ended before the state of the sandbox is saved: gVisor
// stops the tasks of the guest for that, and knows nothing of these goroutines. One that
// took bytes out of a queue meanwhile would change what is being written.
package clientwork

import (
	"errors"
	"sync"
	"time"
)

// Errors of Begin, as clients are told them.
var (
	ErrFull  = errors.New("the sandbox has as many forwarded connections and copies as it may have at a time; end some of them")
	ErrQuiet = errors.New("the state of the sandbox is being saved; try again when that is done")
)

// Group is the work of one sentry.
type Group struct {
	mu sync.Mutex
	// limit is how much there may be at a time.
	limit int
	// quiet counts those who want none.
	quiet   int
	running map[*Work]bool
}

// NewGroup returns a group of at most limit pieces of work.
func NewGroup(limit int) *Group { return &Group{limit: limit, running: map[*Work]bool{}} }

// Work is one piece.
type Work struct {
	group *Group
	once  sync.Once
	stop  chan struct{}
	ended chan struct{}
}

// Begin counts a piece of work. Its goroutine calls End as the last thing it does, and
// ends soon when Stopped is closed.
func (g *Group) Begin() (*Work, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.quiet > 0:
		return nil, ErrQuiet
	case len(g.running) >= g.limit:
		return nil, ErrFull
	}
	w := &Work{group: g, stop: make(chan struct{}), ended: make(chan struct{})}
	g.running[w] = true
	return w, nil
}

// Stopped is closed when the work is to end.
func (w *Work) Stopped() <-chan struct{} { return w.stop }

// Stop says that the work is to end. It does not wait.
func (w *Work) Stop() { w.once.Do(func() { close(w.stop) }) }

// End says that the work has ended.
func (w *Work) End() {
	w.group.mu.Lock()
	defer w.group.mu.Unlock()
	delete(w.group.running, w)
	close(w.ended)
}

// Quiet ends all work and lets none begin until Resume, which is called in any case. It
// returns false if some has not ended within the time.
func (g *Group) Quiet(most time.Duration) bool {
	g.mu.Lock()
	g.quiet++
	var all []*Work
	for w := range g.running {
		all = append(all, w)
	}
	g.mu.Unlock()
	for _, w := range all {
		w.Stop()
	}
	late := time.NewTimer(most)
	defer late.Stop()
	for _, w := range all {
		select {
		case <-w.ended:
		case <-late.C:
			return false
		}
	}
	return true
}

// Resume takes one Quiet back.
func (g *Group) Resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.quiet--
}
