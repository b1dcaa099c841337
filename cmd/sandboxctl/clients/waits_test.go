// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"errors"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// pass is what a pass sees of these sandboxes.
func pass(t *testing.T, names ...string) (*reconcile.Input, *reconcile.Plan) {
	t.Helper()
	in := &reconcile.Input{Now: time.Unix(1, 0), Desired: &desired.Snapshot{Complete: true}, Actual: &actual.Snapshot{}}
	for _, name := range names {
		docs, problems := desired.Decode(name+".yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: "+name+"}\nspec:\n  root: {host: {}}\n  command: [\"true\"]\n"))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		in.Desired.Entries = append(in.Desired.Entries, docs[0].Entry())
	}
	return in, &reconcile.Plan{}
}

// Who waits is told by a pass: of the result or the error, once, and not by passes that have begun
// before there was anything to see.
func TestWaits(t *testing.T) {
	t.Parallel()
	s := newWaits(process.Identity{})
	s.saw(pass(t, "web")) // nobody waits
	if s.seen() != nil {
		t.Error("passes are kept for nobody")
	}
	calls := 0
	w := s.begin("web", sinceSeen(func(_ *world.World, name string, st *reconcile.Status) (bool, error) {
		if calls++; name != "web" || calls == 1 && st == nil {
			t.Errorf("%s: %v", name, st)
		}
		return calls == 3, nil
	}))
	s.saw(pass(t))
	s.saw(pass(t, "db"))
	if calls != 0 {
		t.Errorf("%d calls before there was anything to see", calls)
	}
	s.saw(pass(t, "web"))
	s.saw(pass(t)) // it was there, and is gone
	select {
	case err := <-w.done:
		t.Errorf("too early: %v", err)
	default:
	}
	s.saw(pass(t, "web"))
	if err := s.until(t.Context(), w); err != nil || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
	wrong := errors.New("wrong")
	w = s.begin("web", func(*world.World, string, *reconcile.Status) (bool, error) { return false, wrong })
	s.saw(pass(t))
	s.saw(pass(t)) // it has its result
	if err := s.until(t.Context(), w); !errors.Is(err, wrong) {
		t.Errorf("%v", err)
	}
	why := errors.New("cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	w = s.begin("web", func(*world.World, string, *reconcile.Status) (bool, error) { return false, nil })
	if err := s.until(ctx, w); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	if len(s.all) != 0 {
		t.Errorf("%d wait for ever", len(s.all))
	}
	s.count(1)
	s.saw(pass(t, "web"))
	if now := s.seen(); len(now) != 1 || now[0].Name != "web" || now[0].Phase == "" {
		t.Error("a pass is not kept while there is a sandbox of a client")
	}
	s.count(-1)
	s.saw(pass(t, "web"))
	if s.seen() != nil {
		t.Error("passes are kept for nobody")
	}
}
