// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
)

const sinceBoot = time.Hour // at now

// ago is the moment so long before now.
func ago(d time.Duration) moment.Moment {
	return moment.Moment{Wall: now, Boot: sinceBoot, BootID: boot}.Minus(d)
}

// active has a sandbox active for so long.
func active(o actual.Observed, d time.Duration) actual.Observed {
	o.Record.App().Active, o.Record.App().StartedAt = &moment.Active{From: ago(d)}, now.Add(-d)
	return o
}

// overSince is a sandbox that has been stopped for good so long ago.
func overSince(e *desired.Entry, reason string, code int, since time.Duration) actual.Observed {
	o := stopped(e, 0)
	o.Record.Ending = &actual.Ending{Reason: reason}
	if u := e.Sandbox.Spec.Until; u != nil && reason == actual.ReasonExpired {
		o.Record.Ending.Until = u.Time
	}
	app := o.Record.App()
	app.Completed, app.Finished = true, new(ago(since))
	app.LastExit = &actual.Exit{Known: true, Code: code, Reason: reason, At: now.Add(-since)}
	return o
}

func TestLifetimes(t *testing.T) {
	t.Parallel()
	const s = time.Second
	with := func(change func(*desired.Spec)) *desired.Entry { return reconciletest.Entry("web", "a", change) }
	deadline := with(func(s *desired.Spec) { s.ActiveDeadline = new(scalar.Duration(30 * time.Second)) })
	until := func(d time.Duration) *desired.Entry {
		return with(func(s *desired.Spec) { s.Until = &scalar.Time{Time: now.Add(d)} })
	}
	keptFor := func(d time.Duration) *desired.Entry {
		return with(func(s *desired.Spec) {
			s.TTLAfterFinished, s.RestartPolicy = new(scalar.Duration(d)), desired.RestartNever
		})
	}
	limited := func(d time.Duration) *desired.Entry {
		return with(func(s *desired.Spec) { s.Until, s.Backoff.Limit = &scalar.Time{Time: now.Add(d)}, 3 })
	}
	stalledThen := overSince(limited(-s), actual.ReasonExpired, 0, s)
	stalledThen.Record.App().Failures, stalledThen.Record.App().LastExit.Permanent = 3, true
	keptSuspended := with(func(s *desired.Spec) { s.TTLAfterFinished, s.Suspend = new(scalar.Duration(10*time.Second)), true })
	other := reconciletest.Entry("web", "b", func(s *desired.Spec) { s.ActiveDeadline = deadline.Sandbox.Spec.ActiveDeadline })
	suspended := with(func(s *desired.Spec) { s.Suspend, s.ActiveDeadline = true, deadline.Sandbox.Spec.ActiveDeadline })
	phase := func(o actual.Observed, p actual.Phase) actual.Observed {
		o.Record.Phase = p
		return o
	}
	old := running(deadline) // by a version that knew no deadlines
	rebooted := active(stopped(deadline, 9), 20*s)
	rebooted.Record.App().Active.From.BootID = "another"
	dead := active(running(deadline), 40*s)
	dead.Sentry, dead.Exit = process.Dead, &actual.Exit{Known: true, Code: 3, Reason: actual.ReasonError, At: now}
	resumed := active(stopped(deadline, 0), time.Hour)
	resumed.Record.Ending = &actual.Ending{Reason: actual.ReasonSuspended}
	resumedOld := stopped(deadline, 0) // suspended by a version that knew no deadlines
	resumedOld.Record.Ending, resumedOld.Record.App().StartedAt = resumed.Record.Ending, now.Add(-time.Hour)
	retired := overSince(keptFor(s), actual.ReasonExited, 0, time.Hour)
	retired.Record.Retire()
	restart := []actual.Request{{Kind: actual.RequestRestart, Name: "web", Token: "t"}}
	for name, c := range map[string]struct {
		want     *desired.Entry
		have     actual.Observed
		requests []actual.Request
		plan     string
		wake     time.Duration
		phase    string
		says     string // of Ready
	}{
		"it has time left":               {want: deadline, have: active(running(deadline), 10*s), plan: "wake", wake: 20 * s, phase: "Running"},
		"its time is over":               {want: deadline, have: active(running(deadline), 30*s), plan: "destroy web DeadlineExceeded completed graceful", phase: "Running"},
		"it was started before upgrade":  {want: deadline, have: old, plan: "destroy web DeadlineExceeded completed graceful", phase: "Running"},
		"it is over on record":           {want: deadline, have: overSince(deadline, actual.ReasonDeadlineExceeded, 0, s), phase: "Failed", says: "DeadlineExceeded"},
		"over on record, asked for":      {want: deadline, have: overSince(deadline, actual.ReasonDeadlineExceeded, 0, s), requests: restart, plan: "create web RestartRequested token", phase: "Pending"},
		"over on record, another spec":   {want: other, have: overSince(deadline, actual.ReasonDeadlineExceeded, 0, s), plan: "create web SpecChanged", phase: "Pending"},
		"over in the back-off":           {want: deadline, have: active(stopped(deadline, 9), 31*s), plan: "destroy web DeadlineExceeded failures=9 completed", phase: "Pending"},
		"over in the back-off, asked":    {want: deadline, have: active(stopped(deadline, 9), 31*s), requests: restart, plan: "create web RestartRequested token", phase: "Pending"},
		"another boot, it has time left": {want: deadline, have: rebooted, plan: "wake", wake: 10 * s, phase: "CrashLoopBackOff"},
		"it died in its time":            {want: deadline, have: dead, plan: "destroy web Exited failures=1", phase: "Stopping"},
		"suspended, time does not count": {want: suspended, have: resumed, phase: "Suspended"},
		"suspended in its back-off":      {want: suspended, have: active(stopped(suspended, 9), time.Hour), plan: "destroy web Suspended failures=9", phase: "Suspended"},
		"suspended, it had finished":     {want: suspended, have: overSince(suspended, actual.ReasonDeadlineExceeded, 0, s), phase: "Suspended"},
		"suspended, it never ran":        {want: suspended, have: stopped(suspended, 9), phase: "Suspended"},
		"suspended, and not any more":    {want: deadline, have: resumed, plan: "create web Resumed", phase: "Pending"},
		"the same, before upgrade":       {want: deadline, have: resumedOld, plan: "create web Resumed", phase: "Pending"},
		"a start cut short, in time":     {want: deadline, have: phase(active(running(deadline), 10*s), actual.PhaseStarting), plan: "resume web Interrupted start", phase: "Creating"},
		"a start cut short, over":        {want: deadline, have: phase(active(running(deadline), 30*s), actual.PhaseStarting), plan: "resume web Interrupted", phase: "Creating"},

		"until, later":              {want: until(5 * s), have: running(until(5 * s)), plan: "wake", wake: 5 * s, phase: "Running"},
		"until, over":               {want: until(0), have: running(until(0)), plan: "destroy web Expired completed graceful", phase: "Running"},
		"until, over in back-off":   {want: until(-s), have: stopped(until(-s), 3), plan: "destroy web Expired failures=3 completed", phase: "Expired"},
		"until, on record":          {want: until(-s), have: overSince(until(-s), actual.ReasonExpired, 0, s), phase: "Expired", says: "until: 2026-05-06T07:08:08Z"},
		"until, the clock set back": {want: until(5 * s), have: overSince(until(5*s), actual.ReasonExpired, 0, s), phase: "Expired", says: "until"},
		"until, on record, asked":   {want: until(-s), have: overSince(until(-s), actual.ReasonExpired, 0, s), requests: restart, phase: "Expired"},
		"until, later now":          {want: until(time.Hour), have: overSince(until(-s), actual.ReasonExpired, 0, s), plan: "create web Resumed; wake", wake: time.Hour, phase: "Pending"},
		"until, none now":           {want: with(nil), have: overSince(until(-s), actual.ReasonExpired, 0, s), plan: "create web Resumed", phase: "Pending"},
		"until, stalled":            {want: limited(-s), have: stopped(limited(-s), 3), plan: "destroy web Expired failures=3 completed", phase: "Expired", says: "Error"},
		"until, stalled, later now": {want: limited(time.Hour), have: stalledThen, plan: "create web Resumed; wake", wake: time.Hour, phase: "Pending"},
		"until, it had finished":    {want: until(-s), have: overSince(until(-s), actual.ReasonExited, 0, s), phase: "Completed", says: "Exited"},

		"kept":              {want: keptFor(10 * s), have: overSince(keptFor(10*s), actual.ReasonExited, 0, 4*s), plan: "wake", wake: 6 * s, phase: "Completed"},
		"kept long enough":  {want: keptFor(10 * s), have: overSince(keptFor(10*s), actual.ReasonExited, 1, 10*s), plan: "forget web TTLExpired", phase: "Failed"},
		"kept, suspended":   {want: keptSuspended, have: overSince(keptSuspended, actual.ReasonExited, 0, 4*s), plan: "wake", wake: 6 * s, phase: "Suspended"},
		"enough, suspended": {want: keptSuspended, have: overSince(keptSuspended, actual.ReasonExited, 0, 10*s), plan: "forget web TTLExpired", phase: "Suspended"},
		"to be run again":   {want: keptFor(10 * s), have: overSince(keptFor(10*s), actual.ReasonExited, 0, 10*s), requests: restart, plan: "create web RestartRequested token", phase: "Pending"},
		"given up":          {want: keptFor(s), have: retired, phase: "Completed"},
		"not finished":      {want: keptFor(s), have: running(keptFor(s)), phase: "Running"},
	} {
		in := input(true, []*desired.Entry{c.want}, c.have)
		in.Boot, in.Actual.Requests = sinceBoot, c.requests
		p := reconcile.Compute(in)
		if got := show(p); got != c.plan {
			t.Errorf("%s: %q, expected %q", name, got, c.plan)
		}
		if c.wake != 0 && !p.Wake.Equal(now.Add(c.wake)) {
			t.Errorf("%s: wakes %s from now, expected %s", name, p.Wake.Sub(now), c.wake)
		}
		for _, a := range p.Actions {
			if x := a.Ending.App().Exit; a.Reason == actual.ReasonSuspended && (x == nil || *x != *c.have.Record.App().LastExit) {
				t.Errorf("%s: its last exit becomes %+v", name, x)
			}
			// What a stalled one has failed with is not lost.
			if x := a.Ending.App().Exit; a.Op == reconcile.OpDestroy && a.Ending.TimeOver() && x != nil {
				if kept := *x == *c.have.Record.App().LastExit; kept != (c.want.Sandbox.Spec.Backoff.Limit > 0) {
					t.Errorf("%s: its last exit becomes %+v", name, *x)
				}
			}
			if a.Retire != (a.Reason == actual.ReasonTTLExpired) {
				t.Errorf("%s: %+v", name, a)
			}
		}
		st := reconcile.Statuses(in, p)[0]
		if ready := st.Condition(reconcile.CondReady); st.Phase != c.phase || !strings.Contains(ready.Reason+" "+ready.Message, c.says) {
			t.Errorf("%s: %s (%s: %s), expected %s (%s)", name, st.Phase, ready.Reason, ready.Message, c.phase, c.says)
		}
		// What people are told is what is planned.
		if retires := c.wake != 0 && c.want.Sandbox.Spec.TTLAfterFinished != nil || strings.HasPrefix(c.plan, "forget"); st.RetiresAt.IsZero() == retires {
			t.Errorf("%s: it is given up at %s", name, st.RetiresAt)
		}
		if again := len(p.Actions) > 0 && p.Actions[0].Op == reconcile.OpCreate; again && st.EndsReason == actual.ReasonDeadlineExceeded {
			t.Errorf("%s: it ends at %s, by the run before", name, st.EndsAt)
		}
		if bounded := c.want.Sandbox.Spec.ActiveDeadline != nil || c.want.Sandbox.Spec.Until != nil; st.Phase == "Running" && (st.EndsAt.IsZero() != (!bounded || len(p.Actions) > 0)) {
			t.Errorf("%s: ends at %s", name, st.EndsAt)
		}
	}
	// What was never there.
	in := input(true, []*desired.Entry{until(0)})
	p := reconcile.Compute(in)
	st := reconcile.Statuses(in, p)[0]
	if show(p) != "" || st.Phase != "Expired" || !reconcile.Summarize(in, p, []reconcile.Status{st}).Converged {
		t.Errorf("%s, %+v", show(p), st)
	}
	in = input(true, []*desired.Entry{until(0)})
	in.Operations = map[string]reconcile.Operation{"web": {Op: reconcile.OpCreate, Hash: until(0).Hash}}
	if p := reconcile.Compute(in); len(p.Cancel) != 1 || p.Cancel[0].Reason != actual.ReasonExpired {
		t.Errorf("a start goes on after its until: %+v", p.Cancel)
	}
}

