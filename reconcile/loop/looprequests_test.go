// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// Requests are carried out and dropped, also those that ask for nothing.
func TestLoopRequests(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.Want(reconciletest.Entry("web", "a", nil))
		synctest.Wait()
		w.Request(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "1"})
		w.Request(actual.Request{Kind: actual.RequestRestart, Name: "nobody", Token: "2"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if r := w.Record("web"); r.App().Restarts != 1 || r.RestartToken != "1" || r.Phase != actual.PhaseRunning {
			t.Errorf("%+v", r)
		}
		if s, _ := w.Observe(t.Context()); len(s.Requests) > 0 {
			t.Errorf("requests are left: %v", s.Requests)
		}
	})
}

// A restart whose record can't be written, as on a full disk, is tried again with
// a delay: that somebody wants it now is no reason to try without end.
func TestLoopRestartNotRecorded(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.Want(reconciletest.Entry("web", "a", nil))
		synctest.Wait()
		var tries atomic.Int64
		w.SetHook(func(op, _, step string) error {
			// Not for ever: time stands still while something is tried.
			if op == "create" && step == "claim" && tries.Load() < 1000 {
				tries.Add(1)
				return errors.New("no space left on device")
			}
			return nil
		})
		w.Request(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "1"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := tries.Load(); n < 3 || n > 10 {
			t.Errorf("%d tries in a minute", n)
		}
		// Another wish is not kept waiting for the delay of the one before.
		before := tries.Load()
		w.SetHook(nil)
		if err := w.DropRequest(actual.Request{Token: "1"}); err != nil { // a newer one takes its place
			t.Error(err)
		}
		w.Request(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "2"})
		synctest.Wait()
		if p := phase(w, "web"); p != "Running" {
			t.Errorf("asked again after %d tries, it is %s", before, p)
		}
	})
}

// Which checkpoint a sandbox is restored from only the request says: it is kept
// until the sandbox runs, and a restore that is cut short is done again.
func TestLoopRestoreInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := reconciletest.New()
		run := func(f func()) {
			l := loop.New(loop.Options{View: &view.View{Source: w, Observer: w, Policy: reconcile.DefaultPolicy()}, Launcher: w, Requests: w, Wakes: []<-chan struct{}{w.Changes()}, ShutdownGrace: 5 * time.Minute})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			f()
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}
		w.Want(reconciletest.Entry("web", "a", nil))
		run(func() {
			synctest.Wait()
			w.SetHook(func(op, _, step string) error {
				if op != "create" || step != "spawn" {
					return nil
				}
				time.Sleep(2 * time.Minute) // passes are made meanwhile
				if n := w.Requests(); n != 1 {
					t.Errorf("%d requests wait while it is created, expected 1", n)
				}
				return reconciletest.ErrCrash
			})
			w.Request(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "1", Checkpoint: "/c"})
			time.Sleep(time.Minute)
		})
		var tokens []string
		w.SetHook(nil)
		w.OnCreate = func(r *actual.Request) { tokens = append(tokens, r.ID()) }
		run(func() {
			time.Sleep(time.Minute)
			synctest.Wait()
		})
		if p, n := phase(w, "web"), w.Requests(); fmt.Sprint(tokens) != "[1]" || p != "Running" || n != 0 {
			t.Errorf("created for the requests %v, it is %s, %d requests wait", tokens, p, n)
		}
		if err := w.Breaches(); err != nil {
			t.Error(err)
		}
	})
}

// repairer notes what it was asked for, and mends what it is told to end.
type repairer struct {
	w     *reconciletest.World
	mu    sync.Mutex
	tries []bool
}

func (r *repairer) tried() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.tries)
}

func (r *repairer) Repair(_ context.Context, name string, end bool) (string, error) {
	r.mu.Lock()
	r.tries = append(r.tries, end)
	r.mu.Unlock()
	if !end {
		return "", refusal{}
	}
	r.w.Release(name)
	return "ended", nil
}

// One request to repair is one try, whatever comes of it; another is another.
func TestLoopRepair(t *testing.T) {
	t.Parallel()
	rec, events := &repairer{}, &journal{}
	inLoop(t, func(o *loop.Options) { o.Repairer, o.Events = rec, events }, func(w *reconciletest.World, l *loop.Loop, _ *atomic.Int64) {
		rec.w = w
		w.Quarantine("web")
		w.Want(reconciletest.Entry("web", "a", nil))
		time.Sleep(time.Hour)
		if rec.tried() != "[]" || phase(w, "web") != "none" {
			t.Errorf("unasked: %v, %s", rec.tried(), phase(w, "web"))
		}
		w.Request(actual.Request{Kind: actual.RequestRepair, Name: "web", Token: "1"})
		time.Sleep(time.Hour)
		if rec.tried() != "[false]" || w.Requests() != 0 {
			t.Errorf("tried %v, %d requests wait; expected one try and none", rec.tried(), w.Requests())
		}
		w.Request(actual.Request{Kind: actual.RequestRepair, Name: "web", Token: "2", End: true})
		time.Sleep(time.Hour)
		if rec.tried() != "[false true]" || w.Requests() != 0 || phase(w, "web") != "Running" {
			t.Errorf("tried %v, %d requests wait, it is %s; expected it to be created anew", rec.tried(), w.Requests(), phase(w, "web"))
		}
		// Of one whose record is not quarantined there is nothing to repair.
		w.Request(actual.Request{Kind: actual.RequestRepair, Name: "web", Token: "3"})
		time.Sleep(time.Hour)
		if rec.tried() != "[false true]" || w.Requests() != 0 {
			t.Errorf("tried %v, %d requests wait", rec.tried(), w.Requests())
		}
		if got := fmt.Sprint(events.reasons); got != "[RecordQuarantined RecordRepairFailed RecordRepaired Started]" && got != "[SourceComplete RecordQuarantined RecordRepairFailed RecordRepaired Started]" {
			t.Errorf("events %s", got)
		}
	})
}

// failing can't recover anything now.
type failing struct{ tries int }

func (f *failing) Repair(context.Context, string, bool) (string, error) {
	f.tries++
	return "", errors.New("input/output error")
}

// Nor is it two tries if the request can't be dropped at once: nobody waits for
// the second.
func TestLoopRecoverNotDropped(t *testing.T) {
	t.Parallel()
	rec := &failing{}
	inLoop(t, func(o *loop.Options) { o.Repairer = rec }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.Quarantine("web")
		w.KeepRequests(3)
		w.Request(actual.Request{Kind: actual.RequestRepair, Name: "web", Token: "1", End: true})
		time.Sleep(time.Hour)
		synctest.Wait()
		if rec.tries != 1 || w.Requests() != 0 {
			t.Errorf("tried %d times, %d requests wait", rec.tries, w.Requests())
		}
		w.Request(actual.Request{Kind: actual.RequestRepair, Name: "web", Token: "2", End: true})
		time.Sleep(time.Hour)
		synctest.Wait()
		if rec.tries != 2 || w.Requests() != 0 {
			t.Errorf("asked again: tried %d times, %d requests wait", rec.tries, w.Requests())
		}
	})
}
