// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
	"sandboxctl.dev/reconcile/view"
)

var now = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

const boot = "boot"

func pid(n int) *process.Identity { return &process.Identity{PID: n, Inode: uint64(n), BootID: boot} }

// running is a sandbox that runs what its manifest says.
func running(e *desired.Entry) actual.Observed {
	spec, err := desired.Canonical(e.Sandbox)
	if err != nil {
		panic(err)
	}
	return actual.Observed{
		Record: &actual.Record{
			Version: 1, Name: e.Sandbox.Metadata.Name, UID: "u", Attempt: 1, Generation: 1, Phase: actual.PhaseRunning, Spec: spec, SpecHash: e.Hash,
			SourceFile: e.Source.File, BootID: boot, Sentry: pid(100), Gofer: pid(101), CreatedAt: now.Add(-time.Hour),
			Containers: []actual.Container{{Name: actual.AppName, StartedAt: now.Add(-time.Minute)}},
		},
		Sentry: process.Alive, Gofer: process.Alive,
	}
}

// stopped is one that has stopped by itself a second ago.
func stopped(e *desired.Entry, failures int) actual.Observed {
	o := running(e)
	r := o.Record
	r.Phase, r.Sentry, r.Gofer, r.App().Failures = actual.PhaseStopped, nil, nil, failures
	r.Ending = &actual.Ending{Reason: actual.ReasonExited}
	r.App().LastExit = &actual.Exit{Known: true, Code: 1, Reason: actual.ReasonError, At: now.Add(-time.Second)}
	o.Sentry, o.Gofer = process.None, process.None
	return o
}

func input(complete bool, want []*desired.Entry, have ...actual.Observed) reconcile.Input {
	in := reconcile.Input{Desired: &desired.Snapshot{Complete: complete}, Actual: &actual.Snapshot{BootID: boot, Sandboxes: have}, Now: now, Policy: reconcile.DefaultPolicy()}
	if !complete {
		in.Desired.Reason = desired.ReasonInvalidManifests
	}
	for _, e := range want {
		in.Desired.Entries = append(in.Desired.Entries, *e)
	}
	in.LastGood = view.LastGood(in.Desired, in.Actual)
	return in
}

// show describes a plan: "op name reason" and what else matters of it.
func show(p reconcile.Plan) string {
	var out []string
	for _, a := range p.Actions {
		s := fmt.Sprintf("%s %s %s", a.Op, a.Name, a.Reason)
		if a.Op == reconcile.OpDestroy && a.Ending.App().Failures > 0 {
			s += fmt.Sprintf(" failures=%d", a.Ending.App().Failures)
		}
		if a.Ending.App().CleanExits > 0 {
			s += fmt.Sprintf(" clean=%d", a.Ending.App().CleanExits)
		}
		if a.Start {
			s += " start"
		}
		if a.Ending.App().Completed {
			s += " completed"
		}
		if a.Ending.Grace > 0 {
			s += " graceful"
		}
		if a.Forget {
			s += " and forget"
		}
		if a.Request != nil && a.Op == reconcile.OpCreate {
			s += " token"
		}
		out = append(out, s)
	}
	if p.Guard != nil {
		out = append(out, fmt.Sprintf("guard %v", p.Guard.Names))
	}
	if !p.Wake.IsZero() {
		out = append(out, "wake")
	}
	return strings.Join(out, "; ")
}

