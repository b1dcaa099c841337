// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
)

// What can't be begun yet is delayed until the later of the times that the record
// and the last failure give, and the status says the same as the plan.
func TestDelays(t *testing.T) {
	t.Parallel()
	web := reconciletest.Entry("web", "a", nil)
	other := reconciletest.Entry("web", "b", nil)
	eager := reconciletest.Entry("web", "a", func(s *desired.Spec) { s.Backoff.Initial, s.Backoff.Max = new(scalar.Duration), new(scalar.Duration) })
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	retry := func(op reconcile.Op, e *desired.Entry, s int) reconcile.Retry {
		return reconcile.Retry{Op: op, Failures: 1, Due: at(s), Hash: e.Hash, Message: "it will not"}
	}
	permanent := retry(reconcile.OpCreate, web, 9)
	permanent.Permanent = true
	stopping := running(web)
	stopping.Record.Phase, stopping.Record.Ending = actual.PhaseStopping, &actual.Ending{Reason: actual.ReasonSuspended}
	for name, c := range map[string]struct {
		want  []*desired.Entry
		have  []actual.Observed
		retry reconcile.Retry
		full  string
		// until is in seconds from now; -1 is not known, 0 says that it is not delayed.
		until int
		op    reconcile.Op
		says  string
	}{
		"new":                        {want: []*desired.Entry{web}, op: reconcile.OpCreate},
		"new, failed":                {want: []*desired.Entry{web}, retry: retry(reconcile.OpCreate, web, 9), until: 9, op: reconcile.OpCreate, says: "next try in 9s; the last try failed: it will not"},
		"new, failed, due":           {want: []*desired.Entry{web}, retry: retry(reconcile.OpCreate, web, 0), op: reconcile.OpCreate},
		"new, failed as another":     {want: []*desired.Entry{other}, retry: retry(reconcile.OpCreate, web, 9), op: reconcile.OpCreate},
		"new, failed, clock was set": {want: []*desired.Entry{web}, retry: retry(reconcile.OpCreate, web, 9999), op: reconcile.OpCreate},
		"new, can't be":              {want: []*desired.Entry{web}, retry: permanent, until: -1, op: reconcile.OpCreate, says: "it will not; change the manifest"},
		"new, disk full":             {want: []*desired.Entry{web}, full: "no room", until: -1, op: reconcile.OpCreate, says: "no room"},
		"stopped, record says later": {want: []*desired.Entry{web}, have: []actual.Observed{stopped(web, 9)}, retry: retry(reconcile.OpCreate, web, 2), until: 256, op: reconcile.OpCreate, says: "next start in"},
		"stopped, failure is later":  {want: []*desired.Entry{eager}, have: []actual.Observed{stopped(eager, 3)}, retry: retry(reconcile.OpCreate, eager, 8), until: 8, op: reconcile.OpCreate, says: "next start in 8s; the last try failed: it will not"},
		"stopped, no delay":          {want: []*desired.Entry{eager}, have: []actual.Observed{stopped(eager, 3)}, op: reconcile.OpCreate},
		"stopped, disk full":         {want: []*desired.Entry{eager}, have: []actual.Observed{stopped(eager, 3)}, full: "no room", until: -1, op: reconcile.OpCreate, says: "no room"},
		"changed, disk full":         {want: []*desired.Entry{other}, have: []actual.Observed{running(web)}, full: "no room", until: -1, op: reconcile.OpDestroy, says: "no room"},
		"changed, stop fails":        {want: []*desired.Entry{other}, have: []actual.Observed{running(web)}, retry: reconcile.Retry{Op: reconcile.OpDestroy, Due: at(5), Message: "busy"}, until: 5, op: reconcile.OpDestroy, says: "next try in 5s; the last try failed: busy"},
		"stopping, stop fails":       {want: []*desired.Entry{web}, have: []actual.Observed{stopping}, retry: reconcile.Retry{Op: reconcile.OpDestroy, Due: at(5), Message: "busy"}, until: 5, op: reconcile.OpDestroy, says: "next try in 5s; the last try failed: busy"},
		"removed, disk full":         {have: []actual.Observed{running(web)}, full: "no room", op: reconcile.OpDestroy},
		"removed, forget fails":      {have: []actual.Observed{stopped(web, 0)}, retry: reconcile.Retry{Op: reconcile.OpForget, Due: at(5), Message: "busy"}, until: 5, op: reconcile.OpForget, says: "next try in 5s; the last try failed: busy"},
	} {
		in := input(true, c.want, c.have...)
		in.Actual.DiskFull = c.full
		if c.retry.Op != 0 {
			in.Retries = map[string]reconcile.Retry{"web": c.retry}
		}
		plan := reconcile.Compute(in)
		if c.until == 0 {
			if len(plan.Actions) != 1 || plan.Actions[0].Op != c.op || len(plan.Delayed) > 0 {
				t.Errorf("%s: the plan is %q, %d delayed, expected a %s", name, show(plan), len(plan.Delayed), c.op)
			}
			continue
		}
		if len(plan.Actions) > 0 || len(plan.Delayed) != 1 || plan.Delayed[0].Op != c.op || plan.Wake.IsZero() == (c.full != "" || c.until > 0) {
			t.Errorf("%s: the plan is %q, delayed %+v, wake %s", name, show(plan), plan.Delayed, plan.Wake)
			continue
		}
		d := &plan.Delayed[0]
		if off := d.Until.Sub(at(c.until)).Abs(); d.Until.IsZero() != (c.until < 0) || c.until > 0 && off > at(c.until).Sub(now)/5 {
			t.Errorf("%s: it is delayed until %s", name, d.Until)
		}
		s := reconcile.Statuses(in, plan)[0]
		if !s.NextRetry.Equal(d.Until) {
			t.Errorf("%s: next try at %s, the plan says %s", name, s.NextRetry, d.Until)
		}
		if msg := s.Condition(reconcile.CondReconciling).Message + s.Condition(reconcile.CondStalled).Message; !strings.Contains(msg, c.says) {
			t.Errorf("%s: the status says %q, expected %q", name, msg, c.says)
		}
	}
}
