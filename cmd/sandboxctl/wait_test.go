// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

var waitNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// waitWorld is a world with one manifest, web.
func waitWorld(t *testing.T, complete bool, spec string) *world {
	t.Helper()
	text := "apiVersion: " + desired.APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [sh]\n" + spec
	docs, problems := desired.Decode("web.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return &world{in: reconcile.Input{
		Desired: &desired.Snapshot{Complete: complete, Entries: []desired.Entry{{Sandbox: docs[0].Sandbox}}},
		Actual:  &actual.Snapshot{}, Now: waitNow,
	}}
}

func waitStatus(phase string, ran time.Duration, bad ...string) *reconcile.Status {
	s := &reconcile.Status{Name: "web", Phase: phase, StartedAt: waitNow.Add(-ran)}
	status := map[string]string{reconcile.CondReady: reconcile.False, reconcile.CondStalled: reconcile.False, reconcile.CondManifestValid: reconcile.True}
	if phase == reconcile.PhaseRunning {
		status[reconcile.CondReady] = reconcile.True
	}
	for _, typ := range bad {
		status[typ] = map[string]string{reconcile.True: reconcile.False, reconcile.False: reconcile.True}[status[typ]]
	}
	for typ, v := range status {
		s.Conditions = append(s.Conditions, reconcile.Condition{Type: typ, Status: v, Reason: "R", Message: "m"})
	}
	return s
}

func TestGoals(t *testing.T) {
	t.Parallel()
	const yes, no, never = "yes", "no", "never"
	running := waitStatus(reconcile.PhaseRunning, time.Minute)
	pending := waitStatus(reconcile.PhasePending, 0)
	failed := waitStatus(reconcile.PhaseFailed, 0)
	completed := waitStatus(reconcile.PhaseCompleted, 0)
	for _, c := range []struct {
		goal, spec string
		s          *reconcile.Status
		want       string
	}{
		{"ready", "", nil, never},
		{"ready", "", running, yes},
		{"ready", "", waitStatus(reconcile.PhaseRunning, 0), no},
		{"ready", "", waitStatus(reconcile.PhaseRunning, 1900*time.Millisecond), no},
		{"ready", "", waitStatus(reconcile.PhaseRunning, 2*time.Second), yes},
		{"ready", "", waitStatus(reconcile.PhaseRunning, -time.Hour), yes}, // the clock was set back
		{"ready", "  minReadySeconds: 0", waitStatus(reconcile.PhaseRunning, 0), yes},
		{"ready", "  minReadySeconds: 61", running, no},
		{"ready", "", pending, no},
		{"ready", "", waitStatus(reconcile.PhaseCrashLoopBackOff, 0), no},
		{"ready", "", waitStatus(reconcile.PhasePending, 0, reconcile.CondStalled), never},
		{"ready", "", waitStatus(reconcile.PhaseRunning, time.Minute, reconcile.CondManifestValid), never},
		{"ready", "", failed, never},
		{"ready", "", completed, yes},
		{"ready", "", waitStatus(reconcile.PhaseSuspended, 0), yes},
		{"delete", "", nil, yes},
		{"delete", "", running, no},
		{"delete", "", failed, no},
		{"completed", "", nil, never},
		{"completed", "", running, never}, // restartPolicy Always
		{"completed", "  restartPolicy: Never", running, no},
		{"completed", "  restartPolicy: OnFailure", waitStatus(reconcile.PhaseCrashLoopBackOff, 0), no},
		{"completed", "  restartPolicy: OnFailure", waitStatus(reconcile.PhaseInvalid, 0, reconcile.CondStalled), never},
		{"completed", "", completed, yes},
		{"completed", "  restartPolicy: Never", failed, never},
		{"phase=running", "", running, yes},
		{"phase=Running", "", pending, no},
		{"phase=Running", "", nil, never},
		{"condition=Ready", "", running, yes},
		{"condition=Ready", "", pending, no},
		{"condition=Ready", "", nil, never},
		{"condition=Ready=False", "", pending, yes},
		{"condition=Ready=false", "", running, no},
		{"condition=Nonsense", "", running, never},
	} {
		g, err := parseGoal(c.goal)
		if err != nil {
			t.Errorf("%s: %v", c.goal, err)
			continue
		}
		ok, err := g(waitWorld(t, true, c.spec), "web", c.s)
		got := map[bool]string{true: yes, false: no}[ok]
		if err != nil {
			got = never
		}
		if got != c.want {
			t.Errorf("%s of %+v with %q: %s (%v), expected %s", c.goal, c.s, c.spec, got, err, c.want)
		}
		// While not all manifests can be read, one that is not there may be.
		if c.s == nil {
			if _, err := g(waitWorld(t, false, c.spec), "web", nil); err != nil {
				t.Errorf("%s of what may be there: %v", c.goal, err)
			}
		}
	}
	for _, bad := range []string{"", "nonsense", "Ready", "phase", "phase=", "phase=Runs", "condition", "condition=", "condition==True", "ready=true", "delete="} {
		var e *exit.Error
		if _, err := parseGoal(bad); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Why it is not there yet is told once for each reason, and a countdown is none.
func TestWaitNews(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	n := waitNews{a: &app{stderr: &out}, told: map[string]string{}}
	loop := func(failures int, countdown string) *world {
		s := waitStatus(reconcile.PhaseCrashLoopBackOff, 0)
		s.Failures, s.LastTermination = failures, &actual.Exit{Known: true, Code: failures, Reason: "Error"}
		s.Conditions = append(s.Conditions, reconcile.Condition{Type: reconcile.CondReconciling, Status: reconcile.True, Reason: actual.ReasonBackOff, Message: countdown})
		return &world{statuses: []reconcile.Status{*s}, alive: true}
	}
	for _, w := range []*world{
		loop(1, "next start in 2s"), loop(1, "next start in 1s"), loop(2, "next start in 4s"), {}, {},
	} {
		n.sandbox(w, "web")
		n.daemon(w)
	}
	want := []string{
		"web: CrashLoopBackOff: Error (1); failure 1, it is started again after a delay",
		"web: CrashLoopBackOff: Error (2); failure 2, it is started again after a delay",
		"waiting for the daemon, which is not running",
	}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("told\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