func TestPlan(t *testing.T) {
	t.Parallel()
	web := reconciletest.Entry("web", "a", nil)
	other := reconciletest.Entry("web", "b", nil)
	with := func(change func(*desired.Spec)) *desired.Entry { return reconciletest.Entry("web", "a", change) }
	policy := func(p string) *desired.Entry { return with(func(s *desired.Spec) { s.RestartPolicy = p }) }
	mod := func(o actual.Observed, change func(*actual.Observed)) actual.Observed {
		change(&o)
		return o
	}
	exit := func(code int) func(*actual.Observed) {
		return func(o *actual.Observed) {
			o.Sentry = process.Dead
			o.Exit = &actual.Exit{Known: true, Code: code, Reason: actual.ReasonError, At: now}
		}
	}
	unsettled := func(in reconcile.Input) reconcile.Input {
		in.Desired.Complete, in.Desired.Reason = false, desired.ReasonUnsettled
		return in
	}
	restart := actual.Request{Kind: actual.RequestRestart, Name: "web", Token: "t"}
	noGrace := func(s *desired.Spec) { s.TerminationGracePeriod = new(scalar.Duration) }
	suspended := with(func(s *desired.Spec) { s.Suspend = true })
	limited := with(func(s *desired.Spec) { s.Backoff.Limit = 3 })
	eager := with(func(s *desired.Spec) { s.Backoff.Initial = new(scalar.Duration) })
	phase := func(p actual.Phase) func(*actual.Observed) {
		return func(o *actual.Observed) { o.Record.Phase = p }
	}

	for name, c := range map[string]struct {
		in   reconcile.Input
		want string
	}{
		"nothing":              {input(true, nil), ""},
		"new":                  {input(true, []*desired.Entry{web}), "create web New"},
		"new and suspended":    {input(true, []*desired.Entry{suspended}), ""},
		"as wanted":            {input(true, []*desired.Entry{web}, running(web)), ""},
		"changed":              {input(true, []*desired.Entry{other}, running(web)), "destroy web SpecChanged graceful"},
		"suspended":            {input(true, []*desired.Entry{suspended}, running(web)), "destroy web Suspended graceful"},
		"removed":              {input(true, nil, running(web)), "destroy web ManifestRemoved graceful"},
		"removed, no grace":    {input(true, nil, running(reconciletest.Entry("web", "a", noGrace))), "destroy web ManifestRemoved and forget"},
		"suspended, no grace":  {input(true, []*desired.Entry{with(func(s *desired.Spec) { noGrace(s); s.Suspend = true })}, running(web)), "destroy web Suspended"},
		"removed and stopped":  {input(true, nil, stopped(web, 1)), "forget web ManifestRemoved"},
		"absent, not complete": {input(false, nil, running(web)), ""},
		"absent, died":         {input(false, nil, mod(running(web), exit(1))), "destroy web Exited failures=1"},
		"absent, stopped":      {input(false, nil, mod(stopped(eager, 1), func(o *actual.Observed) {})), "create web BackOff"},
		"exit code 1":          {input(true, []*desired.Entry{web}, mod(running(web), exit(1))), "destroy web Exited failures=1"},
		"exit code 0":          {input(true, []*desired.Entry{web}, mod(running(web), exit(0))), "destroy web Exited clean=1"},
		"OnFailure, code 0":    {input(true, []*desired.Entry{policy("OnFailure")}, mod(running(policy("OnFailure")), exit(0))), "destroy web Exited clean=1 completed"},
		"OnFailure, code 1":    {input(true, []*desired.Entry{policy("OnFailure")}, mod(running(policy("OnFailure")), exit(1))), "destroy web Exited failures=1"},
		"Never, code 1":        {input(true, []*desired.Entry{policy("Never")}, mod(running(policy("Never")), exit(1))), "destroy web Exited failures=1 completed"},
		"sentry killed":        {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) { o.Sentry = process.Dead })), "destroy web SentryKilled failures=1"},
		"gofer died":           {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) { o.Gofer = process.Dead })), "destroy web GoferDied failures=1"},
		"both died":            {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) { o.Sentry, o.Gofer = process.Dead, process.Dead })), "destroy web GoferDied failures=1"},
		"sentry killed, the gofer left": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			o.Sentry, o.Gofer, o.GoferExitedCleanly = process.Dead, process.Dead, true
		})), "destroy web SentryKilled failures=1"},
		"gofer died, the sentry ended": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			o.Sentry, o.Gofer = process.Dead, process.Dead
			o.Exit = &actual.Exit{Known: true, Code: 137, Signal: 9, Reason: actual.ReasonSignaled, At: now}
		})), "destroy web GoferDied failures=1"},
		"killed inside, the gofer left": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			o.Sentry, o.Gofer, o.GoferExitedCleanly = process.Dead, process.Dead, true
			o.Exit = &actual.Exit{Known: true, Code: 137, Signal: 9, Reason: actual.ReasonSignaled, At: now}
		})), "destroy web Exited failures=1"},
		"exited, both dead": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			exit(0)(o)
			o.Gofer = process.Dead
		})), "destroy web Exited clean=1"},
		"ended before the host was rebooted": {input(true, []*desired.Entry{policy("Never")}, mod(running(policy("Never")), func(o *actual.Observed) {
			exit(0)(o)
			o.Gofer, o.Record.BootID = process.Dead, "old"
		})), "destroy web Exited clean=1 completed"},
		"killed when the host went down": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			o.Sentry, o.Gofer, o.Record.BootID = process.Dead, process.Dead, "old"
			o.Exit = &actual.Exit{Known: true, Code: 137, Signal: 9, Reason: actual.ReasonSignaled, At: now}
		})), "destroy web HostRebooted"},
		"told to end when the host went down": {input(true, []*desired.Entry{policy("OnFailure")}, mod(running(policy("OnFailure")), func(o *actual.Observed) {
			exit(0)(o)
			o.Gofer, o.Record.BootID, o.Exit.HostSignaled = process.Dead, "old", true
		})), "destroy web HostRebooted"},
		"told to end by the host, which runs on": {input(true, []*desired.Entry{policy("OnFailure")}, mod(running(policy("OnFailure")), func(o *actual.Observed) {
			exit(0)(o)
			o.Exit.HostSignaled = true
		})), "destroy web Exited clean=1 completed"},
		"ended before its start was recorded": {input(true, []*desired.Entry{policy("Never")}, mod(running(policy("Never")), func(o *actual.Observed) {
			exit(0)(o)
			o.Gofer, o.Record.Phase, o.Record.App().StartedAt = process.Dead, actual.PhaseStarting, time.Time{}
		})), "destroy web Exited clean=1 completed"},
		"absent, unsettled, stopped": {unsettled(input(true, nil, mod(stopped(eager, 1), func(*actual.Observed) {}))), ""},
		"absent, unsettled, died":    {unsettled(input(true, nil, mod(running(web), exit(1)))), "destroy web Exited failures=1"},
		"absent, removal begun before": {input(false, nil, mod(stopped(eager, 0), func(o *actual.Observed) {
			o.Record.Ending.Reason = actual.ReasonManifestRemoved
		})), ""},
		"failed before": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) { o.Sentry = process.Dead; o.Record.App().Failures = 4 })), "destroy web SentryKilled failures=5"},
		"failed after long": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			o.Sentry = process.Dead
			o.Record.App().Failures = 4
			o.Record.App().StartedAt = now.Add(-time.Hour)
		})), "destroy web SentryKilled failures=1"},
		"host rebooted": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			o.Sentry, o.Gofer = process.Dead, process.Dead
			o.Record.BootID = "old"
			o.Record.App().Failures = 2
		})), "destroy web HostRebooted failures=2"},
		"exit code 0 after failures": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) { exit(0)(o); o.Record.App().Failures = 4 })), "destroy web Exited clean=1"},
		"exit code 0 again":          {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) { exit(0)(o); o.Record.App().CleanExits = 4 })), "destroy web Exited clean=5"},
		"exit code 0 after long": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			exit(0)(o)
			o.Record.App().CleanExits, o.Record.App().StartedAt = 4, now.Add(-time.Hour)
		})), "destroy web Exited clean=1"},
		"exit code 1 after clean ones": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) { exit(1)(o); o.Record.App().CleanExits = 4 })), "destroy web Exited failures=1"},
		"clean exits wait":             {input(true, []*desired.Entry{web}, mod(stopped(web, 0), func(o *actual.Observed) { o.Record.App().CleanExits = 3; o.Record.App().LastExit.Code = 0 })), "wake"},
		"clean exits and a limit": {input(true, []*desired.Entry{limited}, mod(stopped(limited, 0), func(o *actual.Observed) {
			o.Record.App().CleanExits = 9
			o.Record.App().LastExit.Code, o.Record.App().LastExit.At = 0, now.Add(-time.Hour)
		})), "create web BackOff"},
		"unknown sentry":        {input(true, []*desired.Entry{other}, mod(running(web), func(o *actual.Observed) { o.Sentry = process.Unknown })), ""},
		"unknown and removed":   {input(true, nil, mod(running(web), func(o *actual.Observed) { o.Gofer = process.Unknown })), ""},
		"waits for backoff":     {input(true, []*desired.Entry{web}, stopped(web, 3)), "wake"},
		"backoff is over":       {input(true, []*desired.Entry{web}, mod(stopped(web, 1), func(o *actual.Observed) { o.Record.App().LastExit.At = now.Add(-time.Minute) })), "create web BackOff"},
		"backoff 0":             {input(true, []*desired.Entry{eager}, stopped(eager, 9)), "create web BackOff"},
		"clock set back":        {input(true, []*desired.Entry{web}, mod(stopped(web, 9), func(o *actual.Observed) { o.Record.App().LastExit.At = now.Add(24 * 365 * time.Hour) })), "create web BackOff"},
		"clock set back a bit":  {input(true, []*desired.Entry{web}, mod(stopped(web, 9), func(o *actual.Observed) { o.Record.App().LastExit.At = now.Add(time.Minute) })), "wake"},
		"limit reached":         {input(true, []*desired.Entry{limited}, stopped(limited, 3)), ""},
		"limit reached, edited": {input(true, []*desired.Entry{other}, stopped(limited, 3)), "create web SpecChanged"},
		"refused": {input(true, []*desired.Entry{web}, mod(stopped(web, 1), func(o *actual.Observed) {
			o.Record.App().LastExit = &actual.Exit{Permanent: true, At: now.Add(-time.Hour)}
		})), ""},
		"completed":             {input(true, []*desired.Entry{web}, mod(stopped(web, 1), func(o *actual.Observed) { o.Record.App().Completed = true })), ""},
		"completed, edited":     {input(true, []*desired.Entry{other}, mod(stopped(web, 1), func(o *actual.Observed) { o.Record.App().Completed = true })), "create web SpecChanged"},
		"stopped for an edit":   {input(true, []*desired.Entry{other}, mod(stopped(web, 0), func(o *actual.Observed) { o.Record.Ending.Reason = actual.ReasonSpecChanged })), "create web SpecChanged"},
		"resumed":               {input(true, []*desired.Entry{web}, mod(stopped(web, 2), func(o *actual.Observed) { o.Record.Ending.Reason = actual.ReasonSuspended })), "create web Resumed"},
		"crashed in creating":   {input(true, []*desired.Entry{web}, mod(stopped(web, 2), phase(actual.PhaseCreating))), "destroy web Interrupted failures=2"},
		"crashed in starting":   {input(true, []*desired.Entry{web}, mod(running(web), phase(actual.PhaseStarting))), "resume web Interrupted start"},
		"crashed, edited since": {input(true, []*desired.Entry{other}, mod(running(web), phase(actual.PhaseStarting))), "resume web Interrupted"},
		"crashed, gofer dead":   {input(true, []*desired.Entry{web}, mod(mod(running(web), phase(actual.PhaseStarting)), func(o *actual.Observed) { o.Gofer = process.Dead })), "destroy web Interrupted"},
		"crashed, suspended":    {input(true, []*desired.Entry{suspended}, mod(running(suspended), phase(actual.PhaseStarting))), "resume web Interrupted"},
		"crashed in stopping": {input(true, []*desired.Entry{web}, mod(running(web), func(o *actual.Observed) {
			o.Record.Phase = actual.PhaseStopping
			o.Record.Ending = &actual.Ending{Reason: actual.ReasonSpecChanged, Grace: 1}
		})), "destroy web SpecChanged graceful"},
		"after an interruption": {input(true, []*desired.Entry{web}, mod(stopped(web, 5), func(o *actual.Observed) { o.Record.Ending.Reason = actual.ReasonInterrupted })), "create web Interrupted"},
	} {
		if got := show(reconcile.Compute(c.in)); got != c.want {
			t.Errorf("%s: %q, expected %q", name, got, c.want)
		}
	}

	in := input(true, []*desired.Entry{web}, running(web))
	in.Actual.Requests = []actual.Request{restart}
	if got := show(reconcile.Compute(in)); got != "destroy web RestartRequested graceful" {
		t.Errorf("restart of a running one: %q", got)
	}
	in = input(true, []*desired.Entry{limited}, stopped(limited, 9))
	in.Actual.Requests = []actual.Request{restart}
	if got := show(reconcile.Compute(in)); got != "create web RestartRequested token" {
		t.Errorf("restart of a stalled one: %q", got)
	}
	in.Actual.Sandboxes[0].Record.RestartToken = "t"
	if got := show(reconcile.Compute(in)); got != "" {
		t.Errorf("restart carried out: %q", got)
	}
	in = input(true, []*desired.Entry{web})
	in.Actual.Quarantined = []actual.Quarantined{{Name: "web", Reason: actual.QuarantinedCorrupt}}
	if got := show(reconcile.Compute(in)); got != "" {
		t.Errorf("quarantined: %q", got)
	}
	in.Actual.Quarantined = append(in.Actual.Quarantined, actual.Quarantined{Name: "y", Reason: actual.QuarantinedCorrupt})
	in.Actual.Sandboxes = []actual.Observed{running(reconciletest.Entry("x", "a", nil))}
	in.Actual.Requests = []actual.Request{
		{Kind: actual.RequestRepair, Name: "web", Token: "t"}, {Kind: actual.RequestRepair, Name: "x", Token: "u"}, {Kind: actual.RequestRepair, Name: "gone", Token: "v"},
	}
	plan := reconcile.Compute(in)
	if got := show(plan); got != "repair web RepairRequested; destroy x ManifestRemoved graceful" && got != "repair web RepairRequested; destroy x ManifestRemoved graceful; guard [x]" {
		t.Errorf("recovery asked of one that is quarantined, one that is not and none: %q", got)
	} else if plan.Actions[0].Request.Token != "t" {
		t.Errorf("the request: %+v", plan.Actions[0].Request)
	}
	in.Operations = map[string]reconcile.Operation{"web": {}, "x": {}}
	if got := show(reconcile.Compute(in)); got != "" {
		t.Errorf("recovery under way: %q", got)
	}
	in = input(true, nil)
	in.Actual.Aborted = []string{"x"}
	if got := show(reconcile.Compute(in)); got != "forget x Aborted" {
		t.Errorf("aborted: %q", got)
	}
}

