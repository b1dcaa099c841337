// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"math"
	"slices"
	"time"

	"sandboxctl.dev/actual/moment"
)

// Phases of a start, in their order. Each ends where the next one begins.
const (
	// The pass that decided to start it read the manifests directory.
	StartParse = "parse"
	// That pass looked at records and processes and made its plan.
	StartPlan = "plan"
	// The intent was written into the record.
	StartRecord = "record"
	// Its cgroup, its sentry and its gofer were made and written into the record, until both
	// were allowed to run.
	StartSpawn = "spawn"
	// Instead of `spawn`: its cgroup was made, and a sentry that had waited for a sandbox was
	// taken and written into the record, with a gofer, until both were allowed to run.
	StartClaim = "claim"
	// The sentry booted, until its control server answered; beside that, its links to networks
	// were made.
	StartBoot = "boot"
	// `createRuntime` hooks of its bundle, and those before, ran on the host. Only if it has some.
	StartHooks = "hooks"
	// The sentry mounted the root and started the application.
	StartRoot = "root"
	// Instead of `root`: the sentry restored the application from a checkpoint or snapshot, and `onRestore` ran.
	StartRestore = "restore"
	// The application had not written anything until then: the first line in its log. It is no
	// part of the record. It is absent before that line, and once the log has been rotated; 0 if
	// the line came before the daemon knew that the application runs.
	StartFirstOutput = "firstOutput"
)

// StartPhases are all of them.
var StartPhases = []string{StartParse, StartPlan, StartRecord, StartSpawn, StartClaim, StartBoot, StartHooks, StartRoot, StartRestore, StartFirstOutput}

// Values of Start.Way.
const (
	// Its sentry and its gofer were started for it.
	WayCold = "cold"
	// They had waited for a sandbox.
	WayWaiting = "waiting"
	// They had waited, and the sentry had booted a kernel.
	WayWarm = "warm"
)

// Start says how long the phases of one start took. It is written with the record
// and never on its own: a daemon that dies before the write after a phase takes what
// it knew of the phase with it.
type Start struct {
	// When it began: when the pass that decided on it began.
	BeganAt time.Time `json:"beganAt"`
	// The phases so far.
	Phases []StartPhase `json:"phases"`
	// How long all of them took.
	Milliseconds float64 `json:"milliseconds"`
	// It failed or was cancelled, in its last phase.
	Failed bool `json:"failed,omitempty"`
	// Where its processes came from: `cold`, they were started for it; `waiting`, they had
	// waited for a sandbox; `warm`, they had waited, and the sentry had booted a kernel.
	Way string `json:"way,omitempty"`
	// Why they came from nowhere better, of what the host policy keeps.
	Why string `json:"why,omitempty"`

	// open is the phase under way, and since when. A record that was read has none.
	open  string
	since time.Time
}

// StartPhase is one phase of a start.
type StartPhase struct {
	// One of the phases of a start.
	Phase string `json:"phase"`
	// How long it took.
	Milliseconds float64 `json:"milliseconds"`
}

// Add returns the start with one more phase.
func (s *Start) Add(phase string, took time.Duration) *Start {
	c := *s
	ms := milliseconds(took)
	c.Phases = append(slices.Clip(s.Phases), StartPhase{phase, ms})
	c.Milliseconds = math.Round((s.Milliseconds+ms)*1000) / 1000
	return &c
}

// Took is how long all phases took.
func (s *Start) Took() time.Duration {
	return time.Duration(s.Milliseconds * float64(time.Millisecond))
}

// Done says whether it came to the application's start.
func (s *Start) Done() bool {
	return !s.Failed && slices.ContainsFunc(s.Phases, func(p StartPhase) bool { return p.Phase == StartRoot || p.Phase == StartRestore })
}

// milliseconds has microseconds as decimals. A clock that was set back took no time.
func milliseconds(d time.Duration) float64 {
	return float64(max(d, 0).Microseconds()) / 1000
}

// StartBegins notes when the pass began that decided on a start, when it had read the
// manifests, and now, when the record is about to be written. The zero time stands
// for a start that no pass has decided on.
func (r *Record) StartBegins(pass, read, now time.Time) {
	if pass.IsZero() {
		r.Start = &Start{BeganAt: now, open: StartRecord, since: now}
		return
	}
	s := (&Start{BeganAt: pass}).Add(StartParse, read.Sub(pass)).Add(StartPlan, now.Sub(read))
	s.open, s.since = StartRecord, now
	r.Start = s
}

// StartedAfter is a moment just before an application was started by a daemon that has not written
// it down: when the spawn of its processes began. It may have run for as long as there was no
// daemon, and that is a part of its activeDeadline.
func (r *Record) StartedAfter(now moment.Moment) moment.Moment {
	if r.Start == nil || r.Sentry == nil {
		return now // by an earlier version
	}
	ago := now.Wall.Sub(r.Start.BeganAt.Add(r.Start.Took()))
	if r.Sentry.StartTime != 0 {
		// Whatever the clock was set to since, its sentry is no older than this.
		ago = min(ago, now.Boot-time.Duration(r.Sentry.StartTime)*clockTick)
	}
	return now.Minus(max(ago, 0))
}

// clockTick is what the kernel counts the start of a process in.
const clockTick = 10 * time.Millisecond

// StartReaches ends the phase of a start that is under way and begins another one,
// with "" none. It does nothing to a start that another daemon has begun: when its
// phase began is not known.
func (r *Record) StartReaches(phase string, now time.Time) {
	if r.Start == nil || r.Start.open == "" {
		return
	}
	s := r.Start.Add(r.Start.open, now.Sub(r.Start.since))
	s.open, s.since = phase, now
	r.Start = s
}

// StartTakes says where the processes of a start that is under way came from, and why from
// nowhere better.
func (r *Record) StartTakes(way, why string) {
	if r.Start == nil || r.Start.open == "" {
		return
	}
	s := *r.Start
	s.Way, s.Why = way, why
	if way != WayCold {
		s.open = StartClaim
	}
	r.Start = &s
}

// startFails ends the start in the phase that is under way.
func (r *Record) startFails(now time.Time) {
	r.StartReaches("", now)
	if r.Start != nil {
		s := *r.Start
		s.Failed = true
		r.Start = &s
	}
}
