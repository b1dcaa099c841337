// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
)

// An application that ends with exit code 0 and is started again has not failed: it
// reaches no limit and is in no crash loop, and its starts become rarer all the same.
func TestLoopCleanExits(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		e := reconciletest.Entry("web", "a", func(s *desired.Spec) { s.Backoff.Limit = 3 })
		w.Want(e)
		synctest.Wait()
		for i, delay := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second} {
			w.Kill("web", "sentry", 0)
			synctest.Wait()
			r := w.Record("web")
			if r.App().Failures != 0 || r.App().CleanExits != i+1 || r.Phase != actual.PhaseStopped {
				t.Fatalf("after %d ends: %+v", i+1, r)
			}
			in := reconcile.Input{
				Desired: &desired.Snapshot{Complete: true, Entries: []desired.Entry{*e}}, Now: time.Now(), Policy: reconcile.DefaultPolicy(),
				Actual: &actual.Snapshot{Sandboxes: []actual.Observed{{Record: r, Sentry: process.None, Gofer: process.None}}},
			}
			s := reconcile.Statuses(in, reconcile.Compute(in))[0]
			if s.Phase != reconcile.PhaseRestarting || s.Failures != 0 || strings.Contains(s.Condition(reconcile.CondReconciling).Message, "failure") {
				t.Errorf("status after %d ends: %+v", i+1, s)
			}
			time.Sleep(delay * 85 / 100)
			synctest.Wait()
			if p := phase(w, "web"); p != "Stopped" {
				t.Errorf("started before the delay after %d ends", i+1)
			}
			time.Sleep(delay * 30 / 100)
			synctest.Wait()
			if p := phase(w, "web"); p != "Running" {
				t.Errorf("after %d ends it is %s", i+1, p)
			}
		}
		w.Kill("web", "sentry", 1)
		synctest.Wait()
		if r := w.Record("web"); r.App().Failures != 1 || r.App().CleanExits != 0 {
			t.Errorf("after a failure: %+v", r)
		}
	})
}

// Restarts are what starts again what ended or what somebody wanted started again;
// edits, suspensions and starts that never came to be are none.
func TestLoopRestartsCounted(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		want := int64(0)
		step := func(what string, isRestart bool, do func()) {
			t.Helper()
			do()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if isRestart {
				want++
			}
			if r := w.Record("web"); r.App().Restarts != want {
				t.Errorf("%s: %d restarts, expected %d", what, r.App().Restarts, want)
			}
		}
		step("new", false, func() { w.Want(reconciletest.Entry("web", "a", nil)) })
		step("edited", false, func() { w.Want(reconciletest.Entry("web", "b", nil)) })
		step("suspended", false, func() { w.Want(reconciletest.Entry("web", "b", func(s *desired.Spec) { s.Suspend = true })) })
		step("resumed", false, func() { w.Want(reconciletest.Entry("web", "b", nil)) })
		step("ended", true, func() { w.Kill("web", "sentry", 1) })
		step("gofer died", true, func() { w.Kill("web", "gofer", -1) })
		step("asked for", true, func() {
			w.Request(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "t"})
		})
		step("edited while ended", false, func() {
			w.Kill("web", "sentry", 1)
			synctest.Wait()
			w.Want(reconciletest.Entry("web", "c", nil))
		})
	})
}
