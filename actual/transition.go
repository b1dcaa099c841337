// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/process"
)

// The transitions of a record. Each is a function of values, without I/O or a
// clock: the launcher, the host in memory and the simulator all call them, so what
// is tested there is what happens on a host.

// Intent is what a create is given.
type Intent struct {
	// Name and UID are used for a name that has no record yet.
	Name, UID string
	BootID    string

	Spec                               json.RawMessage
	SpecHash, SourceFile, SourceDigest string
	// RestartToken is the restart request that the create carries out, if any.
	RestartToken string
	// Image is that of the root, nil if the root is none.
	Image *Image
	// OCI is set for a container of an OCI client.
	OCI *OCIContainer
}

// NextAttempt returns the record of a create that is about to begin. old is the
// record of the attempt before, nil if there was none; it is not changed.
func NextAttempt(old *Record, in Intent, now time.Time) *Record {
	r := &Record{Version: RecordVersion, Name: in.Name, UID: in.UID, Generation: 1}
	app := Container{Name: AppName, OCI: in.OCI, Image: in.Image}
	if old != nil {
		r.Name, r.UID, r.Attempt, r.Generation, r.RestartToken = old.Name, old.UID, old.Attempt, old.Generation, old.RestartToken
		sameSpec := old.SpecHash == in.SpecHash
		if !sameSpec {
			r.Generation++
		}
		r.Attachments = old.Attachments
		app.inherit(old.App(), old.Ending, sameSpec)
		if sameSpec && now.Sub(old.CreatedAt) < inputsLast {
			r.Inputs, r.InputChanges = old.Inputs, old.InputChanges
		}
	}
	r.Attempt++
	r.Phase = PhaseCreating
	r.Spec, r.SpecHash, r.SourceFile, r.SourceDigest = in.Spec, in.SpecHash, in.SourceFile, in.SourceDigest
	if in.RestartToken != "" {
		r.RestartToken = in.RestartToken
		app.Failures, app.CleanExits, r.InputChanges = 0, 0, 0 // the operator who asked has looked at them
		app.Active, app.Resumption = nil, nil
	}
	r.Containers = []Container{app}
	r.BootID, r.CreatedAt = in.BootID, now
	return r
}

// inputsLast is how long after a start a change of its inputs is nothing special.
const inputsLast = 10 * time.Minute

// HasRead notes what a start has read.
func (r *Record) HasRead(in []Input) {
	if r.Inputs != nil && !slices.Equal(r.Inputs, in) {
		r.InputChanges++
	}
	r.Inputs = in
}

// Refreshing says that files of these volumes are about to be replaced.
func (r *Record) Refreshing(volumes []string, now time.Time) {
	next := Refresh{Pending: volumes, At: now}
	if r.Refresh != nil {
		next.Count = r.Refresh.Count
	}
	r.Refresh = &next
}

// Refreshed says that this is done, and the application was told: in is what it has now.
func (r *Record) Refreshed(in []Input) {
	r.Inputs = in
	r.Refresh = &Refresh{At: r.Refresh.At, Count: r.Refresh.Count + 1}
}

// InputAt is the index of a file among what was read, -1 if it is not there. They are in
// about the order of the manifest, which may name thousands: the search begins at from.
func (r *Record) InputAt(from int, file string) int {
	for n := range r.Inputs {
		if i := (from + n) % len(r.Inputs); r.Inputs[i].File == file {
			return i
		}
	}
	return -1
}

// inherit takes over what is remembered of the container from the attempt before,
// which ended so; nothing that another spec has counted.
func (c *Container) inherit(old *Container, ended *Ending, sameSpec bool) {
	c.Restarts, c.LastExit = old.Restarts, old.LastExit
	if !sameSpec {
		return
	}
	c.Resumption = old.Resumption
	if !ended.TimeOver() { // a later until is a new wish: its author has seen how it ended
		c.Failures, c.CleanExits = old.Failures, old.CleanExits
	}
	if !ended.EndsTheRun() {
		c.Active = old.Active // no exit and no reboot gives it more time
	}
	if old.restartFollows(ended) {
		c.Restarts++
	}
}

// restartFollows says whether the next start, with the same spec, is a restart: the
// container ran, and ended by itself or because somebody asked for a restart. The
// start of another spec, after a suspension, of what never ran, or of what the end of
// a daemon cut short is none.
func (c *Container) restartFollows(ended *Ending) bool {
	if ended == nil || c.LastExit != nil && c.LastExit.Reason == ReasonCancelled {
		return false
	}
	switch ended.Reason {
	case ReasonSpecChanged, ReasonSuspended, ReasonExpired, ReasonManifestRemoved, ReasonInterrupted:
		return false
	}
	return true
}

// Spawned writes down the two processes, which wait at their gates. phase is what
// the record says once the gates are open.
func (r *Record) Spawned(phase Phase, sentry, gofer process.Identity) {
	r.Phase, r.Sentry, r.Gofer = phase, &sentry, &gofer
}

