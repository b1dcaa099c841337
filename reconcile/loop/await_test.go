// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/reconcile"
)

// TestAwaitOthers: what is reported in the same moment as the end of a removal, while
// others are under way, is a reason for a pass at once: it has made room for what waits.
// The end of a removal alone is not.
func TestAwaitOthers(t *testing.T) {
	t.Parallel()
	const rest = time.Minute
	for what, tc := range map[string]struct {
		report func(l *Loop)
		after  time.Duration
	}{
		"another removal": {func(l *Loop) { l.done <- result{action: reconcile.Action{Name: "b", Lane: reconcile.LaneRemove}} }, rest},
		"a start":         {func(l *Loop) { l.done <- result{action: reconcile.Action{Name: "b", Lane: reconcile.LaneChange}} }, 0},
		"a stop":          {func(l *Loop) { l.done <- result{action: reconcile.Action{Name: "b", Lane: reconcile.LaneStop}} }, 0},
		"a wait":          {func(l *Loop) { l.waits <- "b" }, 0},
	} {
		for range 10 { // whichever of the two is taken first
			synctest.Test(t, func(t *testing.T) {
				l := New(Options{Rest: rest})
				l.jobs["under way"] = &job{action: reconcile.Action{Lane: reconcile.LaneRemove}}
				go func() { l.done <- result{action: reconcile.Action{Name: "a", Lane: reconcile.LaneRemove}} }()
				go tc.report(l)
				synctest.Wait()
				began := time.Now()
				if !l.await(t.Context(), nil, time.Hour) || time.Since(began) != tc.after {
					t.Errorf("%s: a pass after %s, expected after %s", what, time.Since(began), tc.after)
				}
				l.collect() // what was not taken yet
			})
		}
	}
}
