// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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

// dying takes a second until the processes of a sandbox are dead, as a kernel does
// that has much to free, and counts what it is asked.
type dying struct {
	reconcile.Launcher

	mu                 sync.Mutex
	now, most          int // kills under way
	destroyed, forgets map[string]int
}

func (d *dying) Destroy(ctx context.Context, name string, how actual.Ending) error {
	d.die(name)
	return d.Launcher.Destroy(ctx, name, how)
}

func (d *dying) Remove(ctx context.Context, name string, how actual.Ending) (*actual.Record, error) {
	d.die(name)
	return d.Launcher.Remove(ctx, name, how)
}

func (d *dying) die(name string) {
	d.mu.Lock()
	d.destroyed[name]++
	d.now++
	d.most = max(d.most, d.now)
	d.mu.Unlock()
	time.Sleep(time.Second)
	d.mu.Lock()
	d.now--
	d.mu.Unlock()
}

func (d *dying) Forget(ctx context.Context, name string) error {
	d.mu.Lock()
	d.forgets[name]++
	d.mu.Unlock()
	return d.Launcher.Forget(ctx, name)
}

func withGrace(name, command string, grace time.Duration) *desired.Entry {
	return reconciletest.Entry(name, command, func(s *desired.Spec) { s.TerminationGracePeriod = new(scalar.Duration(grace)) })
}

// inRemoval is inLoop with one worker, a launcher that is slow to kill, and no guard.
func inRemoval(t *testing.T, events *journal, f func(w *reconciletest.World, d *dying)) {
	t.Helper()
	d := &dying{destroyed: map[string]int{}, forgets: map[string]int{}}
	inLoop(t, func(o *loop.Options) {
		d.Launcher, o.Launcher, o.Workers, o.Events = o.Launcher, d, 1, events
		o.View.(*view.View).Policy.AllowMassDelete = true
		o.LastExit = func(name string) *actual.Exit {
			if r := o.Requests.(*reconciletest.World).Record(name); r != nil {
				return r.App().LastExit
			}
			return nil
		}
	}, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) { f(w, d) })
}

// Sandboxes without a grace period that are removed at once are killed beside each
// other, however many workers there are, and are gone, with their records, when their
// processes are. People are told of both steps.
func TestLoopRemovesTogether(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 8} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			events := &journal{}
			inRemoval(t, events, func(w *reconciletest.World, d *dying) {
				for i := range n {
					w.Want(withGrace(fmt.Sprintf("s%d", i), "a", 0))
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				for i := range n {
					w.Unwant(fmt.Sprintf("s%d", i))
				}
				time.Sleep(1100 * time.Millisecond)
				synctest.Wait()
				for i := range n {
					name := fmt.Sprintf("s%d", i)
					if p := phase(w, name); p != "none" || d.destroyed[name] != 1 || d.forgets[name] != 0 {
						t.Errorf("%s is %s, destroyed %d times, forgotten %d times", name, p, d.destroyed[name], d.forgets[name])
					}
				}
				if d.most != n {
					t.Errorf("%d of %d were killed beside each other", d.most, n)
				}
			})
			for _, reason := range []string{actual.EventStopped, actual.EventRemoved} {
				if got := len(slices.DeleteFunc(slices.Clone(events.reasons), func(r string) bool { return r != reason })); got != n {
					t.Errorf("%d events %s, expected %d", got, reason, n)
				}
			}
		})
	}
}

