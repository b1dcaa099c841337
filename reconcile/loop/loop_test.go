// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// journal keeps events in memory.
type journal struct{ reasons []string }

func (j *journal) Append(e actual.Event) error {
	j.reasons = append(j.reasons, e.Reason)
	return nil
}

// inLoop runs a loop over a world inside a bubble of fake time.
func inLoop(t *testing.T, change func(*loop.Options), f func(w *reconciletest.World, l *loop.Loop, passes *atomic.Int64)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := reconciletest.New()
		var passes atomic.Int64
		opts := loop.Options{
			View: &view.View{Source: w, Observer: w, Policy: reconcile.DefaultPolicy()}, Launcher: w, Requests: w,
			Wakes: []<-chan struct{}{w.Changes()}, OnPass: func(reconcile.Input, reconcile.Plan) { passes.Add(1) },
		}
		if change != nil {
			change(&opts)
		}
		l := loop.New(opts)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		f(w, l, &passes)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := w.Breaches(); err != nil {
			t.Error(err)
		}
	})
}

func phase(w *reconciletest.World, name string) string {
	r := w.Record(name)
	if r == nil {
		return "none"
	}
	return string(r.Phase)
}

func TestLoopConverges(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		for i := range 7 {
			w.Want(reconciletest.Entry(fmt.Sprintf("s%d", i), "a", nil))
		}
		synctest.Wait()
		for i := range 7 {
			if p := phase(w, fmt.Sprintf("s%d", i)); p != "Running" {
				t.Errorf("s%d is %s", i, p)
			}
		}
	})
}

// The delay after each failure is what the manifest says, to the tenth that is
// spread, and it is forgotten after a run that lasted.
func TestLoopBackoff(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.Want(reconciletest.Entry("web", "a", nil))
		synctest.Wait()
		for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
			w.Kill("web", "sentry", 1)
			synctest.Wait()
			if p := phase(w, "web"); p != "Stopped" {
				t.Fatalf("failure %d: %s", i+1, p)
			}
			time.Sleep(want * 85 / 100)
			synctest.Wait()
			if p := phase(w, "web"); p != "Stopped" {
				t.Errorf("failure %d: started too early", i+1)
			}
			time.Sleep(want * 30 / 100)
			synctest.Wait()
			if p := phase(w, "web"); p != "Running" {
				t.Errorf("failure %d: %s after the delay", i+1, p)
			}
		}
		if r := w.Record("web"); r.App().Failures != 4 || r.App().Restarts != 4 {
			t.Errorf("failures %d, restarts %d", r.App().Failures, r.App().Restarts)
		}
		time.Sleep(11 * time.Minute)
		w.Kill("web", "gofer", -1)
		synctest.Wait()
		if r := w.Record("web"); r.App().Failures != 1 || r.App().LastExit.Reason != actual.ReasonGoferDied {
			t.Errorf("after a long run: %+v", r)
		}
	})
}

// Nothing happens when nothing does: one pass a resync.
func TestLoopIdle(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, passes *atomic.Int64) {
		w.Want(reconciletest.Entry("web", "a", nil))
		time.Sleep(time.Second)
		synctest.Wait()
		before := passes.Load()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := passes.Load() - before; n > 21 {
			t.Errorf("%d passes in ten minutes", n)
		}
		if r := w.Record("web"); r.Attempt != 1 {
			t.Errorf("attempt %d", r.Attempt)
		}
	})
}

// A storm of wakes is one or a few passes; a crash loop is no busy loop.
func TestLoopStorm(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, l *loop.Loop, passes *atomic.Int64) {
		w.Want(reconciletest.Entry("web", "a", nil))
		synctest.Wait()
		before := passes.Load()
		for range 10000 {
			l.Wake()
		}
		synctest.Wait()
		if n := passes.Load() - before; n > 10000 {
			t.Errorf("%d passes for 10000 wakes", n)
		}
		deadline := time.Now().Add(10 * time.Minute)
		for time.Now().Before(deadline) {
			w.Kill("web", "sentry", 1)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if r := w.Record("web"); r.App().Restarts > 12 {
			t.Errorf("%d restarts in ten minutes of a crash loop", r.App().Restarts)
		}
	})
}

