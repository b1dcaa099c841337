// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/process"
)

// startOf makes the record of a start of which every phase takes a millisecond more
// than the one before. It stops before the phase given.
func startOf(t *testing.T, hooks bool, before string) (*Record, time.Time) {
	t.Helper()
	began := time.Now()
	r := NextAttempt(nil, Intent{Name: "web", UID: "u"}, began)
	now, took := began, time.Duration(0)
	tick := func() time.Time {
		took += time.Millisecond
		now = now.Add(took)
		return now
	}
	read := tick()
	r.StartBegins(began, read, tick())
	for _, p := range []string{StartSpawn, StartBoot, StartHooks, StartRoot} {
		if p == before {
			return r, tick()
		}
		if p != StartHooks || hooks {
			r.StartReaches(p, tick())
		}
	}
	return r, tick()
}

func names(s *Start) (out []string) {
	for _, p := range s.Phases {
		out = append(out, p.Phase)
	}
	return out
}

// inOrder fails the test unless the start has these phases, each a millisecond longer
// than the one before, and their sum.
func inOrder(t *testing.T, s *Start, want ...string) {
	t.Helper()
	if got := names(s); !slices.Equal(got, want) {
		t.Errorf("phases %v, expected %v", got, want)
	}
	sum := 0.0
	for i, p := range s.Phases {
		sum += p.Milliseconds
		if p.Milliseconds != float64(i+1) {
			t.Errorf("%s took %v ms, expected %d", p.Phase, p.Milliseconds, i+1)
		}
	}
	if math.Abs(s.Milliseconds-sum) > 0.0005 {
		t.Errorf("all took %v ms, the phases %v", s.Milliseconds, sum)
	}
}

// Every phase is on record when the application runs, in order, and they are all that
// the start took.
func TestStartPhases(t *testing.T) {
	t.Parallel()
	for _, hooks := range []bool{false, true} {
		r, now := startOf(t, hooks, "")
		r.Started(onWall(now))
		want := []string{StartParse, StartPlan, StartRecord, StartSpawn, StartBoot, StartHooks, StartRoot}
		if !hooks {
			want = slices.Delete(want, 5, 6)
		}
		inOrder(t, r.Start, want...)
		if took := now.Sub(r.Start.BeganAt); !r.Start.Done() || r.Start.Took() != took {
			t.Errorf("done %v, took %v, expected %v", r.Start.Done(), r.Start.Took(), took)
		}
		r.StartReaches(StartBoot, now.Add(time.Hour))
		r.StartTakes(WayWaiting, "")
		inOrder(t, r.Start, want...) // it is over
		if order := append(slices.Clone(want), StartFirstOutput); !hooks && !slices.Equal(order, slices.DeleteFunc(slices.Clone(StartPhases), func(p string) bool { return p == StartHooks || p == StartClaim || p == StartRestore })) {
			t.Errorf("StartPhases have another order: %v", StartPhases)
		}
	}
}

// A start whose sentry had waited says so, from the phase on in which it was taken.
func TestStartClaims(t *testing.T) {
	t.Parallel()
	r, now := startOf(t, false, StartBoot)
	r.StartTakes(WayWaiting, "")
	r.StartReaches(StartBoot, now)
	inOrder(t, r.Start, StartParse, StartPlan, StartRecord, StartClaim)
	if r.Start.Way != WayWaiting || r.Start.Why != "" {
		t.Errorf("%+v", r.Start)
	}
	new(Record).StartTakes(WayWaiting, "") // nothing is under way

	r, now = startOf(t, false, StartBoot)
	r.StartTakes(WayCold, "its application has a terminal")
	r.StartReaches(StartBoot, now)
	inOrder(t, r.Start, StartParse, StartPlan, StartRecord, StartSpawn)
	if r.Start.Way != WayCold || r.Start.Why != "its application has a terminal" {
		t.Errorf("%+v", r.Start)
	}
	if next := NextAttempt(r, Intent{}, now); next.Start != nil {
		t.Errorf("the next attempt begins with %+v", next.Start)
	}
}

