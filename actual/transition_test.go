// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sandboxctl.dev/actual/process"
)

func TestNextAttempt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	ran := func(change func(*Record)) *Record {
		r := sample("web")
		r.Phase, r.Sentry, r.Gofer, r.App().Failures, r.App().CleanExits = PhaseStopped, nil, nil, 4, 2
		change(r)
		return r
	}
	for name, c := range map[string]struct {
		old                              *Record
		hash, token                      string
		attempt, generation, restarts    int64
		failures, cleanExits             int
		wantToken, wantUID, wantLastExit string
	}{
		"first":           {hash: "v1:00", attempt: 1, generation: 1, wantUID: "new"},
		"first, by order": {hash: "v1:00", token: "r", attempt: 1, generation: 1, wantToken: "r", wantUID: "new"},
		"restart": {
			old: ran(func(*Record) {}), hash: "v1:00",
			attempt: 4, generation: 2, restarts: 3, failures: 4, cleanExits: 2, wantToken: "t", wantLastExit: ReasonError,
		},
		"restart, by order": {
			old: ran(func(*Record) {}), hash: "v1:00", token: "r",
			attempt: 4, generation: 2, restarts: 3, wantToken: "r", wantLastExit: ReasonError,
		},
		"another spec": {
			old: ran(func(r *Record) { r.Ending.Reason = "SpecChanged" }), hash: "v1:01",
			attempt: 4, generation: 3, restarts: 2, wantToken: "t", wantLastExit: ReasonError,
		},
		"another spec, and back": {
			old: ran(func(r *Record) { r.Ending.Reason = "SpecChanged" }), hash: "v1:00",
			attempt: 4, generation: 2, restarts: 2, failures: 4, cleanExits: 2, wantToken: "t", wantLastExit: ReasonError,
		},
		"after a suspension": {
			old: ran(func(r *Record) { r.Ending.Reason = "Suspended" }), hash: "v1:00",
			attempt: 4, generation: 2, restarts: 2, failures: 4, cleanExits: 2, wantToken: "t", wantLastExit: ReasonError,
		},
		"after a crash of the daemon": {
			old: ran(func(r *Record) { r.Ending.Reason = "Interrupted" }), hash: "v1:00",
			attempt: 4, generation: 2, restarts: 2, failures: 4, cleanExits: 2, wantToken: "t", wantLastExit: ReasonError,
		},
		"after one that was cancelled": {
			old: ran(func(r *Record) { r.Cancelled("RestartRequested", now) }), hash: "v1:00",
			attempt: 4, generation: 2, restarts: 2, failures: 4, cleanExits: 2, wantToken: "t", wantLastExit: ReasonCancelled,
		},
		"after one that never ran": {
			old: ran(func(r *Record) { r.Ending = nil; r.Failed("no", false, now) }), hash: "v1:00",
			attempt: 4, generation: 2, restarts: 2, failures: 5, wantToken: "t", wantLastExit: "CreateFailed",
		},
	} {
		var before *Record
		if c.old != nil {
			before = c.old.Clone()
		}
		r := NextAttempt(c.old, Intent{Name: "web", UID: "new", BootID: "now", Spec: []byte("{}"), SpecHash: c.hash, RestartToken: c.token}, now)
		if c.old != nil && !reflect.DeepEqual(before, c.old) {
			t.Errorf("%s: the record before was changed", name)
		}
		if c.wantUID == "" {
			c.wantUID = sample("web").UID
		}
		want := &Record{
			Version: RecordVersion, Name: "web", UID: c.wantUID, Attempt: c.attempt, Generation: c.generation, Phase: PhaseCreating,
			Spec: []byte("{}"), SpecHash: c.hash, RestartToken: c.wantToken, BootID: "now", CreatedAt: now,
			Containers: []Container{{Name: AppName, Failures: c.failures, CleanExits: c.cleanExits, Restarts: c.restarts, LastExit: r.App().LastExit}},
		}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("%s: got %+v, expected %+v", name, r, want)
		}
		var reason string
		if r.App().LastExit != nil {
			reason = r.App().LastExit.Reason
		}
		if reason != c.wantLastExit {
			t.Errorf("%s: last exit %q, expected %q", name, reason, c.wantLastExit)
		}
	}
}

// Starts that read something else are counted as long as they follow one another.
func TestHasRead(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var r *Record
	for i, c := range []struct {
		id, hash, token string
		after           time.Duration
		want            int
	}{
		{"1", "a", "", 0, 0},
		{"2", "a", "", time.Second, 1},
		{"2", "a", "", time.Second, 1}, // it failed, say
		{"3", "a", "", 9 * time.Minute, 2},
		{"4", "a", "", 10 * time.Minute, 0},
		{"5", "a", "", time.Second, 1},
		{"6", "b", "", time.Second, 0},
		{"7", "b", "", time.Second, 1},
		{"8", "b", "restart", time.Second, 1},
		{"9", "b", "", time.Second, 2},
	} {
		now = now.Add(c.after)
		r = NextAttempt(r, Intent{Name: "web", UID: "new", SpecHash: c.hash, RestartToken: c.token}, now)
		r.HasRead([]Input{{File: "/a", ID: c.id}})
		if r.InputChanges != c.want || r.Inputs[0].ID != c.id {
			t.Errorf("%d: %d changes, expected %d", i, r.InputChanges, c.want)
		}
	}
}

