// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
)

// However often it is woken, between passes there is a rest; the first wakes are acted on
// at once, and none is lost. One change is often two events, as a manifest that is
// replaced by one of another name: the second must not wait because of the first.
func TestLoopRests(t *testing.T) {
	t.Parallel()
	const rest = 20 * time.Millisecond
	for name, wake := range map[string]func(w *reconciletest.World, l *loop.Loop, noise chan<- struct{}){
		"asked": func(_ *reconciletest.World, l *loop.Loop, _ chan<- struct{}) { l.Wake() },
		"by a watch": func(_ *reconciletest.World, _ *loop.Loop, noise chan<- struct{}) {
			select {
			case noise <- struct{}{}:
			default:
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var noise chan struct{}
			change := func(o *loop.Options) {
				noise = make(chan struct{}, 1)
				o.Rest = rest
				o.Wakes = append(o.Wakes, noise)
			}
			inLoop(t, change, func(w *reconciletest.World, l *loop.Loop, passes *atomic.Int64) {
				synctest.Wait()
				time.Sleep(time.Second)
				before := passes.Load()
				for i := range int64(3) {
					wake(w, l, noise)
					synctest.Wait()
					if n := passes.Load() - before; n != i+1 {
						t.Errorf("%d passes at %d wakes after a quiet time", n, i+1)
					}
				}
				before = passes.Load()
				for range 1000 {
					wake(w, l, noise)
					time.Sleep(time.Millisecond)
				}
				if n := passes.Load() - before; n < 40 || n > 60 {
					t.Errorf("%d passes in a second, expected one in %s", n, rest)
				}
				wake(w, l, noise)
				w.Want(reconciletest.Entry("web", "a", nil))
				time.Sleep(2 * rest)
				synctest.Wait()
				if p := phase(w, "web"); p != "Running" {
					t.Errorf("it is %s", p)
				}
			})
		})
	}
}
