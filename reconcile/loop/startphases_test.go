// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

// slowWorld takes its time to be read.
type slowWorld struct{ *reconciletest.World }

func (s slowWorld) Load(ctx context.Context) (*desired.Snapshot, error) {
	time.Sleep(3 * time.Millisecond)
	return s.World.Load(ctx)
}

func (s slowWorld) Observe(ctx context.Context) (*actual.Snapshot, error) {
	time.Sleep(5 * time.Millisecond)
	return s.World.Observe(ctx)
}

// The record of a start says how long the pass took that decided on it, what it read
// first: of the first start and of every later one, each of its own pass.
func TestStartPhasesOfPass(t *testing.T) {
	t.Parallel()
	var world *reconciletest.World
	slow := func(o *loop.Options) {
		world = o.Launcher.(*reconciletest.World)
		world.Took = 7 * time.Millisecond
		world.OnStart = func(context.Context, string) error {
			time.Sleep(11 * time.Millisecond)
			return nil
		}
		o.View = &view.View{Source: slowWorld{world}, Observer: slowWorld{world}, Policy: reconcile.DefaultPolicy()}
	}
	inLoop(t, slow, func(w *reconciletest.World, _ *loop.Loop, _ *atomic.Int64) {
		for i := range 3 {
			changed := time.Now()
			if i < 2 {
				w.Want(reconciletest.Entry("web", fmt.Sprint(i), nil))
			} else {
				w.Kill("web", "sentry", 1)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			r := w.Record("web")
			want := fmt.Sprint([]actual.StartPhase{{Phase: actual.StartParse, Milliseconds: 3}, {Phase: actual.StartPlan, Milliseconds: 5}, {Phase: actual.StartRecord, Milliseconds: 7}, {Phase: actual.StartSpawn, Milliseconds: 11}})
			if r.Start == nil || fmt.Sprint(r.Start.Phases) != want || r.Start.Milliseconds != 26 {
				t.Fatalf("start %d: %+v, expected %s", i, r.Start, want)
			}
			if r.Start.BeganAt.Before(changed) || !r.Start.BeganAt.Add(r.Start.Took()).Equal(r.App().StartedAt) {
				t.Errorf("start %d began at %s and took %s; changed at %s, started at %s", i, r.Start.BeganAt, r.Start.Took(), changed, r.App().StartedAt)
			}
		}
	})
}