// Whatever clock the record was written under, what waits is started in the
// end: at the time that the plan itself gives.
func TestWakeIsKept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		e := reconciletest.Entry("web", "a", nil)
		o := stopped(e, rapid.IntRange(1, 12).Draw(rt, "failures"))
		o.Record.App().LastExit.At = now.Add(time.Duration(rapid.Int64Range(-1e18, 1e18).Draw(rt, "at")))
		in := input(true, []*desired.Entry{e}, o)
		for range 3 {
			plan := reconcile.Compute(in)
			if len(plan.Actions) == 1 {
				return
			}
			if !plan.Wake.After(in.Now) || plan.Wake.Sub(in.Now) > 11*time.Minute {
				rt.Fatalf("wake in %s", plan.Wake.Sub(in.Now))
			}
			in.Now = plan.Wake
		}
		rt.Fatal("it is never started")
	})
}

// many is a directory of names, all running.
func many(names string) ([]*desired.Entry, []actual.Observed) {
	var es []*desired.Entry
	var os []actual.Observed
	for n := range strings.FieldsSeq(names) {
		e := reconciletest.Entry(n, "a", nil)
		es, os = append(es, e), append(os, running(e))
	}
	return es, os
}

func TestGuard(t *testing.T) {
	t.Parallel()
	es, os := many("a b c d e f")
	if got := show(reconcile.Compute(input(true, es[3:], os...))); !strings.HasPrefix(got, "destroy a") {
		t.Errorf("half is not more than half: %q", got)
	}
	in := input(true, es[4:], os...)
	if got := show(reconcile.Compute(in)); got != "guard [a b c d]" {
		t.Errorf("four of six: %q", got)
	}
	in.Policy.AllowMassDelete = true
	if got := show(reconcile.Compute(in)); strings.Count(got, "destroy") != 4 {
		t.Errorf("allowed: %q", got)
	}
	in.Policy.AllowMassDelete = false
	in.Actual.Requests = []actual.Request{{Kind: actual.RequestApprove, Token: "t", Names: []string{"a", "b", "d"}}}
	if got := show(reconcile.Compute(in)); got != "destroy a ManifestRemoved graceful; destroy b ManifestRemoved graceful; destroy d ManifestRemoved graceful; guard [c]" {
		t.Errorf("three approved: %q", got)
	}
	// A removal that was allowed is finished, whatever the rest looks like.
	in = input(true, es[3:], os...)
	for i := range 3 {
		r := in.Actual.Sandboxes[i].Record
		r.Phase, r.Ending = actual.PhaseStopping, &actual.Ending{Reason: actual.ReasonManifestRemoved}
		if got := show(reconcile.Compute(in)); strings.Contains(got, "guard") || strings.Count(got, "destroy") != 3 {
			t.Errorf("with %d begun: %q", i+1, got)
		}
	}
	// Two of two are few.
	if got := show(reconcile.Compute(input(true, nil, os[:2]...))); strings.Count(got, "destroy") != 2 {
		t.Errorf("two of two: %q", got)
	}
}