// A step of the wall clock, in either direction, neither ends nor prolongs an activeDeadline; a
// step over until ends the sandbox, and what it ended stays so.
func TestLifetimesUnderSteps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seconds := func(least, most int, what string) time.Duration {
			return time.Duration(rapid.IntRange(least, most).Draw(t, what)) * time.Second
		}
		ran, limit, step := seconds(0, 100, "ran"), seconds(1, 100, "limit"), seconds(-1e6, 1e6, "step")
		e := reconciletest.Entry("web", "a", func(s *desired.Spec) { s.ActiveDeadline = new(scalar.Duration(limit)) })
		in := input(true, []*desired.Entry{e}, active(running(e), ran))
		in.Boot, in.Now = sinceBoot, now.Add(step)
		p := reconcile.Compute(in)
		if over := len(p.Actions) == 1 && p.Actions[0].Reason == actual.ReasonDeadlineExceeded; over != (ran >= limit) {
			t.Fatalf("after a step of %s a sandbox that ran for %s of %s: %s", step, ran, limit, show(p))
		}
		if ran < limit && p.Wake.Sub(in.Now) != limit-ran {
			t.Fatalf("wakes in %s, expected %s", p.Wake.Sub(in.Now), limit-ran)
		}
		left := seconds(1, 1e5, "left")
		e = reconciletest.Entry("web", "a", func(s *desired.Spec) { s.Until = &scalar.Time{Time: now.Add(left)} })
		in = input(true, []*desired.Entry{e}, running(e))
		in.Boot, in.Now = sinceBoot, now.Add(step)
		if over := len(reconcile.Compute(in).Actions) == 1; over != (step >= left) {
			t.Fatalf("after a step of %s a sandbox with %s left: %s", step, left, show(reconcile.Compute(in)))
		}
		in = input(true, []*desired.Entry{e}, overSince(e, actual.ReasonExpired, 0, time.Second))
		in.Boot, in.Now = sinceBoot, now.Add(step)
		if p := reconcile.Compute(in); len(p.Actions) > 0 {
			t.Fatalf("after a step of %s what has ended is started: %s", step, show(p))
		}
	})
}

