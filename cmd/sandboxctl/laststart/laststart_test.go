// SPDX-License-Identifier: Apache-2.0

package laststart

import (
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/reconcile"
)

// The heading of the phases says what became of the start that they are of.
func TestStartText(t *testing.T) {
	t.Parallel()
	began := time.Unix(1700000000, 0)
	start := func(failed bool, phases ...string) *actual.Start {
		s := &actual.Start{BeganAt: began}
		for range phases {
			s = s.Add(phases[len(s.Phases)], 1250*time.Microsecond)
		}
		s.Failed = failed
		return s
	}
	all := []string{actual.StartParse, actual.StartPlan, actual.StartRecord, actual.StartSpawn, actual.StartBoot, actual.StartRoot}
	for _, c := range []struct {
		start   *actual.Start
		phase   string
		started bool
		want    string
	}{
		{start(false, all...), reconcile.PhaseRunning, true, "7.5 ms"},
		{start(false, all...), reconcile.PhaseStopping, true, "7.5 ms"},
		{start(true, all...), reconcile.PhaseCrashLoopBackOff, false, "7.5 ms; it got no further than root"},
		{start(true, all[:4]...), reconcile.PhaseFailed, false, "5.0 ms; it got no further than spawn"},
		{start(false, all[:3]...), reconcile.PhaseCreating, false, "3.8 ms so far"},
		{start(false, all[:3]...), reconcile.PhaseRunning, true, "3.8 ms until the daemon ended; another one finished it, and how long the rest took is not known"},
		{start(false, all[:2]...), reconcile.PhasePending, false, "2.5 ms until the daemon ended"},
	} {
		s := &reconcile.Status{Phase: c.phase}
		if c.started {
			s.StartedAt = began
		}
		if got := startText(s, c.start); got != c.want {
			t.Errorf("%+v: %q, expected %q", c, got, c.want)
		}
	}
}

// The phases are printed in their order, and nothing of a start that nothing is known of.
func TestDescribeStart(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := Print(&out, &reconcile.Status{}, nil); err != nil || out.String() != "" {
		t.Errorf("%q, %v", out.String(), err)
	}
	start := &actual.Start{Way: actual.WayCold, Why: "its \x1bapplication has a terminal"}
	for _, p := range actual.StartPhases {
		start = start.Add(p, time.Millisecond)
	}
	if err := Print(&out, &reconcile.Status{}, start); err != nil {
		t.Fatal(err)
	}
	want := "\nLast start (10.0 ms):\n  way: cold, as its  application has a terminal\n" +
		"  PHASE          TOOK\n  parse          1.0 ms\n  plan           1.0 ms\n  record         1.0 ms\n  spawn          1.0 ms\n  claim          1.0 ms\n" +
		"  boot           1.0 ms\n  hooks          1.0 ms\n  root           1.0 ms\n  restore        1.0 ms\n  first output   1.0 ms\n"
	if out.String() != want {
		t.Errorf("%q\nexpected %q", out.String(), want)
	}
}

// Where its processes came from, and why from nowhere better; nothing of a start of an earlier
// version.
func TestWayText(t *testing.T) {
	t.Parallel()
	for want, start := range map[string]actual.Start{
		"processes that had waited for a sandbox":                                      {Way: actual.WayWaiting},
		"processes that had waited for a sandbox, without a kernel, as it has rlimits": {Way: actual.WayWaiting, Why: "it has rlimits"},
		"processes that had waited for a sandbox, with a booted kernel":                {Way: actual.WayWarm},
		"cold":                            {Way: actual.WayCold},
		"cold, as no process was waiting": {Way: actual.WayCold, Why: "no process was waiting"},
		"of a later version":              {Way: "of a later version"},
	} {
		if got := wayText(&start); got != want {
			t.Errorf("%+v: %q, expected %q", start, got, want)
		}
	}
}
