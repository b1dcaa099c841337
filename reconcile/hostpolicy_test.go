// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

func hostPolicy(t testing.TB, lines string) *hostpolicy.Policy {
	t.Helper()
	p, problems := hostpolicy.Decode("policy.yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"+lines))
	if p == nil {
		t.Fatal(problems)
	}
	return p
}

// judged is an input whose source was read with a policy, nil for one that can't
// be used.
func judged(in reconcile.Input, p *hostpolicy.Policy) reconcile.Input {
	if in.Desired.Policy = p; p == nil {
		in.Desired.Policy = nil // and not an interface that holds nothing
		in.Desired.Complete, in.Desired.Reason, in.Desired.Message = false, desired.ReasonPolicyUnusable, "the policy is broken"
	}
	in.Denied = view.Denied(in.Desired, in.LastGood)
	return in
}

// What runs and is not allowed any more runs on; what does not is not started;
// cleaning up after the dead goes on.
func TestPlanDenied(t *testing.T) {
	t.Parallel()
	strict := hostPolicy(t, "root: {host: false}")
	fine := hostPolicy(t, "")
	web := reconciletest.Entry("web", "a", nil)
	direct := reconciletest.Entry("direct", "a", func(s *desired.Spec) { s.FileAccess = desired.FileAccessDirect })
	problem := desired.Problem{Name: "web", Position: desired.Position{File: "web.yaml", Line: 5, Column: 10}, Field: "spec.root.host", Reason: desired.ReasonPolicyDenied, Message: "not allowed"}
	denied := func(o actual.Observed, change ...func(*actual.Observed)) reconcile.Input {
		for _, c := range change {
			c(&o)
		}
		in := input(false, nil, o)
		in.Desired.Problems = []desired.Problem{problem}
		return in
	}
	request := func(in reconcile.Input) reconcile.Input {
		in.Actual.Requests = []actual.Request{{Kind: actual.RequestRestart, Name: "web", Token: "t"}}
		return in
	}
	dead := func(o *actual.Observed) { o.Sentry = process.Dead }
	phase := func(p actual.Phase) func(*actual.Observed) { return func(o *actual.Observed) { o.Record.Phase = p } }
	due := func(o *actual.Observed) { o.Record.App().LastExit.At = now.Add(-time.Hour) }
	for name, c := range map[string]struct {
		in                      reconcile.Input
		plan, phase, conditions string
	}{
		"runs": {judged(denied(running(web)), strict), "", "Running", "Ready=True/Running Reconciling=False/Converged Stalled=True/PolicyDenied ManifestValid=False/PolicyDenied"},
		"runs, and what is recorded is allowed": {
			judged(denied(running(web)), fine), "", "Running", "Ready=True/Running Reconciling=False/Converged Stalled=False/Converged ManifestValid=False/PolicyDenied",
		},
		"runs, no policy":        {judged(denied(running(web)), nil), "", "Running", "Ready=True/Running Reconciling=False/Converged Stalled=True/PolicyDenied ManifestValid=False/PolicyDenied"},
		"a restart is asked for": {judged(request(denied(running(web))), strict), "", "Running", "Stalled=True/PolicyDenied"},
		"a restart, no policy":   {judged(request(denied(running(web))), nil), "", "Running", "Stalled=True/PolicyDenied"},
		"a restart of what may":  {judged(request(denied(running(web))), fine), "destroy web RestartRequested graceful", "Running", "Stalled=False/Converged"},
		"died":                   {judged(denied(running(web), dead), strict), "destroy web SentryKilled failures=1", "Stopping", ""},
		"died, no policy":        {judged(denied(running(web), dead), nil), "destroy web SentryKilled failures=1", "Stopping", ""},
		"begun to stop":          {judged(denied(running(web), phase(actual.PhaseStopping)), nil), "destroy web Interrupted", "Stopping", ""},
		"interrupted":            {judged(denied(running(web), phase(actual.PhaseStarting)), nil), "resume web Interrupted", "Creating", ""},
		"stopped":                {judged(denied(stopped(web, 1), due), strict), "", "Failed", "Ready=False/PolicyDenied Reconciling=False/Converged Stalled=True/PolicyDenied ManifestValid=False/PolicyDenied"},
		"completed": {judged(denied(stopped(web, 0), func(o *actual.Observed) {
			o.Record.App().Completed, o.Record.App().LastExit.Known, o.Record.App().LastExit.Code = true, true, 0
		}), strict), "", "Completed", "Ready=False/PolicyDenied Stalled=True/PolicyDenied"},
		"stopped, no policy":         {judged(denied(stopped(web, 1), due), nil), "", "Failed", "Ready=False/PolicyDenied Reconciling=False/Converged Stalled=True/PolicyDenied"},
		"stopped, a restart":         {judged(request(denied(stopped(web, 1))), strict), "", "Failed", "Stalled=True/PolicyDenied"},
		"stopped, allowed":           {judged(denied(stopped(web, 1), due), fine), "create web BackOff", "Pending", "Reconciling=True/BackOff"},
		"rebooted":                   {judged(denied(stopped(web, 1), func(o *actual.Observed) { o.Record.Ending.Reason = actual.ReasonHostRebooted }), strict), "", "Failed", "Stalled=True/PolicyDenied"},
		"its manifest is gone":       {judged(input(true, nil, running(web)), strict), "destroy web ManifestRemoved graceful", "Removing", "Reconciling=True/ManifestRemoved"},
		"its manifest is, no policy": {judged(input(true, nil, running(web)), nil), "", "Running", "Stalled=True/PolicyDenied ManifestValid=False/SourceIncomplete"},
		"new":                        {judged(input(true, []*desired.Entry{web}), fine), "create web New", "Pending", ""},
		"another one is not allowed": {judged(input(true, []*desired.Entry{web}, running(web)), strict), "", "Running", "Ready=True/Running Stalled=False/Converged ManifestValid=True/Valid"},
		"direct is not allowed":      {judged(input(false, nil, running(direct)), fine), "", "Running", "Stalled=True/PolicyDenied"},
		"never valid": {judged(func() reconcile.Input {
			in := input(false, nil)
			in.Desired.Problems = []desired.Problem{problem}
			return in
		}(), strict), "", "Invalid", "Ready=False/PolicyDenied Stalled=True/PolicyDenied ManifestValid=False/PolicyDenied"},
		"no room": {judged(input(true, []*desired.Entry{reconciletest.Entry("a", "a", nil), web}, running(web)), hostPolicy(t, "maxSandboxes: 1")), "", "Running", "Ready=True/Running Stalled=False/Converged"},
		"no room for the quarantined either": {judged(func() reconcile.Input {
			in := input(true, []*desired.Entry{web})
			in.Actual.Quarantined = []actual.Quarantined{{Name: "x"}}
			return in
		}(), hostPolicy(t, "maxSandboxes: 1")), "", "Pending", "Ready=False/PolicyDenied Reconciling=False/Converged Stalled=True/PolicyDenied ManifestValid=True/Valid"},
		"no room beside the busy": {judged(func() reconcile.Input {
			in := input(true, []*desired.Entry{web})
			in.Operations = map[string]reconcile.Operation{"other": {}}
			return in
		}(), hostPolicy(t, "maxSandboxes: 1")), "", "Pending", "Stalled=True/PolicyDenied"},
		"room":         {judged(input(true, []*desired.Entry{web}, running(direct)), hostPolicy(t, "maxSandboxes: 2")), "destroy direct ManifestRemoved graceful; create web New", "Pending", "Stalled=False/Converged"},
		"room for one": {judged(input(true, []*desired.Entry{reconciletest.Entry("a", "a", nil), web}), hostPolicy(t, "maxSandboxes: 1")), "create a New", "Pending", ""},
	} {
		plan := reconcile.Compute(c.in)
		if got := show(plan); got != c.plan {
			t.Errorf("%s: plan %q, expected %q", name, got, c.plan)
		}
		for _, s := range reconcile.Statuses(c.in, plan) {
			if s.Name != "web" && !strings.HasPrefix(name, "direct") {
				continue
			}
			if s.Phase != c.phase {
				t.Errorf("%s: phase %s, expected %s", name, s.Phase, c.phase)
			}
			var got []string
			for _, cond := range s.Conditions {
				got = append(got, cond.Type+"="+cond.Status+"/"+cond.Reason)
			}
			for want := range strings.FieldsSeq(c.conditions) {
				if !strings.Contains(strings.Join(got, " ")+" ", want+" ") {
					t.Errorf("%s: %v, expected %s", name, got, want)
				}
			}
		}
		if sum := reconcile.Summarize(c.in, plan, reconcile.Statuses(c.in, plan)); strings.Contains(c.conditions, "PolicyDenied") && sum.Converged {
			t.Errorf("%s: it is said to be converged", name)
		}
	}
}
