// SPDX-License-Identifier: Apache-2.0

package await

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

var waitNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// waitWorld is a world with one manifest, web.
func waitWorld(t *testing.T, complete bool, spec string) *world.World {
	t.Helper()
	text := "apiVersion: " + desired.APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [sh]\n" + spec
	docs, problems := desired.Decode("web.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return &world.World{In: reconcile.Input{
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
		{"ready", "  suspend: true", waitStatus(reconcile.PhaseSuspended, 0), never},
		{"ready", "  suspend: true", running, never}, // it is about to be stopped
		{"ready", "  suspend: true", waitStatus(reconcile.PhaseStopping, time.Minute), never},
		{"ready", "  suspend: true", completed, yes},
		{"ready", "  suspend: true", nil, never},
		{"completed", "  suspend: true\n  restartPolicy: Never", waitStatus(reconcile.PhaseSuspended, 0), never},
		{"completed", "  suspend: true\n  restartPolicy: Never", completed, yes},
		{"phase=Suspended", "  suspend: true", waitStatus(reconcile.PhaseSuspended, 0), yes},
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
		g, err := Parse(c.goal)
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
		if _, err := Parse(bad); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Why it is not there yet is told once for each reason, and a countdown is none.
// What is not even tried until somebody changes the host is not waited for, also where the
// sandbox runs by its manifest of before.
func TestWaitBlocked(t *testing.T) {
	t.Parallel()
	later := waitNow.Add(time.Minute)
	for name, c := range map[string]struct {
		d    reconcile.Delayed
		want string
	}{
		"a file is missing":    {reconcile.Delayed{Action: reconcile.Action{Name: "web", Reason: actual.ReasonInputMissing}, Why: "no file", PreconditionFailed: true}, "InputMissing: no file"},
		"no such image":        {reconcile.Delayed{Action: reconcile.Action{Name: "web", Reason: actual.ReasonImageNotFound}, Why: "no image", Until: later, PreconditionFailed: true}, "ImageNotFound: no image; when that is corrected, `sandboxctl restart web` tries at once"},
		"a registry is down":   {reconcile.Delayed{Action: reconcile.Action{Name: "web", Reason: actual.ReasonPullFailed}, Why: "down", Until: later}, ""},
		"of another sandbox":   {reconcile.Delayed{Action: reconcile.Action{Name: "other", Reason: actual.ReasonInputMissing}, Why: "no file", PreconditionFailed: true}, ""},
		"a disk without space": {reconcile.Delayed{Action: reconcile.Action{Name: "web", Reason: actual.ReasonDiskPressure}, Why: "full"}, ""},
		"a disk without room":  {reconcile.Delayed{Action: reconcile.Action{Name: "web", Reason: actual.ReasonDiskPressure}, Why: "no room", PreconditionFailed: true}, "DiskPressure: no room"},
	} {
		for _, s := range []*reconcile.Status{waitStatus(reconcile.PhasePending, 0), waitStatus(reconcile.PhaseRunning, time.Second)} {
			w := waitWorld(t, true, "  restartPolicy: Never")
			w.Plan.Delayed = []reconcile.Delayed{c.d}
			for goal, g := range map[string]Goal{
				"ready": Ready, "completed": completed, "restarted": Restarted(map[string]string{"web": "token"}), "restored": Restored("token"),
			} {
				ok, err := g(w, "web", s)
				if got := fmt.Sprint(err); ok || (err == nil) != (c.want == "") || err != nil && got != c.want {
					t.Errorf("%s: %s of one that is %s: %t, %v, expected %q", name, goal, s.Phase, ok, err, c.want)
				}
			}
		}
	}
}

// Room that another sandbox is about to leave is waited for.
func TestWaitForRoom(t *testing.T) {
	t.Parallel()
	w := waitWorld(t, true, "")
	w.Plan.Delayed = []reconcile.Delayed{{Action: reconcile.Action{Name: "web", Reason: actual.ReasonDiskPressure}, Why: "no room", PreconditionFailed: true}}
	if blocked(w, "web") == nil {
		t.Error("it is waited for what nobody makes")
	}
	w.Plan.Actions = []reconcile.Action{{Name: "other"}}
	planned := blocked(w, "web")
	w.Plan.Actions, w.In.Operations = nil, map[string]reconcile.Operation{"other": {}}
	if err := errors.Join(planned, blocked(w, "web")); err != nil {
		t.Error(err)
	}
}

func TestWaitNews(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	n := waitNews{h: &world.Host{Stderr: &out}, told: map[string]string{}, stops: map[string]time.Time{}}
	loop := func(failures int, countdown string) *world.World {
		s := waitStatus(reconcile.PhaseCrashLoopBackOff, 0)
		s.Failures, s.LastTermination = failures, &actual.Exit{Known: true, Code: failures, Reason: "Error"}
		s.Conditions = append(s.Conditions, reconcile.Condition{Type: reconcile.CondReconciling, Status: reconcile.True, Reason: actual.ReasonBackOff, Message: countdown})
		return &world.World{Statuses: []reconcile.Status{*s}, Alive: true}
	}
	// One that takes a moment to stop is no news; what a longer stop waits for is.
	stop := func(after, grace time.Duration, troubles ...string) *world.World {
		rec := &actual.Record{Name: "web", Phase: actual.PhaseStopping, Ending: &actual.Ending{Reason: actual.ReasonSuspended, StopSignal: "SIGQUIT", Grace: grace}}
		for _, m := range troubles {
			rec.Warnings = append(rec.Warnings, actual.Warning{Reason: actual.WarningStopFailed, Message: m})
		}
		s := waitStatus(reconcile.PhaseStopping, 0)
		s.SentryPID = 7
		s.Conditions = append(s.Conditions, reconcile.Condition{Type: reconcile.CondReconciling, Status: reconcile.True, Reason: actual.ReasonStopping, Message: "Suspended"})
		w := &world.World{Statuses: []reconcile.Status{*s}, Alive: true}
		w.In.Now, w.In.Actual = waitNow.Add(after), &actual.Snapshot{Sandboxes: []actual.Observed{{Record: rec}}}
		return w
	}
	for _, w := range []*world.World{
		stop(0, time.Minute), stop(900*time.Millisecond, time.Minute), stop(time.Second, time.Minute), stop(2*time.Second, time.Minute),
		stop(3*time.Second, time.Minute, "it hangs"),
		loop(1, "next start in 2s"), loop(1, "next start in 1s"), loop(2, "next start in 4s"),
		{},
		{},
	} {
		n.sandbox(w, "web")
		n.daemon(w)
	}
	want := []string{
		"web: Stopping: its application was sent SIGQUIT, and is killed if it has not ended 1m0s after that",
		"web: Stopping: to stop it has failed, and is tried again: it hangs",
		"web: CrashLoopBackOff: Error (1); failure 1, it is started again after a delay",
		"web: CrashLoopBackOff: Error (2); failure 2, it is started again after a delay",
		"waiting for the daemon, which is not running",
	}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("told\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
