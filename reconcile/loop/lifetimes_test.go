// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// The loop wakes for the end of a sandbox, of what it has left after crashes and reboots, and
// gives up what has finished, to the moment. Resyncs are too seldom for it.
func TestLoopLifetimes(t *testing.T) {
	t.Parallel()
	events := &journal{}
	var world *reconciletest.World
	change := func(o *loop.Options) {
		o.Resync, o.Events = time.Hour, events
		world = o.Launcher.(*reconciletest.World)
		o.View.(*view.View).Boot = world.SinceBoot
	}
	inLoop(t, change, func(w *reconciletest.World, _ *loop.Loop, passes *atomic.Int64) {
		w.Want(reconciletest.Entry("web", "a", func(s *desired.Spec) {
			s.ActiveDeadline, s.TTLAfterFinished = new(scalar.Duration(time.Minute)), new(scalar.Duration(10*time.Second))
		}))
		synctest.Wait()
		time.Sleep(30 * time.Second)
		w.Kill("web", "sentry", 1)
		time.Sleep(5 * time.Second)
		w.Reboot()
		time.Sleep(24900 * time.Millisecond)
		synctest.Wait()
		if p := phase(w, "web"); p != "Running" {
			t.Errorf("before its deadline it is %s", p)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		r := w.Record("web")
		if r.Phase != actual.PhaseStopped || !r.App().Completed || r.App().LastExit.Reason != actual.ReasonDeadlineExceeded || r.App().Restarts != 2 {
			t.Fatalf("after its deadline: %s, %+v", r.Phase, r.App())
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if w.Record("web").Retired {
			t.Error("it was given up too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r := w.Record("web"); !r.Retired {
			t.Error("it was not given up")
		}
		before := passes.Load()
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		if n := passes.Load() - before; n > 0 || !w.Record("web").Retired {
			t.Errorf("%d passes of what has finished", n)
		}
		if last := events.reasons[len(events.reasons)-1]; last != actual.EventRemoved {
			t.Errorf("events: %v", events.reasons)
		}
		// It is removed with its manifest, as any.
		w.Unwant("web")
		synctest.Wait()
		if p := phase(w, "web"); p != "none" {
			t.Errorf("without its manifest it is %s", p)
		}
	})
}

// A step of the clock over until ends the sandbox with the next pass, which the step starts.
func TestLoopUntil(t *testing.T) {
	t.Parallel()
	var steps chan struct{}
	change := func(o *loop.Options) {
		steps = make(chan struct{}, 1)
		o.Resync, o.Wakes = time.Hour, append(o.Wakes, steps)
	}
	inLoop(t, change, func(w *reconciletest.World, _ *loop.Loop, passes *atomic.Int64) {
		w.Want(reconciletest.Entry("web", "a", func(s *desired.Spec) { s.Until = &scalar.Time{Time: time.Now().Add(time.Minute)} }))
		synctest.Wait()
		before := passes.Load()
		steps <- struct{}{}
		synctest.Wait()
		if passes.Load() != before+1 {
			t.Error("a step of the clock starts no pass")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		r := w.Record("web")
		if r.Phase != actual.PhaseStopped || r.App().LastExit.Reason != actual.ReasonExpired || r.Ending.Until.IsZero() {
			t.Errorf("%s, %+v", r.Phase, r.Ending)
		}
		w.Want(reconciletest.Entry("web", "a", func(s *desired.Spec) { s.Until = &scalar.Time{Time: time.Now().Add(time.Hour)} }))
		synctest.Wait()
		if p := phase(w, "web"); p != "Running" {
			t.Errorf("with a later until it is %s", p)
		}
	})
}