// situation draws an input of anything that can be.
func situation(t *rapid.T) reconcile.Input {
	in := reconcile.Input{
		Desired: &desired.Snapshot{Complete: rapid.Bool().Draw(t, "complete")},
		Actual:  &actual.Snapshot{BootID: boot}, Now: now, Policy: reconcile.DefaultPolicy(), Progress: reconcile.Progress{Operations: map[string]reconcile.Operation{}},
	}
	if !in.Desired.Complete {
		in.Desired.Reason = desired.ReasonInvalidManifests
	}
	live := rapid.SampledFrom([]process.Liveness{process.Unknown, process.Alive, process.Dead, process.None})
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		e := reconciletest.Entry(n, rapid.SampledFrom([]string{"x", "y"}).Draw(t, "command"), func(s *desired.Spec) {
			s.Suspend = rapid.Bool().Draw(t, "suspend")
			s.RestartPolicy = rapid.SampledFrom([]string{"Always", "OnFailure", "Never"}).Draw(t, "policy")
			s.Backoff.Limit = rapid.IntRange(0, 3).Draw(t, "limit")
		})
		if rapid.Bool().Draw(t, "wanted") {
			in.Desired.Entries = append(in.Desired.Entries, *e)
		}
		switch rapid.IntRange(0, 3).Draw(t, "there") {
		case 0:
		case 1:
			if rapid.Bool().Draw(t, "recover") {
				in.Actual.Requests = append(in.Actual.Requests, actual.Request{Kind: actual.RequestRepair, Name: n})
			}
			in.Actual.Quarantined = append(in.Actual.Quarantined, actual.Quarantined{Name: n, Reason: actual.QuarantinedCorrupt})
		default:
			o := running(reconciletest.Entry(n, "x", nil))
			r := o.Record
			r.Phase = rapid.SampledFrom([]actual.Phase{actual.PhaseCreating, actual.PhaseStarting, actual.PhaseRunning, actual.PhaseStopping, actual.PhaseStopped}).Draw(t, "phase")
			o.Sentry, o.Gofer = live.Draw(t, "sentry"), live.Draw(t, "gofer")
			r.App().Failures = rapid.IntRange(0, 5).Draw(t, "failures")
			r.App().Completed = rapid.Bool().Draw(t, "completed")
			r.BootID = rapid.SampledFrom([]string{boot, "old"}).Draw(t, "boot")
			if rapid.Bool().Draw(t, "exit") {
				r.App().LastExit = &actual.Exit{Known: true, Reason: actual.ReasonError, At: now.Add(time.Duration(rapid.Int64Range(-1e12, 1e12).Draw(t, "at")))}
			}
			if r.Phase == actual.PhaseStopping || rapid.Bool().Draw(t, "ending") {
				r.Ending = &actual.Ending{Reason: rapid.SampledFrom([]string{actual.ReasonExited, actual.ReasonManifestRemoved, actual.ReasonSpecChanged}).Draw(t, "why")}
			}
			in.Actual.Sandboxes = append(in.Actual.Sandboxes, o)
		}
		if rapid.IntRange(0, 9).Draw(t, "ordered") == 0 {
			in.Actual.Requests = append(in.Actual.Requests, actual.Request{Kind: actual.RequestRemove, Name: n, Token: "t", At: now})
		}
		if rapid.IntRange(0, 9).Draw(t, "busy") == 0 {
			in.Operations[n] = reconcile.Operation{}
		}
	}
	in.LastGood = view.LastGood(in.Desired, in.Actual)
	return in
}