// A start that fails or is cancelled says in which phase, and how long that took.
func TestStartFails(t *testing.T) {
	t.Parallel()
	ends := map[string]func(*Record, time.Time){
		"failed":    func(r *Record, now time.Time) { r.Failed("x", false, now) },
		"cancelled": func(r *Record, now time.Time) { r.Cancelled(ReasonSpecChanged, now) },
	}
	for how, end := range ends {
		for before, want := range map[string][]string{
			StartSpawn: {StartParse, StartPlan, StartRecord},
			StartBoot:  {StartParse, StartPlan, StartRecord, StartSpawn},
			StartRoot:  {StartParse, StartPlan, StartRecord, StartSpawn, StartBoot},
			"":         {StartParse, StartPlan, StartRecord, StartSpawn, StartBoot, StartRoot},
		} {
			t.Run(how+" before "+before, func(t *testing.T) {
				t.Parallel()
				r, now := startOf(t, false, before)
				end(r, now)
				inOrder(t, r.Start, want...)
				if r.Start.Done() || !r.Start.Failed {
					t.Error("it is said to have started the application")
				}
				if next := NextAttempt(r, Intent{}, now); next.Start != nil {
					t.Errorf("the next attempt begins with %+v", next.Start)
				}
			})
		}
	}
}

// A daemon that finishes the start of another one does not know when its phase began:
// it adds nothing, and keeps what is on record.
func TestStartOfAnotherDaemon(t *testing.T) {
	t.Parallel()
	r, now := startOf(t, false, StartBoot)
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var read Record
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	read.StartReaches(StartRoot, now)
	read.Started(onWall(now))
	inOrder(t, read.Start, StartParse, StartPlan, StartRecord)
	if read.Start.Done() || !read.Start.BeganAt.Equal(r.Start.BeganAt) {
		t.Errorf("%+v", read.Start)
	}
	var none Record
	none.StartReaches(StartBoot, now) // of an OCI client, or of an earlier version
	if none.Start != nil {
		t.Errorf("%+v", none.Start)
	}
}

// A copy of the record shows none of the later phases.
func TestStartIsReplaced(t *testing.T) {
	t.Parallel()
	r, now := startOf(t, false, StartBoot)
	copied, before := r.Clone(), fmt.Sprintf("%+v", *r.Start)
	r.StartReaches(StartBoot, now)
	copied.StartReaches(StartHooks, now)
	r.StartReaches(StartRoot, now)
	if got := names(r.Start); got[4] != StartBoot || len(got) != 5 {
		t.Errorf("%v", got)
	}
	if got := names(copied.Start); len(got) != 4 {
		t.Errorf("%v", got)
	}
	shown := r.Start.Add(StartFirstOutput, time.Second)
	if got := names(r.Start); len(got) != 5 || shown.Milliseconds != math.Round(r.Start.Milliseconds*1000+1e6)/1000 {
		t.Errorf("%v %+v; before %s", got, shown, before)
	}
}

// A clock that is set back makes no phase negative, and a start that nobody planned
// has no pass.
func TestStartClock(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	r := &Record{Containers: []Container{{Name: AppName}}}
	r.StartBegins(now, now.Add(-time.Hour), now)
	r.StartReaches(StartSpawn, now.Add(-time.Hour))
	r.Started(onWall(now.Add(-2 * time.Hour)))
	for _, p := range r.Start.Phases {
		if p.Milliseconds < 0 {
			t.Errorf("%+v", p)
		}
	}
	r.StartBegins(time.Time{}, time.Time{}, now)
	r.Started(onWall(now.Add(1500 * time.Microsecond)))
	if got := r.Start; len(got.Phases) != 1 || got.Phases[0] != (StartPhase{StartRecord, 1.5}) || got.Milliseconds != 1.5 {
		t.Errorf("%+v", got)
	}
}

// An application that a daemon has started and not written down counts from then on, however
// long there was none, and whatever somebody has set the clock to.
func TestStartedAfter(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	start := (&Start{BeganAt: began}).Add(StartParse, time.Second).Add(StartRecord, time.Second)
	// A sentry of its own began two seconds after that, at 100 s since the boot. Now it is a
	// minute later.
	now := func(step time.Duration) moment.Moment {
		return moment.Moment{Wall: began.Add(time.Minute + 4*time.Second + step), Boot: 160 * time.Second, BootID: "b"}
	}
	for name, c := range map[string]struct {
		start  *Start
		sentry uint64
		step   time.Duration
		want   time.Duration
	}{
		"its sentry had waited":      {start, 1000, 0, time.Minute + 2*time.Second},
		"its own sentry":             {start, 10_000, 0, time.Minute},
		"the clock was set forward":  {start, 10_000, 9 * time.Hour, time.Minute},
		"the clock was set back":     {start, 10_000, -9 * time.Hour, 0},
		"when it began is not known": {start, 0, 0, time.Minute + 2*time.Second},
		"of an earlier version":      {nil, 10_000, 0, 0},
	} {
		r := &Record{Start: c.start, Sentry: &process.Identity{PID: 2, StartTime: c.sentry}}
		at := now(c.step)
		if got := at.Since(r.StartedAfter(at)); got != c.want {
			t.Errorf("%s: %s ago, expected %s", name, got, c.want)
		}
	}
}
