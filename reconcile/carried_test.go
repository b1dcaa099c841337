// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
)

// A start carries the whole request that it carries out: its token and its
// checkpoint, whatever state the sandbox is in.
func TestStartCarriesRequest(t *testing.T) {
	t.Parallel()
	web := reconciletest.Entry("web", "a", nil)
	other := reconciletest.Entry("web", "b", nil)
	request := actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "t", Checkpoint: "/c"}
	cut := func(phase actual.Phase, token string) actual.Observed {
		o := stopped(web, 0)
		o.Record.Phase, o.Record.RestartToken = phase, token
		o.Record.Ending = &actual.Ending{Reason: actual.ReasonInterrupted}
		return o
	}
	done := stopped(web, 0)
	done.Record.App().Completed = true
	for name, in := range map[string]reconcile.Input{
		"new":              input(true, []*desired.Entry{web}),
		"stopped":          input(true, []*desired.Entry{web}, stopped(web, 0)),
		"in back-off":      input(true, []*desired.Entry{web}, stopped(web, 9)),
		"completed":        input(true, []*desired.Entry{web}, done),
		"another spec":     input(true, []*desired.Entry{other}, stopped(web, 1)),
		"cut short":        input(true, []*desired.Entry{web}, cut(actual.PhaseStopped, "t")),
		"cut short before": input(true, []*desired.Entry{web}, cut(actual.PhaseStopped, "older")),
	} {
		in.Actual.Requests = []actual.Request{{Kind: actual.RequestRestart, Name: "api", Token: "other"}, request}
		plan := reconcile.Compute(in)
		if len(plan.Actions) != 1 || plan.Actions[0].Op != reconcile.OpCreate {
			t.Errorf("%s: the plan is %q, expected one create", name, show(plan))
		} else if got := plan.Actions[0].Request; !reflect.DeepEqual(got, &request) {
			t.Errorf("%s: the create carries %+v, expected %+v", name, got, request)
		}
	}
}

// What is resumed is not started as if it was to be a fresh start, if a checkpoint
// was to be restored: the launcher that resumes it is not told of requests.
func TestResumeOfRestore(t *testing.T) {
	t.Parallel()
	web := reconciletest.Entry("web", "a", nil)
	for _, c := range []struct {
		requests []actual.Request
		start    bool
	}{
		{nil, true},
		{[]actual.Request{{Kind: actual.RequestRestart, Name: "web", Token: "t"}}, true},
		{[]actual.Request{{Kind: actual.RequestRestart, Name: "web", Token: "t", Checkpoint: "/c"}}, false},
		{[]actual.Request{{Kind: actual.RequestRestart, Name: "api", Token: "t", Checkpoint: "/c"}}, true},
		{[]actual.Request{{Kind: actual.RequestRestart, Name: "web", Token: "newer", Checkpoint: "/c"}}, false},
		{[]actual.Request{{Kind: actual.RequestRestart, Name: "web", Token: "newer"}}, false},
	} {
		o := running(web)
		o.Record.Phase, o.Record.RestartToken = actual.PhaseStarting, "t"
		in := input(true, []*desired.Entry{web}, o)
		in.Actual.Requests = c.requests
		plan := reconcile.Compute(in)
		if len(plan.Actions) != 1 || plan.Actions[0].Op != reconcile.OpResume || plan.Actions[0].Start != c.start {
			t.Errorf("%+v: the plan is %q, expected a resume with start %v", c.requests, show(plan), c.start)
		}
	}
}

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
			inLoop(t, nil, func(w *reconciletest.World, l *reconcile.Loop, _ *atomic.Int64) {
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