func observed(in *reconcile.Input, name string) *actual.Observed {
	for i := range in.Actual.Sandboxes {
		if in.Actual.Sandboxes[i].Record.Name == name {
			return &in.Actual.Sandboxes[i]
		}
	}
	return nil
}

func TestPlanProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := situation(t)
		plan := reconcile.Compute(in)
		last := ""
		for _, a := range plan.Actions {
			// At most one action a name, in order.
			if a.Name <= last {
				t.Fatalf("%s after %s", a.Name, last)
			}
			last = a.Name
			if _, busy := in.Operations[a.Name]; busy {
				t.Fatalf("%s is busy", a.Name)
			}
			for _, h := range in.Actual.Quarantined {
				// Nothing but what was asked for.
				asked := slices.ContainsFunc(in.Actual.Requests, func(r actual.Request) bool { return r.Kind == actual.RequestRepair && r.Name == a.Name })
				if h.Name == a.Name && (a.Op != reconcile.OpRepair || !asked) {
					t.Fatalf("%s %s: its record is quarantined", a.Op, a.Name)
				}
			}
			if a.Op == reconcile.OpRepair {
				if !slices.ContainsFunc(in.Actual.Quarantined, func(h actual.Quarantined) bool { return h.Name == a.Name }) {
					t.Fatalf("%s %s: its record is not quarantined", a.Op, a.Name)
				}
				continue
			}
			o := observed(&in, a.Name)
			if o == nil {
				if a.Op != reconcile.OpCreate {
					t.Fatalf("%s %s: there is none", a.Op, a.Name)
				}
				continue
			}
			// Nothing over a live or unknown process but to stop it.
			if o.Sentry == process.Unknown || o.Gofer == process.Unknown {
				t.Fatalf("%s %s: a process of it is unknown", a.Op, a.Name)
			}
			alive := o.Sentry == process.Alive || o.Gofer == process.Alive
			resumed := a.Op == reconcile.OpResume
			if a.Op == reconcile.OpRefresh {
				if o.Record.Phase != actual.PhaseRunning || o.Sentry != process.Alive || o.Gofer != process.Alive || len(a.Volumes) == 0 {
					t.Fatalf("refresh %s of %q: it is %s: %+v", a.Name, a.Volumes, o.Record.Phase, o)
				}
				continue
			}
			if alive && !resumed && a.Op != reconcile.OpDestroy {
				t.Fatalf("%s %s: it is alive", a.Op, a.Name)
			}
			// What is resumed is a start that was cut short and has both its processes.
			if whole := o.Sentry == process.Alive && o.Gofer == process.Alive; resumed && (!whole || o.Exit != nil ||
				!slices.Contains([]actual.Phase{actual.PhaseCreating, actual.PhaseCreated, actual.PhaseStarting}, o.Record.Phase)) {
				t.Fatalf("resume %s: it is %s: %+v", a.Name, o.Record.Phase, o)
			}
			if a.Start && !resumed {
				t.Fatalf("%s %s starts something", a.Op, a.Name)
			}
			if !resumed && a.Op != reconcile.OpDestroy && o.Record.Phase != actual.PhaseStopped {
				t.Fatalf("%s %s: it is %s", a.Op, a.Name, o.Record.Phase)
			}
			// No absence without completeness.
			gone := in.Desired.Lookup(a.Name) == nil
			if gone && !in.Desired.Complete && !ordered(&in, a.Name) && (a.Op == reconcile.OpForget || a.Op == reconcile.OpDestroy && a.Reason == actual.ReasonManifestRemoved && o.Record.Phase != actual.PhaseStopping) {
				t.Fatalf("%s %s: its absence is no evidence", a.Op, a.Name)
			}
			if a.Op == reconcile.OpCreate && a.Entry == nil {
				t.Fatalf("create %s of nothing", a.Name)
			}
			if !gone && a.Op == reconcile.OpForget {
				t.Fatalf("forget %s: it is wanted", a.Name)
			}
		}
		// The same input gives the same plan.
		if show(plan) != show(reconcile.Compute(in)) {
			t.Fatal("another plan of the same input")
		}
		// Times are relative.
		shifted := shift(in, 1000*time.Hour)
		if show(plan) != show(reconcile.Compute(shifted)) {
			t.Fatalf("another plan at another time: %s, %s", show(plan), show(reconcile.Compute(shifted)))
		}
		if !plan.Wake.IsZero() && !plan.Wake.After(in.Now) {
			t.Fatalf("it wakes in the past: %s", plan.Wake)
		}
		// Every status can be worded, with every condition and a reason.
		for _, s := range reconcile.Statuses(in, plan) {
			for _, typ := range []string{reconcile.CondReady, reconcile.CondReconciling, reconcile.CondStalled, reconcile.CondManifestValid, reconcile.CondResourcesEnforced} {
				if c := s.Condition(typ); c == nil || c.Reason == "" || (c.Status != reconcile.True && c.Status != reconcile.False) {
					t.Fatalf("%s: condition %s: %+v", s.Name, typ, c)
				}
			}
			if s.Phase == "" {
				t.Fatalf("%s has no phase", s.Name)
			}
		}
	})
}

