// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/manifests"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
)

// callersEvery is how often the daemon looks at the processes that sandboxes are for, while there
// are any. A process wakes nobody who is not its parent.
const callersEvery = time.Second

// callers removes sandboxes whose callers are gone, as their callers would have: by an order and
// the removal of the manifest. What is done then is decided by the plan, as after any delete.
type callers struct {
	remove func(ctx context.Context, name string, id process.Identity) (bool, error)
	log    *slog.Logger
	every  time.Duration

	now   atomic.Pointer[map[string]process.Identity] // by the name of the sandbox
	there chan struct{}                               // there are some
}

func newCallers(h *world.Host, log *slog.Logger) *callers {
	return &callers{
		remove: func(ctx context.Context, name string, id process.Identity) (bool, error) {
			return manifests.Remove(ctx, h, name, id)
		},
		log: log, every: callersEvery, there: make(chan struct{}, 1),
	}
}

// want says which sandboxes there are.
func (c *callers) want(in *desired.Snapshot) {
	by := map[string]process.Identity{}
	for i := range in.Entries {
		if id := oneoff.Caller(&in.Entries[i]); id != nil {
			by[in.Entries[i].Sandbox.Metadata.Name] = *id
		}
	}
	// One whose manifest is not valid any more, as under a new host policy, still has its caller.
	if old := c.now.Load(); old != nil {
		for name, id := range *old {
			if _, defined := desired.FileFor(in, name); defined && in.Lookup(name) == nil {
				by[name] = id
			}
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
	for name, id := range *c.now.Load() {
		if !oneoff.Gone(id) {
			continue
		}
		removed, err := c.remove(ctx, name, id)
		if err != nil {
			c.log.Warn("a sandbox whose caller is gone is not removed yet", "sandbox", name, "err", err)
		}
		if removed {
			c.log.Info("a sandbox is removed whose caller is gone", "sandbox", name, "pid", id.PID)
		}
	}
}
