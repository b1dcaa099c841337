// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

func ordered(in *reconcile.Input, name string) bool {
	return slices.ContainsFunc(in.Actual.Requests, func(r actual.Request) bool { return r.Kind == actual.RequestRemove && r.Name == name })
}

func order(names ...string) []actual.Request {
	var out []actual.Request
	for _, n := range names {
		out = append(out, actual.Request{Kind: actual.RequestRemove, Name: n, Token: "t", At: now})
	}
	return out
}

// finished is a job that has run to its end.
func finished(o actual.Observed) actual.Observed {
	r := o.Record.Clone()
	r.Phase, r.App().Completed, r.Sentry, r.Gofer = actual.PhaseStopped, true, nil, nil
	r.Ending = &actual.Ending{Reason: actual.ReasonExited, Containers: []actual.ContainerEnding{{Name: actual.AppName, Completed: true}}}
	r.App().LastExit = &actual.Exit{Known: true, Reason: actual.ReasonCompleted, At: now.Add(-time.Hour)}
	return actual.Observed{Record: r, Sentry: process.None, Gofer: process.None}
}

// What an operator orders is done, whatever is the matter with the directory and with
// other sandboxes.
func TestPlanOrdered(t *testing.T) {
	t.Parallel()
	es, os := many("a b c d e f")
	reasons := []string{
		"", desired.ReasonDirectoryMissing, desired.ReasonDirectoryUnreadable, desired.ReasonDirectoryReplaced, desired.ReasonInvalidManifests,
		desired.ReasonUnsettled, desired.ReasonDirectoryUntrusted, desired.ReasonPolicyUnusable,
	}
	for _, reason := range reasons {
		for what, have := range map[string]actual.Observed{"running": os[0], "stopped": stopped(es[0], 3), "finished": finished(os[0])} {
			in := input(reason == "", es[1:], append([]actual.Observed{have}, os[1:]...)...)
			in.Desired.Reason = reason
			in.Actual.Requests = order("a")
			want := "destroy a ManifestRemoved graceful"
			if what != "running" {
				want = "forget a ManifestRemoved"
			}
			plan := reconcile.Compute(in)
			if got := show(plan); got != want {
				t.Errorf("%q, %s: %q, expected %q", reason, what, got, want)
			} else if !plan.Actions[0].Approved {
				t.Errorf("%q, %s: it counts as an accident", reason, what)
			}
			if s := reconcile.Statuses(in, plan); s[0].Phase != reconcile.PhaseRemoving {
				t.Errorf("%q, %s: it is %s", reason, what, s[0].Phase)
			}
		}
	}
	// All of them, one after the other, beside many that vanished.
	in := input(true, nil, os...)
	in.Actual.Requests = order("a", "b")
	if got := show(reconcile.Compute(in)); got != "destroy a ManifestRemoved graceful; destroy b ManifestRemoved graceful; guard [c d e f]" {
		t.Errorf("two of six: %q", got)
	}
	in.Actual.Requests = order("a", "b", "c", "d", "e", "f")
	if got := show(reconcile.Compute(in)); strings.Count(got, "destroy") != 6 || strings.Contains(got, "guard") {
		t.Errorf("six of six: %q", got)
	}
	// Not while its manifest is there, nor what can't be judged.
	in = input(true, es, os...)
	in.Actual.Requests = order("a")
	if got := show(reconcile.Compute(in)); got != "" {
		t.Errorf("wanted: %q", got)
	}
	in = input(true, es[1:], os...)
	in.Actual.Requests, in.Actual.Sandboxes[0].Sentry = order("a"), process.Unknown
	if got := show(reconcile.Compute(in)); got != "" {
		t.Errorf("unknown: %q", got)
	}
}

// A job that has finished does not count: its removal stops nothing.
func TestGuardFinished(t *testing.T) {
	t.Parallel()
	es, os := many("a b c d e f")
	for i := range 4 {
		os[i] = finished(os[i])
	}
	if got := show(reconcile.Compute(input(true, es[4:], os...))); strings.Count(got, "forget") != 4 || strings.Contains(got, "guard") {
		t.Errorf("four jobs: %q", got)
	}
	if got := show(reconcile.Compute(input(true, nil, os...))); strings.Count(got, "forget") != 4 || strings.Count(got, "destroy") != 2 {
		t.Errorf("four jobs and two of two services: %q", got)
	}
	// But while nothing is known of the manifests, it is not forgotten: it would run
	// again when they are back.
	in := input(false, nil, os...)
	in.Desired.Reason = desired.ReasonDirectoryMissing
	if got := show(reconcile.Compute(in)); got != "" {
		t.Errorf("no directory: %q", got)
	}
}

