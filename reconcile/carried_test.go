// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"reflect"
	"testing"

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