// An operation that fails is tried again, less and less often, and no other
// waits for it.
func TestLoopFailingOperation(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	j := &journal{}
	inLoop(t, func(o *loop.Options) { o.Events = j }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		var broken atomic.Bool
		broken.Store(true)
		w.SetHook(func(op, name, step string) error {
			if broken.Load() && op == "destroy" && name == "bad" {
				tries.Add(1)
				return errors.New("it will not")
			}
			return nil
		})
		w.Want(reconciletest.Entry("bad", "a", nil))
		w.Want(reconciletest.Entry("good", "a", nil))
		synctest.Wait()
		w.Unwant("bad")
		w.Want(reconciletest.Entry("good", "b", nil))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := tries.Load(); n < 4 || n > 15 {
			t.Errorf("%d tries in five minutes", n)
		}
		if r := w.Record("good"); r == nil || r.Generation != 2 || r.Phase != actual.PhaseRunning {
			t.Errorf("good: %+v", r)
		}
		broken.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if p := phase(w, "bad"); p != "none" {
			t.Errorf("bad is %s when it could be removed", p)
		}
	})
	found := false
	for _, r := range j.reasons {
		found = found || r == actual.EventDestroyFailed
	}
	if !found {
		t.Errorf("events: %v", j.reasons)
	}
}

type refusal struct{}

func (refusal) Error() string   { return "not allowed" }
func (refusal) Permanent() bool { return true }

// What can't be is not tried again until it is another.
func TestLoopTerminal(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.SetHook(func(op, _, step string) error {
			if op == "create" && step == "spawn" && w.Record("web").SpecHash == reconciletest.Entry("web", "bad", nil).Hash {
				return refusal{}
			}
			return nil
		})
		w.Want(reconciletest.Entry("web", "bad", nil))
		time.Sleep(time.Hour)
		synctest.Wait()
		if r := w.Record("web"); r.Attempt != 1 || !r.App().LastExit.Permanent {
			t.Errorf("%+v", r)
		}
		w.Want(reconciletest.Entry("web", "good", nil))
		time.Sleep(time.Second)
		synctest.Wait()
		if p := phase(w, "web"); p != "Running" {
			t.Errorf("edited, it is %s", p)
		}
	})
}

// A sandbox that can't be created is still removed with its manifest.
func TestLoopTerminalRemoved(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.SetHook(func(op, _, step string) error {
			if op == "create" && step == "spawn" {
				return refusal{}
			}
			return nil
		})
		w.Want(reconciletest.Entry("web", "bad", nil))
		time.Sleep(time.Minute)
		synctest.Wait()
		w.Unwant("web")
		time.Sleep(time.Second)
		synctest.Wait()
		if r := w.Record("web"); r != nil {
			t.Errorf("it is still there: %+v", r)
		}
	})
}

// patient takes the whole grace period for each stop.
type patient struct{ reconcile.Launcher }

func (p patient) Destroy(ctx context.Context, name string, how actual.Ending) error {
	time.Sleep(how.Grace)
	return p.Launcher.Destroy(ctx, name, how)
}

// Stops that wait for their applications keep no other sandbox waiting.
func TestLoopLongStops(t *testing.T) {
	t.Parallel()
	inLoop(t, func(o *loop.Options) { o.Workers, o.Launcher = 2, patient{o.Launcher} }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		slow := func(name, spec string) *desired.Entry {
			return reconciletest.Entry(name, spec, func(s *desired.Spec) { s.TerminationGracePeriod = new(scalar.Duration(time.Hour)) })
		}
		for i := range 6 {
			w.Want(slow(fmt.Sprintf("slow%d", i), "a"))
		}
		synctest.Wait()
		for i := range 6 {
			w.Want(slow(fmt.Sprintf("slow%d", i), "b"))
		}
		w.Want(reconciletest.Entry("web", "a", nil))
		time.Sleep(time.Second)
		synctest.Wait()
		if p := phase(w, "web"); p != "Running" {
			t.Errorf("web is %s", p)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		for i := range 6 {
			if r := w.Record(fmt.Sprintf("slow%d", i)); r == nil || r.Attempt != 2 {
				t.Errorf("slow%d: %+v", i, r)
			}
		}
	})
}