// What is said of a removal on hold is what is there, and when it ends.
func TestGuardMessages(t *testing.T) {
	t.Parallel()
	es, os := many("a b c d")
	ago := func(ds ...time.Duration) []time.Time {
		var out []time.Time
		for _, d := range ds {
			out = append(out, now.Add(-d))
		}
		return out
	}
	for name, c := range map[string]struct {
		want     []*desired.Entry
		removals []time.Time
		message  string
		until    time.Time
	}{
		"one, after three": {
			es[1:], ago(50*time.Second, 20*time.Second, 10*time.Second),
			"removal of a is on hold: 4 sandboxes would be gone within one minute; `sandboxctl approve` removes it now, otherwise it is removed at 07:08:19", now.Add(10 * time.Second),
		},
		"two, after two": {
			es[2:], ago(20*time.Second, 10*time.Second),
			"removal of a and b is on hold: 4 sandboxes would be gone within one minute; `sandboxctl approve` removes them now, otherwise they are removed at 07:08:59", now.Add(50 * time.Second),
		},
		"three of four": {
			es[3:], nil,
			"removal of a, b and c is on hold: the manifests of 3 of 4 sandboxes are missing; `sandboxctl approve` removes them now, otherwise they keep running until the manifests are back",
			time.Time{},
		},
		"all, after one": {
			nil, ago(time.Second),
			"removal of a, b, c and d is on hold: 5 sandboxes would be gone within one minute; `sandboxctl approve` removes them now, otherwise they keep running until the manifests are back",
			time.Time{},
		},
	} {
		in := input(true, c.want, os...)
		in.Removals = c.removals
		plan := reconcile.Compute(in)
		if plan.Guard == nil || plan.Guard.Message != c.message || !plan.Guard.Until.Equal(c.until) || plan.Guard.Total != 4 {
			t.Errorf("%s: %+v", name, plan.Guard)
			continue
		}
		if !plan.Wake.Equal(c.until) {
			t.Errorf("%s: wakes at %s", name, plan.Wake)
		}
		s := reconcile.Statuses(in, plan)[0]
		if got := s.Condition(reconcile.CondStalled).Message; !strings.HasPrefix(got, "removal of a is on hold: ") {
			t.Errorf("%s: a says %s", name, got)
		}
		if c.until.IsZero() {
			continue
		}
		// And then it is so.
		in.Now = c.until
		if got := show(reconcile.Compute(in)); strings.Contains(got, "guard") || !strings.Contains(got, "destroy a") {
			t.Errorf("%s, at the time: %q", name, got)
		}
	}
}

// A removal that has begun is counted once, also before its record says that it has: what
// vanishes with two others within a minute is many, and it alone after one is not.
func TestGuardUnderWay(t *testing.T) {
	t.Parallel()
	es, os := many("a b c d e f")
	for name, c := range map[string]struct {
		want     []*desired.Entry
		have     []actual.Observed
		under    map[string]reconcile.Operation
		removals int
		plan     string
	}{
		"the second":                     {es[2:4], os[1:4], map[string]reconcile.Operation{"b": {Op: reconcile.OpDestroy, Removes: true}}, 2, ""},
		"the third beside the second":    {es[3:5], os[1:5], map[string]reconcile.Operation{"b": {Op: reconcile.OpDestroy, Removes: true}}, 2, "guard [c]; wake"},
		"the second beside the first":    {es[2:5], os[:5], map[string]reconcile.Operation{"a": {Op: reconcile.OpForget, Removes: true}}, 1, "destroy b ManifestRemoved graceful"},
		"three, one of which restarts":   {es[3:5], os[:5], map[string]reconcile.Operation{"a": {Op: reconcile.OpDestroy}}, 0, "guard [a b c]"},
		"three, one of which is started": {es[3:5], os[:5], map[string]reconcile.Operation{"a": {Op: reconcile.OpCreate}}, 0, "guard [a b c]"},
	} {
		in := input(true, c.want, c.have...)
		in.Operations = c.under
		for range c.removals {
			in.Removals = append(in.Removals, now.Add(-time.Second))
		}
		got, _, _ := strings.Cut(show(reconcile.Compute(in)), "; cancel")
		if got != c.plan {
			t.Errorf("%s: %q, expected %q", name, got, c.plan)
		}
	}
	a := reconcile.Action{Op: reconcile.OpDestroy, Name: "a", Reason: actual.ReasonManifestRemoved}
	if !a.Operation().Removes {
		t.Error("a removal does not say that it is one")
	}
	if a.Reason = actual.ReasonSpecChanged; a.Operation().Removes {
		t.Error("a restart says that it is a removal")
	}
}

// A broken file holds back what it may be about, and nothing else.
func TestPlanBrokenBesides(t *testing.T) {
	t.Parallel()
	es, os := many("a b c d")
	in := input(false, es[2:], os...)
	in.Desired.Gone = []string{"a"}
	if got := show(reconcile.Compute(in)); got != "destroy a ManifestRemoved graceful" {
		t.Errorf("%q", got)
	}
	// The guard counts those that go.
	in = input(false, es[3:], os...)
	in.Desired.Gone = []string{"a", "b", "c"}
	if got := show(reconcile.Compute(in)); got != "guard [a b c]" {
		t.Errorf("%q", got)
	}
}