func TestEnded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	known := Exit{Known: true, Code: 3, Reason: ReasonError, At: now.Add(-time.Second)}
	killed := Exit{Reason: "SentryKilled", At: now.Add(-time.Second)}
	oom := func(at time.Time) Exit {
		return Exit{Known: true, Code: 137, Signal: int(unix.SIGKILL), Reason: ReasonOOMKilled, At: at}
	}
	stop := Ending{Reason: "Suspended", StopSignal: "SIGTERM", Grace: time.Minute, Containers: []ContainerEnding{{Name: AppName, Failures: 3, CleanExits: 1}}}
	died := func(x Exit) Ending {
		return Ending{Reason: x.Reason, Containers: []ContainerEnding{{Name: AppName, Exit: &x, Failures: 5, Completed: true}}}
	}
	for name, c := range map[string]struct {
		end    Ending
		seen   Outcome
		want   Exit
		saying string
	}{
		"stopped, said nothing":           {stop, Outcome{}, Exit{Reason: "Suspended", At: now}, ""},
		"stopped, said how":               {stop, Outcome{Exit: &known}, known, ""},
		"stopped, said how in time":       {stop, Outcome{Exit: &known, GraceExpired: true}, known, ""},
		"stopped, too late":               {stop, Outcome{GraceExpired: true}, Exit{Reason: "Suspended", At: now}, "killed: it did not end within 1m0s of SIGTERM"},
		"stopped, because memory ran out": {stop, Outcome{OOM: true}, oom(now), "resources.memory"},
		"died":                            {died(known), Outcome{}, known, ""},
		"died, and a child of OOM":        {died(known), Outcome{OOM: true}, known, ""},
		"died of OOM":                     {died(killed), Outcome{OOM: true}, oom(killed.At), "resources.memory"},
		"died, and another record":        {died(killed), Outcome{Exit: &known}, killed, ""},
		"stopped at once, without one":    {Ending{Reason: "ManifestRemoved"}, Outcome{}, Exit{Reason: "ManifestRemoved", At: now}, ""},
	} {
		r := sample("web")
		given := c.end
		given.Containers = slices.Clone(c.end.Containers)
		for i := range given.Containers {
			if x := given.Containers[i].Exit; x != nil {
				given.Containers[i].Exit = new(*x)
			}
		}
		r.Ended(&c.end, c.seen, onWall(now))
		if !reflect.DeepEqual(c.end, given) {
			t.Errorf("%s: the order was changed", name)
		}
		got := *r.App().LastExit
		if got.Message = ""; got != c.want || !strings.Contains(r.App().LastExit.Message, c.saying) || c.saying == "" && r.App().LastExit.Message != "" {
			t.Errorf("%s: got %+v, expected %+v", name, r.App().LastExit, c.want)
		}
		if app, end := r.App(), c.end.App(); app.Failures != end.Failures || app.CleanExits != end.CleanExits || app.Completed != end.Completed || r.Ending != &c.end {
			t.Errorf("%s: the order is not on record: %+v", name, r)
		}
	}
}

// Whatever happens to a record in whatever order, it can be written and read, one
// that is stopped points at nothing on the host, and the counters do not go back.
func TestTransitions(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		r := NextAttempt(nil, Intent{Name: "web", UID: "u", SpecHash: "v1:0"}, now)
		pid := 1
		reason := func() string {
			return rapid.SampledFrom([]string{"SpecChanged", "Exited", "Interrupted", "Suspended"}).Draw(t, "reason")
		}
		step := map[string]func(){
			"create": func() {
				r = NextAttempt(r, Intent{
					SpecHash: rapid.SampledFrom([]string{"v1:0", "v1:1"}).Draw(t, "hash"), RestartToken: rapid.SampledFrom([]string{"", "a"}).Draw(t, "token"),
				}, now)
			},
			"spawn": func() {
				pid += 2
				r.Spawned(PhaseStarting, process.Identity{PID: pid}, process.Identity{PID: pid + 1})
				r.Cgroups, r.Network, r.Files, r.SetupFile = []string{"g"}, &Network{Config: []byte("{}")}, []SharedFile{{Path: "/f"}}, true
				r.CNI, r.MoreCNI = &CNI{Config: []byte("{}")}, []CNI{{Config: []byte("{}")}}
			},
			"start":  func() { r.Started(onWall(now)) },
			"fail":   func() { r.Failed("no", rapid.Bool().Draw(t, "permanent"), now) },
			"cancel": func() { r.Cancelled(reason(), now) },
			"stop":   func() { r.Stopping(&Ending{Reason: reason()}) },
			"end":    func() { r.Ended(&Ending{Reason: reason()}, Outcome{OOM: rapid.Bool().Draw(t, "oom")}, onWall(now)) },
		}
		names := []string{"create", "spawn", "start", "fail", "cancel", "stop", "end"}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			now = now.Add(time.Second)
			before := r.Clone()
			what := rapid.SampledFrom(names).Draw(t, "what")
			step[what]()
			if _, err := EncodeRecord(r); err != nil {
				t.Fatalf("after %s: %v", what, err)
			}
			if r.Attempt < before.Attempt || r.Generation < before.Generation || r.App().Restarts < before.App().Restarts || r.UID != "u" {
				t.Fatalf("%s made %+v of %+v", what, r, before)
			}
			if r.Phase == PhaseStopped && (r.Sentry != nil || r.Gofer != nil || r.Cgroups != nil || r.Network != nil || r.CNI != nil || r.MoreCNI != nil || r.Files != nil || r.SetupFile || r.App().LastExit == nil) {
				t.Fatalf("after %s it is stopped, and something is left: %+v", what, r)
			}
			if what == "stop" && before.Phase == PhaseStopped && r.Phase != PhaseStopped {
				t.Fatal("what is stopped is being stopped again")
			}
		}
	})
}