// Hundreds of stops that last an hour keep nobody from being stopped or started, also
// beside starts that hang.
func TestLoopManyLongStops(t *testing.T) {
	t.Parallel()
	const crowd = 260
	inLoop(t, func(o *loop.Options) { o.Workers, o.Launcher = 2, patient{o.Launcher} }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.PIDs = 8 * crowd
		slow := func(name, spec string) *desired.Entry {
			return reconciletest.Entry(name, spec, func(s *desired.Spec) { s.TerminationGracePeriod = new(scalar.Duration(time.Hour)) })
		}
		for i := range crowd {
			w.Want(slow(fmt.Sprintf("slow%d", i), "a"))
		}
		w.Want(slow("stop", "a"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := phase(w, "stop"); p != "Running" {
			t.Fatalf("stop is %s", p)
		}
		for i := range crowd {
			w.Want(slow(fmt.Sprintf("slow%d", i), "b"))
		}
		time.Sleep(time.Minute)
		w.Want(slow("stop", "b"))
		w.Want(reconciletest.Entry("web", "a", nil))
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := phase(w, "web"); p != "Running" {
			t.Errorf("web is %s", p)
		}
		// It does not wait for the hour of others.
		time.Sleep(time.Hour)
		synctest.Wait()
		if r := w.Record("stop"); r == nil || r.Attempt != 2 {
			t.Errorf("stop: %+v", r)
		}
	})
}

// What goes away one by one is held like what goes away at once.
func TestLoopSlowMassRemoval(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		for i := range 8 {
			w.Want(reconciletest.Entry(fmt.Sprintf("s%d", i), "a", nil))
		}
		synctest.Wait()
		for i := range 8 {
			w.Unwant(fmt.Sprintf("s%d", i))
			time.Sleep(time.Second)
			synctest.Wait()
		}
		left := 0
		for i := range 8 {
			if phase(w, fmt.Sprintf("s%d", i)) == "Running" {
				left++
			}
		}
		if left != 4 {
			t.Errorf("%d of 8 are left, expected half", left)
		}
	})
}

// A panic in an operation is that operation's error, and not the daemon's end.
func TestLoopTellsUnclear(t *testing.T) {
	t.Parallel()
	events := &journal{}
	inLoop(t, func(o *loop.Options) { o.Events = events }, func(w *reconciletest.World, l *loop.Loop, _ *atomic.Int64) {
		w.Want(reconciletest.Entry("web", "a", nil))
		synctest.Wait()
		w.Quarantine("web")
		for range 3 {
			l.Wake()
			synctest.Wait()
		}
		told := 0
		for _, r := range events.reasons {
			if r == actual.EventRecordQuarantined {
				told++
			}
		}
		if told != 1 {
			t.Errorf("told %d times that it is held, expected once: %v", told, events.reasons)
		}
	})
}

func TestLoopPanic(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		var panicked atomic.Bool
		w.SetHook(func(op, name, step string) error {
			if op == "create" && step == "claim" && !panicked.Swap(true) {
				panic("of " + name)
			}
			return nil
		})
		w.Want(reconciletest.Entry("web", "a", nil))
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := phase(w, "web"); p != "Running" || !panicked.Load() {
			t.Errorf("it is %s, panicked %v", p, panicked.Load())
		}
	})
}

// At most so many operations at once, one a name.
func TestLoopWorkers(t *testing.T) {
	t.Parallel()
	inLoop(t, func(o *loop.Options) { o.Workers = 3 }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.Took = time.Second
		var running atomic.Int64
		w.SetHook(func(op, name, step string) error {
			if op == "create" && step == "claim" {
				running.Add(1)
			}
			return nil
		})
		for i := range 7 {
			w.Want(reconciletest.Entry(fmt.Sprintf("s%d", i), "a", nil))
		}
		synctest.Wait()
		start := time.Now()
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if n := running.Load(); n != 6 {
			t.Errorf("%d creates in %s with 3 workers of a second each", n, time.Since(start))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := running.Load(); n != 7 {
			t.Errorf("%d creates", n)
		}
	})
}

