// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/reconciletest"
)

// What was decided is done: a request that is withdrawn or replaced between the
// decision and the start does not turn a restore into a fresh start, or into that of
// another checkpoint.
func TestLoopRequestChangesMeanwhile(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]*actual.Request{
		"withdrawn":          nil,
		"replaced":           {Kind: actual.RequestRestart, Name: "web", Token: "2"},
		"another checkpoint": {Kind: actual.RequestRestart, Name: "web", Token: "2", Checkpoint: "/d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inLoop(t, nil, func(w *reconciletest.World, l *loop.Loop, _ *atomic.Int64) {
				w.Want(reconciletest.Entry("web", "a", nil))
				synctest.Wait()
				var got []string
				w.OnCreate = func(r *actual.Request) {
					got = append(got, fmt.Sprintf("%s %s", r.ID(), r.Checkpoint))
					if len(got) == 1 {
						if err := w.DropRequest(*r); err != nil {
							t.Error(err)
						}
						if next != nil {
							w.Request(*next)
						}
					}
				}
				w.Request(actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "1", Checkpoint: "/c"})
				l.Wake()
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(got) == 0 || got[0] != "1 /c" {
					t.Errorf("created for the requests %q, expected the first to be %q", got, "1 /c")
				}
			})
		})
	}
}
