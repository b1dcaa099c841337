// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
)

// Why a sandbox can't be stopped is in its status, whatever it is stopped for.
func TestStatusStopFailed(t *testing.T) {
	t.Parallel()
	web := reconciletest.Entry("web", "a", nil)
	const why = "remove cgroup /x: /x/y holds processes 7"
	for name, want := range map[string][]*desired.Entry{"removed": nil, "restarted": {web}} {
		o := running(web)
		o.Record.Phase, o.Record.Ending = actual.PhaseStopping, &actual.Ending{Reason: actual.ReasonManifestRemoved}
		o.Sentry, o.Gofer = process.Dead, process.Dead
		for _, known := range []bool{false, true} {
			if known {
				o.Record.Warnings = []actual.Warning{{Reason: "HookFailed", Message: "other"}, {Reason: actual.WarningStopFailed, Message: why}}
			}
			in := input(true, want, o)
			s := reconcile.Statuses(in, reconcile.Compute(in))[0]
			for _, typ := range []string{reconcile.CondReady, reconcile.CondReconciling} {
				c := s.Condition(typ)
				if strings.Contains(c.Message, why) != known || strings.Contains(c.Message, "other") || c.Reason == "" {
					t.Errorf("%s, known %t: %s says %q", name, known, typ, c.Message)
				}
			}
		}
	}
}

// From the moment at which an operation begins that stops a sandbox for a new spec, it is
// not ready: its record says only later that it stops, and who waits for the change must
// not be content with what ran before.
func TestStatusOperationUnderWay(t *testing.T) {
	t.Parallel()
	web := reconciletest.Entry("web", "a", nil)
	changed := reconciletest.Entry("web", "a", func(s *desired.Spec) { s.Command = []string{"other"} })
	for name, c := range map[string]struct {
		want               *desired.Entry
		op                 *reconcile.Operation
		ready, reconciling string
	}{
		"nothing under way":           {web, nil, "True Running", "False Converged"},
		"changed, not begun":          {changed, nil, "False SpecChanged", "True SpecChanged"},
		"changed, stop begun":         {changed, &reconcile.Operation{Op: reconcile.OpDestroy}, "False SpecChanged", "True SpecChanged"},
		"changed, of another program": {changed, &reconcile.Operation{}, "False SpecChanged", "True SpecChanged"},
		"changed, start not ended":    {changed, &reconcile.Operation{Op: reconcile.OpCreate, Hash: web.Hash}, "False SpecChanged", "True SpecChanged"},
		"the same, stop begun":        {web, &reconcile.Operation{Op: reconcile.OpDestroy, Restart: "r"}, "True Running", "True Stopping"},
		"the same, start not ended":   {web, &reconcile.Operation{Op: reconcile.OpCreate, Hash: web.Hash}, "True Running", "False Converged"},
		"the same, resumed":           {web, &reconcile.Operation{Op: reconcile.OpResume}, "True Running", "False Converged"},
	} {
		in := input(true, []*desired.Entry{c.want}, running(web))
		if c.op != nil {
			in.Operations = map[string]reconcile.Operation{"web": *c.op}
		}
		s := reconcile.Statuses(in, reconcile.Compute(in))[0]
		for typ, want := range map[string]string{reconcile.CondReady: c.ready, reconcile.CondReconciling: c.reconciling} {
			if cond := s.Condition(typ); cond.Status+" "+cond.Reason != want {
				t.Errorf("%s: %s is %s %s (%s), expected %s", name, typ, cond.Status, cond.Reason, cond.Message, want)
			}
		}
	}
}

// A start that is under way is not what the last one was, whose end stays on record until the
// first record of the new one: who has mended a manifest must not be told the old refusal.
func TestStatusOfStartUnderWay(t *testing.T) {
	t.Parallel()
	web := reconciletest.Entry("web", "a", func(s *desired.Spec) { s.Backoff.Limit = 1 })
	changed := reconciletest.Entry("web", "b", nil)
	slow := reconciletest.Entry("web", "c", func(s *desired.Spec) { s.Backoff.Initial = new(scalar.Duration(time.Minute)) })
	refused, completed := stopped(web, 1), stopped(web, 1)
	refused.Record.App().LastExit = &actual.Exit{Reason: actual.ReasonCreateFailed, Permanent: true, Message: "no such command", At: now}
	completed.Record.App().Completed = true
	for name, c := range map[string]struct {
		want  *desired.Entry
		have  actual.Observed
		phase string // with nothing under way
	}{
		"refused":      {web, refused, reconcile.PhaseFailed},
		"mended":       {changed, refused, reconcile.PhasePending},
		"its limit":    {web, stopped(web, 1), reconcile.PhaseFailed},
		"completed":    {web, completed, reconcile.PhaseFailed},
		"it backs off": {slow, stopped(slow, 1), reconcile.PhaseCrashLoopBackOff},
	} {
		in := input(true, []*desired.Entry{c.want}, c.have)
		if s := reconcile.Statuses(in, reconcile.Compute(in))[0]; s.Phase != c.phase {
			t.Errorf("%s: %s, expected %s", name, s.Phase, c.phase)
		}
		in.Operations = map[string]reconcile.Operation{"web": {Op: reconcile.OpCreate, Hash: c.want.Hash}}
		s := reconcile.Statuses(in, reconcile.Compute(in))[0]
		if stalled := s.Condition(reconcile.CondStalled); s.Phase != reconcile.PhaseCreating || stalled.Status != reconcile.False {
			t.Errorf("%s, started: %s, stalled %s: %s", name, s.Phase, stalled.Status, stalled.Message)
		}
	}
}