// The end of the daemon waits for operations under way and starts none.
func TestLoopShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := reconciletest.New()
		w.Took = 5 * time.Second
		l := loop.New(loop.Options{View: &view.View{Source: w, Observer: w, Policy: reconcile.DefaultPolicy()}, Launcher: w, Workers: 1, ShutdownGrace: 10 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		w.Want(reconciletest.Entry("a", "x", nil))
		w.Want(reconciletest.Entry("b", "x", nil))
		start := time.Now()
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
		if phase(w, "a") != "Running" || phase(w, "b") != "none" {
			t.Errorf("a is %s, b is %s", phase(w, "a"), phase(w, "b"))
		}
		if err := w.Breaches(); err != nil {
			t.Error(err)
		}
	})
}

func TestLoopOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := reconciletest.New()
		w.Took = time.Second
		once := func() (reconcile.Summary, error) {
			return loop.New(loop.Options{View: &view.View{Source: w, Observer: w, Policy: reconcile.DefaultPolicy()}, Launcher: w, Requests: w}).Once(t.Context())
		}
		for i := range 8 {
			w.Want(reconciletest.Entry(fmt.Sprintf("s%d", i), "a", nil))
		}
		s, err := once()
		if err != nil || !s.Converged || s.Ready != 8 {
			t.Errorf("%+v %v", s, err)
		}
		w.SetHook(func(string, string, string) error { return errors.New("no") })
		w.Want(reconciletest.Entry("bad", "a", nil))
		if s, err = once(); err != nil || s.Converged {
			t.Errorf("%+v %v", s, err)
		}
	})
}

// Whatever happens, and wherever the daemon dies, the host converges when it
// stops happening, and nobody breaks the contract on the way.
func TestLoopChaos(t *testing.T) {
	t.Parallel()
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { chaos(t, uint64(seed)) })
	}
}

func chaos(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	faultRNG := rand.New(rand.NewPCG(seed, 2)) // the hook's own: it runs on workers
	w := reconciletest.New()
	var faults atomic.Bool
	faults.Store(true)
	w.SetHook(func(op, name, step string) error {
		if !faults.Load() {
			return nil
		}
		switch faultRNG.IntN(12) {
		case 0:
			return reconciletest.ErrCrash
		case 1:
			return errors.New("fault")
		}
		return nil
	})
	names := []string{"a", "b", "c", "d"}
	command := map[string]string{}
	var cancel context.CancelFunc
	var done chan error
	start := func() {
		var ctx context.Context
		ctx, cancel = context.WithCancel(t.Context())
		done = make(chan error, 1)
		policy := reconcile.DefaultPolicy()
		policy.AllowMassDelete = true
		l := loop.New(loop.Options{View: &view.View{Source: w, Observer: w, Policy: policy}, Launcher: w, Requests: w, Wakes: []<-chan struct{}{w.Changes()}})
		go func() { done <- l.Run(ctx) }()
	}
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("seed %d: run: %v", seed, err)
		}
	}
	start()
	for range 120 {
		n := names[rng.IntN(len(names))]
		switch rng.IntN(9) {
		case 0, 1:
			command[n] = fmt.Sprint("v", rng.IntN(3))
			w.Want(reconciletest.Entry(n, command[n], nil))
		case 2:
			delete(command, n)
			w.Unwant(n)
		case 3:
			w.Kill(n, "sentry", rng.IntN(3)-1)
		case 4:
			w.Kill(n, "gofer", -1)
		case 5:
			w.SetComplete(rng.IntN(2) == 0)
		case 6:
			w.Reboot()
		case 7:
			stop()
			start()
		case 8:
			w.Request(actual.Request{Kind: actual.RequestRestart, Name: n, Token: fmt.Sprint(rng.Uint64())})
		}
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		synctest.Wait()
	}
	faults.Store(false)
	w.SetComplete(true)
	// Longer than the longest backoff and retry.
	time.Sleep(30 * time.Minute)
	synctest.Wait()
	stop()
	for _, n := range names {
		r := w.Record(n)
		c, wanted := command[n]
		switch {
		case !wanted && r != nil:
			t.Errorf("seed %d: %s is left: %s", seed, n, r.Phase)
		case wanted && (r == nil || r.Phase != actual.PhaseRunning || r.SpecHash != reconciletest.Entry(n, c, nil).Hash):
			t.Errorf("seed %d: %s did not converge: %+v", seed, n, r)
		}
	}
	if err := w.Breaches(); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
}
