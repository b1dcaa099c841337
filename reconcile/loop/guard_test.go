// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
)

// An order is kept until it is carried out, by whatever daemon, and no longer.
func TestLoopOrder(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		for _, n := range []string{"a", "b", "c", "d"} {
			w.Want(reconciletest.Entry(n, "a", nil))
		}
		synctest.Wait()
		for _, n := range []string{"a", "b", "c"} {
			// The order comes first, and the manifest is removed a moment after.
			w.Request(actual.Request{Kind: actual.RequestRemove, Name: n, Token: "t" + n, At: time.Now()})
			synctest.Wait()
			if p := phase(w, n); p != "Running" {
				t.Errorf("%s is %s before its manifest is removed", n, p)
			}
			w.Unwant(n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, n := range []string{"a", "b", "c"} {
			if p := phase(w, n); p != "none" {
				t.Errorf("%s is %s", n, p)
			}
		}
		if n := w.Requests(); n != 0 {
			t.Errorf("%d requests are left", n)
		}
		// One whose command was killed before it removed the manifest is forgotten.
		w.Request(actual.Request{Kind: actual.RequestRemove, Name: "d", Token: "t", At: time.Now()})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := w.Requests(); n != 0 || phase(w, "d") != "Running" {
			t.Errorf("%d requests are left, d is %s", n, phase(w, "d"))
		}
	})
}

// A removal on hold because of others is carried out when it was said.
func TestLoopHoldEnds(t *testing.T) {
	t.Parallel()
	inLoop(t, func(o *loop.Options) { o.Resync = time.Hour }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		for _, n := range []string{"a", "b", "c", "d"} {
			w.Want(reconciletest.Entry(n, "a", nil))
		}
		synctest.Wait()
		for _, n := range []string{"a", "b", "c"} {
			w.Unwant(n)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if p := phase(w, "c"); p != "Running" {
			t.Fatalf("c is %s, and the third of four", p)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := phase(w, "c"); p != "none" {
			t.Errorf("c is %s", p)
		}
	})
}

// fullDisk is a launcher whose removals fail before anything is on record, as where the
// disk takes nothing.
type fullDisk struct {
	*reconciletest.World
	fails atomic.Int64
}

func (f *fullDisk) Remove(ctx context.Context, name string, how actual.Ending) (*actual.Record, error) {
	if f.fails.Add(-1) >= 0 {
		return nil, errors.New("no space left on device")
	}
	return f.World.Remove(ctx, name, how)
}

func (f *fullDisk) Destroy(ctx context.Context, name string, how actual.Ending) error {
	if f.fails.Add(-1) >= 0 {
		return errors.New("no space left on device")
	}
	return f.World.Destroy(ctx, name, how)
}

// A removal that fails and is tried again counts once: two are not taken for four, and
// those that could not begin count all the same when a third comes.
func TestGuardFailedRemovals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		names []string
		grace time.Duration
		fails int64
		held  bool
	}{
		"two":                  {[]string{"a", "b"}, 0, 2, false},
		"two, again and again": {[]string{"a", "b"}, 0, 6, false},
		"two that are stopped": {[]string{"a", "b"}, time.Second, 4, false},
		"three":                {[]string{"a", "b", "c"}, 0, 100, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events, launcher := &journal{}, &fullDisk{}
			inLoop(t, func(o *loop.Options) {
				launcher.World, o.Launcher, o.Events = o.Launcher.(*reconciletest.World), launcher, events
			}, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
				for _, n := range []string{"a", "b", "c", "d"} {
					w.Want(reconciletest.Entry(n, "a", func(s *desired.Spec) { s.TerminationGracePeriod = new(scalar.Duration(c.grace)) }))
				}
				synctest.Wait()
				launcher.fails.Store(c.fails)
				for _, n := range c.names {
					w.Unwant(n)
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
				}
				time.Sleep(40 * time.Second)
				synctest.Wait()
				if held := slices.Contains(events.reasons, actual.EventApprovalNeeded); held != c.held {
					t.Errorf("held: %v, expected %v: %v", held, c.held, events.reasons)
				}
				for _, n := range c.names {
					if p := phase(w, n); (p == "none") == c.held {
						t.Errorf("%s is %s", n, p)
					}
				}
			})
		})
	}
}
