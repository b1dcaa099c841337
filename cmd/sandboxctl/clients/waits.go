// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"sync"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// waits are those who wait until a sandbox is as they want. They look at what each pass of the
// daemon has seen: nobody polls, however many wait.
type waits struct {
	self process.Identity // the daemon, for which sandboxes of clients are made

	mu   sync.Mutex
	all  map[*wait]struct{}
	runs int // sandboxes of clients
	// last are the sandboxes that the last pass has seen while there was one of clients. It is made
	// in the pass: what a pass has seen is not for others to read later.
	last []sighting
}

// sighting is what a pass has seen of a sandbox, and for which user of the socket it was made then.
type sighting struct {
	protocol.Status
	client *oneoff.Client // nil for one of somebody else, whatever its name is
}

func (s *sighting) madeFor(uid uint32) bool { return s.client != nil && s.client.UID == uid }

// count counts the sandboxes of clients.
func (s *waits) count(more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs += more
}

// seen are the sandboxes that the last pass has seen, if there was one of clients.
func (s *waits) seen() []sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

type wait struct {
	name string
	goal await.Goal
	done chan error // has room for the one result
}

func newWaits(self process.Identity) *waits {
	return &waits{self: self, all: map[*wait]struct{}{}}
}

// begin begins to wait. What is seen from now on counts.
func (s *waits) begin(name string, goal await.Goal) *wait {
	w := &wait{name, goal, make(chan error, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[w] = struct{}{}
	return w
}

// until waits for a result, or the end of ctx.
func (s *waits) until(ctx context.Context, w *wait) error {
	defer s.end(w)
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *waits) end(w *wait) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, w)
}

// saw looks at what a pass has seen, for all who wait.
func (s *waits) saw(in *reconcile.Input, plan *reconcile.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last = nil; len(s.all)+s.runs == 0 {
		return
	}
	now := &world.World{In: *in, Plan: *plan, Statuses: reconcile.Statuses(*in, *plan), Alive: true}
	if s.runs > 0 {
		s.last = sightingsOf(now, s.self)
	}
	for w := range s.all {
		done, err := w.goal(now, w.name, now.Status(w.name))
		if done || err != nil {
			w.done <- err
			delete(s.all, w)
		}
	}
}

// sinceSeen is a goal that counts from the first pass that has seen the manifest or a sandbox of a
// name: one that had begun before the manifest was written knows nothing of it.
func sinceSeen(goal await.Goal) await.Goal {
	seen := false
	return func(w *world.World, name string, s *reconcile.Status) (bool, error) {
		_, defined := desired.FileFor(w.In.Desired, name)
		if seen = seen || defined || s != nil; !seen {
			return false, nil
		}
		return goal(w, name, s)
	}
}

// sightingsOf is what clients may be told of sandboxes, and who of them.
func sightingsOf(w *world.World, self process.Identity) []sighting {
	out := make([]sighting, len(w.Statuses))
	for i := range w.Statuses {
		s := &w.Statuses[i]
		out[i].Status = protocol.Status{Name: s.Name, Phase: s.Phase, Message: world.Headline(s)}
		if e := w.Entry(s.Name); e != nil {
			out[i].Labels, out[i].client = e.Sandbox.Metadata.Labels, oneoff.ClientOf(e, self)
		}
	}
	return out
}