// A record that can't be removed after its sandbox was stopped is removed later, and
// nothing is stopped twice.
func TestLoopForgetsLater(t *testing.T) {
	t.Parallel()
	events := &journal{}
	inRemoval(t, events, func(w *reconciletest.World, d *dying) {
		var failed atomic.Bool
		w.SetHook(func(op, _, _ string) error {
			if op == "forget" && !failed.Swap(true) {
				return errors.New("it will not")
			}
			return nil
		})
		w.Want(withGrace("web", "a", 0))
		time.Sleep(time.Minute)
		w.Unwant("web")
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := phase(w, "web"); p != "none" || d.destroyed["web"] != 1 || d.forgets["web"] != 1 {
			t.Errorf("web is %s, destroyed %d times, forgotten %d times", p, d.destroyed["web"], d.forgets["web"])
		}
	})
	want := []string{actual.EventStopped, actual.EventRemoveFailed, actual.EventRemoved}
	if got := slices.DeleteFunc(events.reasons, func(r string) bool { return !slices.Contains(want, r) }); !slices.Equal(got, want) {
		t.Errorf("events %v, expected %v", got, want)
	}
}

// A manifest that comes back in a grace period finds its sandbox on record. Without a
// grace period the removal is finished first.
func TestLoopManifestComesBack(t *testing.T) {
	t.Parallel()
	for grace, attempt := range map[time.Duration]int64{0: 1, time.Second: 2} {
		inRemoval(t, &journal{}, func(w *reconciletest.World, d *dying) {
			w.Want(withGrace("web", "a", grace))
			time.Sleep(time.Minute)
			w.Unwant("web")
			time.Sleep(500 * time.Millisecond)
			w.Want(withGrace("web", "a", grace))
			time.Sleep(time.Minute)
			synctest.Wait()
			if r := w.Record("web"); r == nil || r.Phase != actual.PhaseRunning || r.Attempt != attempt || d.destroyed["web"] != 1 {
				t.Errorf("grace %s: %+v, destroyed %d times, expected attempt %d", grace, r, d.destroyed["web"], attempt)
			}
		})
	}
}

// endsApart removes each sandbox in a time of its own.
type endsApart struct {
	reconcile.Launcher

	mu    sync.Mutex
	began []time.Time
	ended []time.Time
}

func (l *endsApart) Remove(ctx context.Context, name string, how actual.Ending) (*actual.Record, error) {
	l.mu.Lock()
	l.began = append(l.began, time.Now())
	d := time.Duration(len(l.began)) * time.Millisecond
	l.mu.Unlock()
	time.Sleep(d)
	rec, err := l.Launcher.Remove(ctx, name, how)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, time.Now())
	return rec, err
}

// TestRemovalsSharePasses: the ends of removals that are under way together start few
// passes, which would take the processors that they need; but where others wait for a
// place, one is started at once.
func TestRemovalsSharePasses(t *testing.T) {
	t.Parallel()
	const rest = 25 * time.Millisecond
	for _, n := range []int{2, 40, 63, 64, 65, 90} {
		d := &endsApart{}
		inLoop(t, func(o *loop.Options) {
			d.Launcher, o.Launcher, o.Rest = o.Launcher, d, rest
			o.View.(*view.View).Policy.AllowMassDelete = true
			o.Requests.(*reconciletest.World).PIDs = 4 * n
		}, func(w *reconciletest.World, _ *loop.Loop, passes *atomic.Int64) {
			var names []string
			for i := range n {
				e := withGrace(fmt.Sprintf("s%02d", i), "a", 0)
				names = append(names, e.Sandbox.Metadata.Name)
				w.Want(e)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			for _, name := range names {
				if p := phase(w, name); p != "Running" {
					t.Fatalf("%s is %s", name, p)
				}
			}
			before := passes.Load()
			for _, name := range names {
				w.Unwant(name)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			for _, name := range names {
				if p := phase(w, name); p != "none" {
					t.Errorf("%d at once: %s is %s", n, name, p)
				}
			}
			// Those that wait begin one by one, and each needs a pass.
			most := int64(12 + max(0, n-64))
			if made := passes.Load() - before; made > most {
				t.Errorf("%d at once: %d passes, at most %d are expected", n, made, most)
			}
			for i := 64; i < n; i++ {
				if late := d.began[i].Sub(d.ended[i-64]); late > 0 {
					t.Errorf("%d at once: the removal %d begins %s after there was a place for it", n, i, late)
				}
			}
		})
	}
}