// One manifest's change touches its sandbox only.
func TestPlanIsLocal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := situation(t)
		in.Desired.Complete, in.Policy.AllowMassDelete = true, true
		before := map[string]string{}
		for _, a := range reconcile.Compute(in).Actions {
			before[a.Name] = a.Op.String() + a.Reason
		}
		if len(in.Desired.Entries) == 0 {
			return
		}
		i := rapid.IntRange(0, len(in.Desired.Entries)-1).Draw(t, "changed")
		name := in.Desired.Entries[i].Sandbox.Metadata.Name
		entries := append([]desired.Entry(nil), in.Desired.Entries...)
		entries[i] = *reconciletest.Entry(name, "changed", nil)
		in.Desired = &desired.Snapshot{Complete: true, Entries: entries}
		after := map[string]string{}
		for _, a := range reconcile.Compute(in).Actions {
			after[a.Name] = a.Op.String() + a.Reason
		}
		for _, n := range []string{"a", "b", "c", "d", "e"} {
			if n != name && before[n] != after[n] {
				t.Fatalf("%s changed, and %s: %q became %q", name, n, before[n], after[n])
			}
		}
	})
}

// shift moves an input in time.
func shift(in reconcile.Input, d time.Duration) reconcile.Input {
	in.Now = in.Now.Add(d)
	a := *in.Actual
	a.Sandboxes = append([]actual.Observed(nil), a.Sandboxes...)
	for i := range a.Sandboxes {
		r := a.Sandboxes[i].Record.Clone()
		r.App().StartedAt, r.CreatedAt = r.App().StartedAt.Add(d), r.CreatedAt.Add(d)
		if r.App().LastExit != nil {
			x := *r.App().LastExit
			x.At = x.At.Add(d)
			r.App().LastExit = &x
		}
		a.Sandboxes[i].Record = r
	}
	in.Actual = &a
	return in
}

func steady(n int) reconcile.Input {
	var es []*desired.Entry
	var os []actual.Observed
	for i := range n {
		e := reconciletest.Entry(fmt.Sprintf("s%06d", i), "a", nil)
		es, os = append(es, e), append(os, running(e))
	}
	return input(true, es, os...)
}

// When there is nothing to do, deciding so costs no memory.
func TestComputeAllocates(t *testing.T) {
	in := steady(100)
	if n := testing.AllocsPerRun(100, func() { reconcile.Compute(in) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCompute(b *testing.B) {
	for _, n := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in := steady(n)
			b.ReportAllocs()
			for b.Loop() {
				reconcile.Compute(in)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sandbox")
		})
	}
}