// What people and programs are told of the end does not change from one look to the next.
func TestEndsAtIsSteady(t *testing.T) {
	t.Parallel()
	e := reconciletest.Entry("web", "a", func(s *desired.Spec) { s.ActiveDeadline = new(scalar.Duration(time.Minute)) })
	var last time.Time
	for i := range 50 {
		in := input(true, []*desired.Entry{e}, active(running(e), 10*time.Second))
		// Two clocks are not read at once.
		in.Now, in.Boot = now.Add(time.Duration(i)*time.Second/3), sinceBoot+time.Duration(i)*time.Second/3+time.Duration(i)*time.Millisecond
		st := reconcile.Statuses(in, reconcile.Compute(in))[0]
		if i > 0 && !st.EndsAt.Equal(last) || st.EndsReason != actual.ReasonDeadlineExceeded {
			t.Fatalf("look %d: %s, then %s (%s)", i, last, st.EndsAt, st.EndsReason)
		}
		last = st.EndsAt
	}
	in := input(true, []*desired.Entry{e}, active(running(e), 10*time.Second))
	in.Now, in.Boot = now.Add(time.Hour), sinceBoot
	if st := reconcile.Statuses(in, reconcile.Compute(in))[0]; !st.EndsAt.Equal(in.Now.Add(50 * time.Second)) {
		t.Errorf("after a step: %s, expected %s", st.EndsAt, in.Now.Add(50*time.Second))
	}
}

