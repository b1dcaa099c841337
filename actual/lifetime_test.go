// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"testing"
	"time"

	"sandboxctl.dev/actual/moment"
)

// onWall is a moment of which only the wall clock matters.
func onWall(t time.Time) moment.Moment { return moment.Moment{Wall: t, Boot: 1, BootID: "boot"} }

// What counts for a deadline goes on over exits, crashes and reboots, and begins again with
// another spec, after a suspension, and when an operator asks for a restart.
func TestActive(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(boot string, s int) moment.Moment {
		return moment.Moment{Wall: began.Add(time.Duration(s) * time.Second), Boot: time.Duration(s) * time.Second, BootID: boot}
	}
	ran := func() *Record {
		r := NextAttempt(nil, Intent{Name: "web", UID: "u", SpecHash: "v1:0"}, began)
		r.Started(at("a", 10))
		return r
	}
	for name, c := range map[string]struct {
		end    Ending
		intent Intent
		boot   string
		want   time.Duration // at 60 s
	}{
		"an exit":           {end: Ending{Reason: ReasonExited}, boot: "a", want: 50 * time.Second},
		"a reboot":          {end: Ending{Reason: ReasonHostRebooted}, boot: "b", want: 50 * time.Second},
		"a crash":           {end: Ending{Reason: ReasonInterrupted}, boot: "a", want: 50 * time.Second},
		"another spec":      {end: Ending{Reason: ReasonSpecChanged}, intent: Intent{SpecHash: "v1:1"}, boot: "a", want: 20 * time.Second},
		"a suspension":      {end: Ending{Reason: ReasonSuspended}, boot: "a", want: 20 * time.Second},
		"an until":          {end: Ending{Reason: ReasonExpired}, boot: "a", want: 20 * time.Second},
		"a request":         {end: Ending{Reason: ReasonRestartRequested}, intent: Intent{RestartToken: "t"}, boot: "a", want: 20 * time.Second},
		"it was over":       {end: Ending{Reason: ReasonDeadlineExceeded}, boot: "a", want: 20 * time.Second},
		"a cancelled start": {end: Ending{Reason: ReasonExited}, boot: "a", want: 50 * time.Second},
	} {
		r := ran()
		c.end.Containers = []ContainerEnding{{Name: AppName, Failures: 3}}
		r.Ended(&c.end, Outcome{}, at("a", 30))
		c.intent.Name, c.intent.BootID = "web", c.boot
		if c.intent.SpecHash == "" {
			c.intent.SpecHash = "v1:0"
		}
		if name == "a cancelled start" {
			r = NextAttempt(r, c.intent, began)
			r.Cancelled(ReasonRestartRequested, began)
		}
		r = NextAttempt(r, c.intent, began)
		r.Started(at(c.boot, 40))
		if anew := name == "another spec" || name == "a request" || c.end.TimeOver(); (r.App().Failures == 0) != anew {
			t.Errorf("%s: %d failures", name, r.App().Failures)
		}
		if got := r.App().Active.For(at(c.boot, 60)); got != c.want {
			t.Errorf("%s: it has run for %s, expected %s", name, got, c.want)
		}
	}
}

// How long a run was stays on record when the next boot begins with a clock that is behind.
func TestActiveOverBoots(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	in := func(boot string, since time.Duration, wall time.Time) moment.Moment {
		return moment.Moment{Wall: wall, Boot: since, BootID: boot}
	}
	r := sample("web")
	r.App().Active = nil
	r.Started(in("a", time.Minute, noon))
	r.Ended(&Ending{Reason: ReasonExited, Containers: []ContainerEnding{{Name: AppName, Exit: &Exit{Reason: ReasonError, At: noon.Add(time.Hour)}}}}, Outcome{}, in("a", time.Hour+time.Minute, noon.Add(time.Hour)))
	next := NextAttempt(r, Intent{SpecHash: r.SpecHash}, noon.AddDate(-1, 0, 0))
	next.Started(in("b", time.Second, noon.AddDate(-1, 0, 0)))
	if got := next.App().Active.For(in("b", time.Minute+time.Second, noon.AddDate(-1, 0, 0))); got != time.Hour+time.Minute {
		t.Errorf("active for %s, expected 1h1m", got)
	}
}

// How an application ended whose time was over is its code; that it was over is the reason.
func TestEndedByTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := NextAttempt(nil, Intent{Name: "web", UID: "u", SpecHash: "v1:0"}, now)
	r.Started(onWall(now))
	end := &Ending{Reason: ReasonDeadlineExceeded, StopSignal: "SIGTERM", Grace: time.Second, Containers: []ContainerEnding{{Name: AppName, Completed: true}}}
	for name, c := range map[string]struct {
		seen Outcome
		want Exit
	}{
		"it left":   {Outcome{Exit: &Exit{Known: true, Code: 7, Reason: ReasonError, Message: "x", At: now}}, Exit{Known: true, Code: 7, Reason: ReasonDeadlineExceeded, At: now}},
		"it stayed": {Outcome{GraceExpired: true}, Exit{Reason: ReasonDeadlineExceeded, At: now.Add(time.Minute), Message: "killed: it did not end within 1s of SIGTERM, its terminationGracePeriod"}},
	} {
		r := r.Clone()
		r.Ended(end, c.seen, onWall(now.Add(time.Minute)))
		if got := *r.App().LastExit; got != c.want {
			t.Errorf("%s: %+v, expected %+v", name, got, c.want)
		}
		if f := r.App().Finished; f == nil || !f.Wall.Equal(c.want.At) {
			t.Errorf("%s: finished %+v, expected at %s", name, f, c.want.At)
		}
	}
}

// When the application ended is the word of its sentry: it does not decide when the record of a
// finished sandbox is given up.
func TestFinishedAt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := NextAttempt(nil, Intent{Name: "web", UID: "u", SpecHash: "v1:0"}, now)
	r.Started(onWall(now))
	end := &Ending{Reason: ReasonDeadlineExceeded, Containers: []ContainerEnding{{Name: AppName, Completed: true}}}
	seen := now.Add(time.Minute)
	for name, c := range map[string]struct{ at, want time.Time }{
		"late": {seen.Add(-time.Second), seen.Add(-time.Second)}, "none": {time.Time{}, seen}, "before its start": {now.Add(-time.Hour), seen}, "ahead": {seen.Add(time.Hour), seen},
	} {
		r := r.Clone()
		r.Ended(end, Outcome{Exit: &Exit{Known: true, At: c.at}}, onWall(seen))
		if f := r.App().Finished; !f.Wall.Equal(c.want) {
			t.Errorf("%s: finished at %s, expected %s", name, f.Wall, c.want)
		}
	}
}

// A record has what is needed to count on after a crash, and one that is retired nothing that
// belongs to others by now.
func TestLifetimeOnRecord(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := NextAttempt(nil, Intent{Name: "web", UID: "u", SpecHash: "v1:0"}, now)
	r.Attachments, r.Inputs = []Attachment{{Network: "front"}}, []Input{{File: "/x"}}
	r.Started(onWall(now))
	r.Ended(&Ending{Reason: ReasonExpired, Until: now, Containers: []ContainerEnding{{Name: AppName, Completed: true}}}, Outcome{}, onWall(now))
	r.Retire()
	b, err := EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(r)
	if got, _ := json.Marshal(back); string(got) != string(want) {
		t.Errorf("%s\n%s", got, want)
	}
	if !back.Retired || back.Attachments != nil || back.Inputs != nil || !back.Ending.TimeOver() || back.App().Active == nil || back.App().Finished == nil {
		t.Errorf("%+v", back)
	}
}
