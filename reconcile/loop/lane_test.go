// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// eager restarts without a delay.
func eager(s *desired.Spec) {
	s.Backoff.Initial, s.Backoff.Max = new(scalar.Duration), new(scalar.Duration)
}

// Every action that is due begins after a bounded number of others, whatever ends
// again and again beside it and however its name sorts.
func TestLoopFair(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		loops := rapid.IntRange(1, 9).Draw(rt, "crash loops")
		quiet := rapid.IntRange(1, 4).Draw(rt, "others")
		workers := rapid.IntRange(1, 3).Draw(rt, "workers")
		took := time.Duration(rapid.IntRange(50, 500).Draw(rt, "ms")) * time.Millisecond
		gaps := rapid.SliceOfN(rapid.IntRange(0, 1500), 8, 8).Draw(rt, "gaps")
		what := rapid.SliceOfN(rapid.IntRange(0, 3), 8, 8).Draw(rt, "what")
		first := rapid.Bool().Draw(rt, "others sort first")
		var wrong string
		synctest.Test(t, func(t *testing.T) {
			wrong = crashLoops(t, loops, quiet, workers, took, gaps, what, first)
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// endSoon ends a sandbox that is about to run.
func endSoon(w *reconciletest.World, name string) {
	time.AfterFunc(time.Millisecond, func() { w.Kill(name, "sentry", 1) })
}

func crashLoops(t *testing.T, loops, quiet, workers int, took time.Duration, gaps, what []int, first bool) string {
	w := reconciletest.New()
	w.Took = took
	// A crash loop ends as soon as it has begun.
	w.OnStart = func(_ context.Context, name string) error {
		if name[0] == 'm' {
			endSoon(w, name)
		}
		return nil
	}
	line := &reconciletest.Line{}
	l := loop.New(loop.Options{
		View: &view.View{Source: w, Observer: w, Policy: reconcile.DefaultPolicy()}, Launcher: w, Workers: workers, Wakes: []<-chan struct{}{w.Changes()}, OnPass: func(in reconcile.Input, plan reconcile.Plan) {
			due := make([]reconciletest.Due, len(plan.Actions))
			for i, a := range plan.Actions {
				due[i] = reconciletest.Due{Name: a.Name, Lane: int(a.Lane)}
			}
			line.Pass(due, in.Operations)
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for i := range loops {
		w.Want(reconciletest.Entry(fmt.Sprintf("m%d", i), "a", eager))
	}
	prefix := "z"
	if first {
		prefix = "a"
	}
	for i, gap := range gaps {
		name := fmt.Sprintf("%s%d", prefix, i%quiet)
		switch what[i] {
		case 0, 1:
			w.Want(reconciletest.Entry(name, fmt.Sprint(i), eager))
		case 2:
			w.Kill(name, "sentry", 1)
		case 3:
			w.Unwant(name)
		}
		time.Sleep(time.Duration(gap) * time.Millisecond)
	}
	time.Sleep(5 * time.Second)
	cancel()
	if err := <-done; err != nil {
		return err.Error()
	}
	return line.Wrong()
}

// The bound is reached by real competition, and an order by name breaks it.
func TestLineCanFail(t *testing.T) {
	t.Parallel()
	line := &reconciletest.Line{}
	due := []reconciletest.Due{{Name: "a"}, {Name: "z"}}
	for range 3 {
		line.Pass(due, map[string]reconcile.Operation{"a": {}})
		line.Pass(due[1:], nil)
	}
	if line.Wrong() == "" {
		t.Error("a name that is served twice before another was not found")
	}
}

// Crash loops that sort first, however many, keep nobody from being started,
// changed or removed, and not each other from their turn.
func TestLoopCrashLoops(t *testing.T) {
	t.Parallel()
	for _, n := range []int{4, 8, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			starts := map[string]int{}
			var mu sync.Mutex
			inLoop(t, func(o *loop.Options) { o.Workers = 2 }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
				w.OnStart = func(_ context.Context, name string) error {
					time.Sleep(time.Second)
					mu.Lock()
					defer mu.Unlock()
					if starts[name]++; name[0] == 'a' {
						endSoon(w, name)
					}
					return nil
				}
				for i := range n {
					w.Want(reconciletest.Entry(fmt.Sprintf("a%d", i), "a", eager))
				}
				time.Sleep(time.Minute)
				mu.Lock()
				clear(starts) // all have had their first one
				mu.Unlock()
				time.Sleep(5 * time.Minute)
				w.Want(reconciletest.Entry("web", "a", nil))
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if p := phase(w, "web"); p != "Running" {
					t.Errorf("web is %s two seconds after it was wanted", p)
				}
				w.Want(reconciletest.Entry("web", "b", nil))
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if r := w.Record("web"); r.Generation != 2 || r.Phase != actual.PhaseRunning {
					t.Errorf("edited, web is %s of generation %d", r.Phase, r.Generation)
				}
				w.Unwant("web")
				time.Sleep(time.Second)
				synctest.Wait()
				if p := phase(w, "web"); p != "none" {
					t.Errorf("removed, web is %s", p)
				}
			})
			least, most := 1<<30, 0
			for name, k := range starts {
				if name != "web" {
					least, most = min(least, k), max(most, k)
				}
			}
			if most-least > 1 {
				t.Errorf("crash loops were started %d to %d times", least, most)
			}
		})
	}
}

// The least delay after a failure and the starts per second are the host policy's,
// whatever a manifest says.
func TestLoopPace(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var starts []time.Time
	last := map[string]time.Time{}
	inLoop(t, func(o *loop.Options) {
		p := hostpolicy.Default()
		p.MinRestartDelay, p.MaxStartsPerSecond = new(scalar.Duration(3*time.Second)), 5
		v := o.View.(*view.View)
		v.Source, o.Workers = source{v.Source.(*reconciletest.World), func(s *desired.Snapshot) { s.Policy = p }}, 50
	}, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		w.OnStart = func(_ context.Context, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if at, again := last[name]; again {
				starts = append(starts, time.Now())
				if d := time.Since(at); d < 3*time.Second {
					t.Errorf("%s was started %s after it had failed", name, d)
				}
			}
			last[name] = time.Now()
			endSoon(w, name)
			return nil
		}
		for i := range 60 {
			w.Want(reconciletest.Entry(fmt.Sprintf("s%d", i), "a", eager))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
	})
	if len(starts) < 300 {
		t.Errorf("%d starts in two minutes", len(starts))
	}
	for i := 5; i < len(starts); i++ {
		if d := starts[i].Sub(starts[i-5]); d < time.Second {
			t.Fatalf("six starts within %s", d)
		}
	}
}

// source changes what another one says.
type source struct {
	*reconciletest.World
	change func(*desired.Snapshot)
}

func (s source) Load(ctx context.Context) (*desired.Snapshot, error) {
	snap, err := s.World.Load(ctx)
	s.change(snap)
	return snap, err
}

// hang makes the starts of names hang until they are told to end, and says whether
// they give up their workers.
func hang(w *reconciletest.World, tells bool, hangs func(name string) bool) {
	w.OnStart = func(ctx context.Context, name string) error {
		if !hangs(name) {
			return nil
		}
		if tells {
			operation.Waits(ctx)
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
}

// Starts that hang hold no workers, whether the launcher tells that they wait or
// not, and are cancelled when their reason is gone or another one now.
func TestLoopHangingStarts(t *testing.T) {
	t.Parallel()
	for _, tells := range []bool{true, false} {
		t.Run(fmt.Sprint(tells), func(t *testing.T) {
			t.Parallel()
			j := &journal{}
			inLoop(t, func(o *loop.Options) { o.Events = j }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
				var mended atomic.Bool
				hang(w, tells, func(name string) bool { return name[0] == 'h' && !(name == "h0" && mended.Load()) })
				for i := range 7 {
					w.Want(reconciletest.Entry(fmt.Sprintf("h%d", i), "a", nil))
				}
				synctest.Wait()
				w.Want(reconciletest.Entry("web", "a", nil))
				patience := time.Second
				if !tells {
					patience = 70 * time.Second // 8 starts, of which 4 at once hold a worker for 30 s
				}
				time.Sleep(patience)
				synctest.Wait()
				if p := phase(w, "web"); p != "Running" {
					t.Fatalf("web is %s beside starts that hang", p)
				}
				for name, change := range map[string]func(){
					"h1": func() { w.Unwant("h1") },
					"h2": func() { w.Want(reconciletest.Entry("h2", "b", nil)) },
					"h3": func() { w.Want(reconciletest.Entry("h3", "a", func(s *desired.Spec) { s.Suspend = true })) },
					"h4": func() { w.Request(actual.Request{Kind: actual.RequestRestart, Name: "h4", Token: "t"}) },
				} {
					before := w.Record(name)
					change()
					time.Sleep(time.Second)
					synctest.Wait()
					after := w.Record(name)
					switch {
					case name == "h1" && after != nil:
						t.Errorf("removed while its start hangs: %+v", after)
					case name == "h2" && (after.SpecHash == before.SpecHash || after.Attempt != 2 || after.App().Failures != 0):
						t.Errorf("edited while its start hangs: %+v", after)
					case name == "h3" && (after.Phase != actual.PhaseStopped || after.App().LastExit.Reason != actual.ReasonCancelled || after.Ending.Reason != actual.ReasonSuspended || after.App().Failures != 0):
						t.Errorf("suspended while its start hangs: %+v %+v", after, after.App().LastExit)
					case name == "h4" && (after.RestartToken != "t" || after.Attempt != 2):
						t.Errorf("restarted while its start hangs: %+v", after)
					}
				}
				// The edit of another one, or of nothing that matters, cancels nothing.
				before := w.Record("h5").Attempt
				w.Want(reconciletest.Entry("h5", "a", func(s *desired.Spec) { s.TerminationGracePeriod = new(scalar.Duration(time.Minute)) }))
				time.Sleep(time.Minute)
				synctest.Wait()
				if r := w.Record("h5"); r.Attempt != before {
					t.Errorf("its start was cancelled for a change that restarts nothing: %+v", r)
				}
				// Mended, it comes up.
				mended.Store(true)
				w.Want(reconciletest.Entry("h0", "good", nil))
				time.Sleep(time.Second)
				synctest.Wait()
				if p := phase(w, "h0"); p != "Running" {
					t.Errorf("mended, h0 is %s", p)
				}
			})
			n := 0
			for _, r := range j.reasons {
				if r == actual.EventCancelled {
					n++
				}
			}
			if n != 5 {
				t.Errorf("%d events of cancelled starts, expected 5: %v", n, j.reasons)
			}
		})
	}
}

// A removal that waits for approval cancels nothing, nor does a directory that
// can't be relied on.
func TestLoopCancelGuarded(t *testing.T) {
	t.Parallel()
	inLoop(t, nil, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		hang(w, true, func(string) bool { return true })
		for i := range 4 {
			w.Want(reconciletest.Entry(fmt.Sprintf("h%d", i), "a", nil))
		}
		synctest.Wait()
		w.SetComplete(false)
		time.Sleep(time.Minute)
		w.SetComplete(true)
		for i := range 4 {
			w.Unwant(fmt.Sprintf("h%d", i))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i := range 4 {
			if p := phase(w, fmt.Sprintf("h%d", i)); p != "Starting" {
				t.Errorf("h%d is %s", i, p)
			}
		}
		w.Request(actual.Request{Kind: actual.RequestApprove, Token: "t", Names: []string{"h0", "h1", "h2", "h3"}})
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range 4 {
			if p := phase(w, fmt.Sprintf("h%d", i)); p != "none" {
				t.Errorf("approved, h%d is %s", i, p)
			}
		}
	})
}

// deaf takes no notice of the end of its context.
type deaf struct{ reconcile.Launcher }

func (d deaf) Destroy(ctx context.Context, name string, how actual.Ending) error {
	time.Sleep(how.Grace)
	return d.Launcher.Destroy(ctx, name, how)
}

// The daemon ends within seconds, whatever its operations wait for, and what they
// were doing is resumed by the next one and counts for nothing.
func TestLoopShutdownSoon(t *testing.T) {
	t.Parallel()
	for name, tells := range map[string]bool{"waits": true, "holds workers": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := reconciletest.New()
				var hangs atomic.Bool
				hangs.Store(true)
				hang(w, tells, func(string) bool { return hangs.Load() })
				run := func() (context.CancelFunc, chan error) {
					l := loop.New(loop.Options{View: &view.View{Source: w, Observer: w, Policy: reconcile.DefaultPolicy()}, Launcher: w, Wakes: []<-chan struct{}{w.Changes()}})
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan error, 1)
					go func() { done <- l.Run(ctx) }()
					return cancel, done
				}
				cancel, done := run()
				for i := range 6 {
					w.Want(reconciletest.Entry(fmt.Sprintf("h%d", i), "a", nil))
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				began := time.Now()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("the daemon took %s to end", took)
				}
				hangs.Store(false)
				cancel, done = run()
				time.Sleep(time.Minute)
				synctest.Wait()
				for i := range 6 {
					if r := w.Record(fmt.Sprintf("h%d", i)); r.Phase != actual.PhaseRunning || r.App().Failures != 0 {
						t.Errorf("under the next daemon h%d is %s, %d failures", i, r.Phase, r.App().Failures)
					}
				}
				cancel()
				<-done
				if err := w.Breaches(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What does not end at all is left behind, and named.
func TestLoopShutdownLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := reconciletest.New()
		l := loop.New(loop.Options{View: &view.View{Source: w, Observer: w, Policy: reconcile.DefaultPolicy()}, Launcher: deaf{w}, Wakes: []<-chan struct{}{w.Changes()}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		w.Want(reconciletest.Entry("web", "a", func(s *desired.Spec) { s.TerminationGracePeriod = new(scalar.Duration(time.Hour)) }))
		time.Sleep(time.Second)
		w.Unwant("web")
		time.Sleep(time.Second)
		began := time.Now()
		cancel()
		<-done
		if took := time.Since(began); took > 5*time.Second || fmt.Sprint(l.Unfinished()) != "[web]" {
			t.Errorf("the daemon took %s to end and left %v", took, l.Unfinished())
		}
		time.Sleep(2 * time.Hour) // it ends by itself, and nobody listens
	})
}

// A grace period that is shortened while a stop waits is the shorter one.
func TestLoopGraceShortened(t *testing.T) {
	t.Parallel()
	inLoop(t, func(o *loop.Options) { o.Launcher = graceful{o.Launcher} }, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		with := func(command string, grace time.Duration) *desired.Entry {
			return reconciletest.Entry("web", command, func(s *desired.Spec) { s.TerminationGracePeriod = new(scalar.Duration(grace)) })
		}
		w.Want(with("a", time.Hour))
		synctest.Wait()
		w.Want(with("b", time.Hour))
		time.Sleep(time.Minute)
		synctest.Wait()
		if r := w.Record("web"); r.Generation != 1 {
			t.Fatalf("it did not wait: %+v", r)
		}
		w.Want(with("b", 5*time.Second))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if r := w.Record("web"); r.Generation != 2 || r.Phase != actual.PhaseRunning {
			t.Errorf("given less time, it is %s of generation %d", r.Phase, r.Generation)
		}
	})
}

// graceful writes down that a stop was begun and waits for the grace period.
type graceful struct{ reconcile.Launcher }

func (g graceful) Destroy(ctx context.Context, name string, how actual.Ending) error {
	t := time.NewTimer(how.Grace)
	defer t.Stop()
	select {
	case <-ctx.Done():
		g.Launcher.(*reconciletest.World).Stopping(name, how)
		return context.Cause(ctx)
	case <-t.C:
	}
	return g.Launcher.Destroy(ctx, name, how)
}