// While a manifest does not count, what is known of it is from the last start: nobody is stopped
// for good, given up or revived for what it said then.
func TestLifetimesOfAStaleManifest(t *testing.T) {
	t.Parallel()
	const s = time.Second
	with := func(change func(*desired.Spec)) *desired.Entry { return reconciletest.Entry("web", "a", change) }
	deadline := with(func(s *desired.Spec) { s.ActiveDeadline = new(scalar.Duration(30 * time.Second)) })
	until := with(func(s *desired.Spec) { s.Until = &scalar.Time{Time: now.Add(-time.Second)} })
	kept := with(func(s *desired.Spec) { s.TTLAfterFinished = new(scalar.Duration(time.Second)) })
	// Its until came with a change that started nothing.
	later := overSince(with(nil), actual.ReasonExpired, 0, s)
	later.Record.Ending.Until = until.Sandbox.Spec.Until.Time
	restart := []actual.Request{{Kind: actual.RequestRestart, Name: "web", Token: "t"}}
	for name, c := range map[string]struct {
		have     actual.Observed
		denied   string
		requests []actual.Request
		plan     string
		phase    string
	}{
		"deadline":            {have: active(running(deadline), 40*s), phase: "Running"},
		"until":               {have: running(until), phase: "Running"},
		"denied too":          {have: active(running(deadline), 40*s), denied: "no", phase: "Running"},
		"asked for a restart": {have: active(running(deadline), 40*s), requests: restart, plan: "destroy web RestartRequested graceful", phase: "Running"},
		"deadline, back-off":  {have: active(stopped(deadline, 1), 40*s), phase: "CrashLoopBackOff"},
		"until, back-off":     {have: stopped(until, 1), phase: "Expired"},
		"back-off, restart":   {have: active(stopped(deadline, 1), 40*s), requests: restart, plan: "create web RestartRequested token", phase: "Pending"},
		"finished":            {have: overSince(kept, actual.ReasonExited, 0, time.Hour), phase: "Completed"},
		"finished, denied":    {have: overSince(kept, actual.ReasonExited, 0, time.Hour), denied: "no", phase: "Completed"},
		"ended by an until":   {have: overSince(until, actual.ReasonExpired, 0, s), phase: "Expired"},
		"by one of later":     {have: later, phase: "Expired"},
	} {
		in := input(false, nil, c.have)
		in.Boot, in.Actual.Requests = sinceBoot, c.requests
		if c.denied != "" {
			in.Denied = map[string]string{"web": c.denied}
		}
		p := reconcile.Compute(in)
		if got := show(p); got != c.plan {
			t.Errorf("%s: %q, expected %q", name, got, c.plan)
		}
		st := reconcile.Statuses(in, p)[0]
		if st.Phase != c.phase || !st.EndsAt.IsZero() || !st.RetiresAt.IsZero() {
			t.Errorf("%s: %s, ends at %s, is given up at %s; expected %s", name, st.Phase, st.EndsAt, st.RetiresAt, c.phase)
		}
	}
}
