// SPDX-License-Identifier: Apache-2.0

// Package endings says how the run of a sandbox has ended, what is remembered of its
// container, and whether it keeps the sandbox from being started again. It is pure.
package endings

import (
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
)

// Died says why a sandbox on record as running is not.
func Died(o *actual.Observed, bootID string) string {
	switch {
	case o.Record.BootID != bootID && (o.Exit == nil || o.Exit.Killed() || o.Exit.HostSignaled):
		// A host that shuts down tells its processes to end before it kills them: a
		// service that then ends with exit code 0 has not completed.
		return actual.ReasonHostRebooted
	case o.Record.BootID != bootID:
		return actual.ReasonExited // before the host went down
	case o.Sentry == process.Dead && o.Gofer == process.Dead && !o.GoferExitedCleanly && (o.Exit == nil || o.Exit.Killed()):
		// A sentry that loses its gofer kills the application and ends.
		return actual.ReasonGoferDied
	case o.Exit != nil:
		return actual.ReasonExited
	case o.Sentry != process.Alive:
		return actual.ReasonSentryKilled
	}
	return actual.ReasonGoferDied
}

// Ended is the order to clean up after a sandbox that has died, with what is
// to be remembered of its container.
func Ended(e *desired.Entry, o *actual.Observed, bootID string, now time.Time) actual.Ending {
	reason := Died(o, bootID)
	if reason == actual.ReasonHostRebooted {
		// Not its fault: started again at once, and counted for nothing.
		kept := Kept(o.Record)
		kept[0].Exit = &actual.Exit{Reason: reason, Message: "the host was rebooted", At: now}
		return actual.Ending{Reason: reason, Containers: kept}
	}
	var x actual.Exit
	switch reason {
	case actual.ReasonExited:
		x = *o.Exit
	case actual.ReasonSentryKilled:
		x = actual.Exit{Reason: reason, Message: "the sentry was killed or crashed; the exit code is not known", At: now}
	default:
		x = actual.Exit{Reason: reason, Message: "the gofer was killed or crashed; the sandbox lost its files", At: now}
	}
	return actual.Ending{Reason: reason, Containers: []actual.ContainerEnding{Container(&e.Sandbox.Spec, o.Record, o.Record.App(), x, now)}}
}

// Container is what is remembered of a container of the record that has ended.
func Container(spec *desired.Spec, rec *actual.Record, c *actual.Container, x actual.Exit, now time.Time) actual.ContainerEnding {
	// The time is the sentry's word, or was taken under another clock.
	if x.At.After(now) || x.At.Before(c.StartedAt) {
		x.At = now
	}
	end := actual.ContainerEnding{Name: c.Name, Exit: &x}
	switch spec.RestartPolicy {
	case desired.RestartNever:
		end.Completed = true
	case desired.RestartOnFailure:
		end.Completed = x.Clean()
	}
	started := c.StartedAt
	if started.IsZero() {
		started = rec.CreatedAt
	}
	// A run that lasted is no sign of trouble, however it ended.
	lasted := x.At.Sub(started) >= time.Duration(*spec.Backoff.ResetAfter)
	switch {
	case x.Clean() && lasted:
		end.CleanExits = 1
	case x.Clean():
		end.CleanExits = c.CleanExits + 1
	case lasted:
		end.Failures = 1
	default:
		end.Failures = c.Failures + 1
	}
	return end
}

// Kept are the endings of containers that neither failed nor ended well.
func Kept(rec *actual.Record) []actual.ContainerEnding {
	app := rec.App()
	return []actual.ContainerEnding{{Name: app.Name, Failures: app.Failures, CleanExits: app.CleanExits}}
}

// Stalled says why a stopped sandbox that is wanted will not be started again
// by itself, or "".
func Stalled(e *desired.Entry, rec *actual.Record) string {
	switch {
	case rec.App().LastExit != nil && rec.App().LastExit.Permanent:
		return actual.ReasonCreateRefused
	case e.Sandbox.Spec.Backoff.Limit > 0 && rec.App().Failures >= e.Sandbox.Spec.Backoff.Limit:
		return actual.ReasonBackoffLimitExceeded
	}
	return ""
}
