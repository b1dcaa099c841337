// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/manifests"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// callersEvery is how often the daemon looks at the processes that sandboxes are for, while there
// are any. A process wakes nobody who is not its parent.
const callersEvery = time.Second

// callersMost is the longest time between two tries to remove a sandbox whose caller is gone. Each
// reads all manifests and records.
const callersMost = time.Minute

// untold is how many tries that found no manifest to remove are no news: the snapshot that the
// names are of may be older than a removal.
const untold = 2

// callers removes sandboxes whose callers are gone, as their callers would have: by an order and
// the removal of the manifest. What is done then is decided by the plan, as after any delete.
type callers struct {
	remove func(ctx context.Context, name string, id process.Identity) (bool, error)
	log    *slog.Logger
	every  time.Duration
	most   time.Duration
	tried  map[string]*tries // by the name of the sandbox

	now   atomic.Pointer[map[string]process.Identity] // by the name of the sandbox
	there chan struct{}                               // there are some
}

// tries are those to remove one sandbox that were in vain.
type tries struct {
	id   process.Identity
	n    int
	next time.Time // not before
	told string    // why, in the log
}

func newCallers(h *world.Host, log *slog.Logger) *callers {
	return &callers{
		remove: func(ctx context.Context, name string, id process.Identity) (bool, error) {
			return manifests.Remove(ctx, h, name, id)
		},
		log: log, every: callersEvery, most: callersMost, tried: map[string]*tries{}, there: make(chan struct{}, 1),
	}
}

// want says which sandboxes there are.
func (c *callers) want(in *reconcile.Input) {
	by := map[string]process.Identity{}
	for i := range in.Desired.Entries {
		if id := oneoff.Caller(&in.Desired.Entries[i]); id != nil {
			by[in.Desired.Entries[i].Sandbox.Metadata.Name] = *id
		}
	}
	// One whose manifest is not valid any more, as under a new host policy, still has its caller.
	invalid := func(name string) bool {
		_, defined := desired.FileFor(in.Desired, name)
		return defined && in.Desired.Lookup(name) == nil
	}
	if old := c.now.Load(); old != nil {
		for name, id := range *old {
			if invalid(name) {
				by[name] = id
			}
		}
	}
	// So has one that was not valid when this daemon started: it is on record.
	for name, e := range in.LastGood {
		if e == nil || !invalid(name) {
			continue
		}
		if id := oneoff.Caller(e); id != nil {
			by[name] = *id
		}
	}
	c.now.Store(&by)
	if len(by) == 0 {
		return
	}
	select {
	case c.there <- struct{}{}:
	default:
	}
}

// run looks until ctx is done. It sleeps while no sandbox has a caller: an idle daemon does not
// wake.
func (c *callers) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.there:
		}
		for len(*c.now.Load()) > 0 {
			c.look(ctx)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(c.every):
			}
		}
	}
}

func (c *callers) look(ctx context.Context) {
	now := *c.now.Load()
	maps.DeleteFunc(c.tried, func(name string, t *tries) bool { return now[name] != t.id })
	for name, id := range now {
		if t := c.tried[name]; t != nil && time.Now().Before(t.next) || !oneoff.Gone(id) {
			continue
		}
		removed, err := c.remove(ctx, name, id)
		if removed {
			c.log.Info("a sandbox is removed whose caller is gone", "sandbox", name, "pid", id.PID)
			delete(c.tried, name)
			continue
		}
		c.inVain(name, id, err)
	}
}

// inVain puts the next try off, each time for longer, and says why once.
func (c *callers) inVain(name string, id process.Identity, err error) {
	t := c.tried[name]
	if t == nil {
		t = &tries{id: id}
		c.tried[name] = t
	}
	wait := c.most
	if t.n < 16 { // no overflow
		wait = min(wait, c.every<<t.n)
	}
	t.n++
	t.next = time.Now().Add(wait)
	why := "its file can't be read, defines other things too, or has another manifest of that name"
	switch {
	case err != nil:
		why = err.Error()
	case t.n <= untold:
		return
	}
	if why != t.told {
		t.told = why
		c.log.Warn("a sandbox whose caller is gone is not removed yet", "sandbox", name, "why", why)
	}
}