// Started says that the application was started.
func (r *Record) Started(now moment.Moment) {
	r.StartReaches("", now.Wall)
	r.Phase, r.App().StartedAt = PhaseRunning, now.Wall
	r.App().Active = r.App().Active.At(now)
}

// Failed says that a create failed, and that nothing of it is left. permanent says
// that trying the same spec again can't help.
func (r *Record) Failed(message string, permanent bool, now time.Time) {
	r.startFails(now)
	r.released()
	r.App().failed(Exit{Reason: ReasonCreateFailed, Message: message, At: now, Permanent: permanent})
}

func (c *Container) failed(x Exit) {
	c.Failures, c.CleanExits = c.Failures+1, 0
	c.LastExit = &x
}

// Cancelled says that a create was cancelled, and that nothing of it is left. It is
// no failure: the next plan follows from what is wanted now.
func (r *Record) Cancelled(reason string, now time.Time) {
	r.startFails(now)
	r.released()
	r.Ending = &Ending{Reason: reason}
	r.App().LastExit = &Exit{Reason: ReasonCancelled, Message: "its start was cancelled: " + reason, At: now}
}

// Stopping is the intent to tear down. A sandbox that is stopped stays so.
func (r *Record) Stopping(end *Ending) {
	if r.Phase != PhaseStopped {
		r.Phase, r.Ending = PhaseStopping, end
	}
}

// Outcome is what the launcher saw of the end of a run.
type Outcome struct {
	// Exit is the application's exit record, nil if it left none.
	Exit *Exit
	// OOM says that the kernel killed something in the sandbox because memory ran out.
	OOM bool
	// GraceExpired says that it was killed at the end of its grace period.
	GraceExpired bool
}

// Ended says that a sandbox was torn down: both processes are proven dead, and
// nothing but the record and the logs is left.
func (r *Record) Ended(end *Ending, seen Outcome, now moment.Moment) {
	r.released()
	r.Warnings = nil
	r.Ending = end
	r.App().ended(end, end.App(), seen, now)
}

// ended is Record.Ended of one container; of is what the order says of it.
func (c *Container) ended(end *Ending, of ContainerEnding, seen Outcome, now moment.Moment) {
	c.Failures, c.CleanExits, c.Completed = of.Failures, of.CleanExits, of.Completed
	c.LastExit = end.exit(of.Exit, seen, now.Wall)
	c.Active = c.Active.Counted(now)
	if c.Completed {
		// The end may have been seen late. When it was may be the word of a sentry.
		late := now.Wall.Sub(c.LastExit.At)
		if late < 0 || c.LastExit.At.Before(c.StartedAt) {
			late = 0
		}
		c.Finished = new(now.Minus(late))
	}
}

// Retire says that nothing else is left of a sandbox that has finished. Its addresses are
// free again.
func (r *Record) Retire() { r.Retired, r.Attachments, r.Inputs = true, nil, nil }

// exit is how the run of a container ended: as the planner knew, or else as the
// application said of its stop.
func (e *Ending) exit(known *Exit, seen Outcome, now time.Time) *Exit {
	exit := Exit{Reason: e.Reason, At: now}
	switch {
	case known != nil:
		exit = *known
	case seen.Exit != nil:
		exit = *seen.Exit
		if e.TimeOver() {
			exit.Reason, exit.Message = e.Reason, "" // what it made of the stop is its code
		}
	case seen.GraceExpired:
		exit.Message = fmt.Sprintf("killed: it did not end within %s of %s, its terminationGracePeriod", e.Grace, e.StopSignal)
	}
	if seen.OOM && !exit.Known {
		exit = OOMKilled(exit.At)
	}
	return &exit
}

// OOMKilled is the end of a sandbox that the kernel killed because memory ran out. It
// kills the whole sandbox, by SIGKILL.
func OOMKilled(at time.Time) Exit {
	return Exit{
		Known: true, Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL), At: at, Reason: ReasonOOMKilled,
		Message: "the sandbox used more memory than its limit: resources.memory, or the default of the host policy",
	}
}

// released says that nothing is left of a sandbox on the host.
func (r *Record) released() {
	r.Phase = PhaseStopped
	r.Sentry, r.Gofer, r.Cgroups, r.Network, r.Files, r.OnDisk = nil, nil, nil, nil, nil, nil
	r.CNI, r.MoreCNI, r.Refresh, r.SetupFile = nil, nil, nil, false
}

// CutShort says whether the last create on record is not over: it is under way, or has to be
// done again.
func (r *Record) CutShort() bool {
	switch r.Phase {
	case PhaseCreating, PhaseCreated, PhaseStarting:
		return true
	case PhaseStopping, PhaseStopped:
		return r.Ending != nil && r.Ending.Reason == ReasonInterrupted
	case PhaseRunning:
	}
	return false
}
