// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"hash/fnv"
	"math"
	"strconv"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
)

// died says why a sandbox on record as running is not.
func died(o *actual.Observed, bootID string) string {
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

// ended is the order to clean up after a sandbox that has died, with what is
// to be remembered of its container.
func ended(e *desired.Entry, o *actual.Observed, in *Input) actual.Ending {
	reason := died(o, in.Actual.BootID)
	if reason == actual.ReasonHostRebooted {
		// Not its fault: started again at once, and counted for nothing.
		kept := keptCounters(o.Record)
		kept[0].Exit = &actual.Exit{Reason: reason, Message: "the host was rebooted", At: in.Now}
		return actual.Ending{Reason: reason, Containers: kept}
	}
	var x actual.Exit
	switch reason {
	case actual.ReasonExited:
		x = *o.Exit
	case actual.ReasonSentryKilled:
		x = actual.Exit{Reason: reason, Message: "the sentry was killed or crashed; the exit code is not known", At: in.Now}
	default:
		x = actual.Exit{Reason: reason, Message: "the gofer was killed or crashed; the sandbox lost its files", At: in.Now}
	}
	return actual.Ending{Reason: reason, Containers: []actual.ContainerEnding{containerEnded(&e.Sandbox.Spec, o.Record, o.Record.App(), x, in.Now)}}
}

// containerEnded is what is remembered of a container of the record that has ended.
func containerEnded(spec *desired.Spec, rec *actual.Record, c *actual.Container, x actual.Exit, now time.Time) actual.ContainerEnding {
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

// keptCounters are the endings of containers that neither failed nor ended well.
func keptCounters(rec *actual.Record) []actual.ContainerEnding {
	app := rec.App()
	return []actual.ContainerEnding{{Name: app.Name, Failures: app.Failures, CleanExits: app.CleanExits}}
}

// stalled says why a stopped sandbox that is wanted will not be started again
// by itself, or "".
func stalled(e *desired.Entry, rec *actual.Record) string {
	switch {
	case rec.App().LastExit != nil && rec.App().LastExit.Permanent:
		return actual.ReasonCreateRefused
	case e.Sandbox.Spec.Backoff.Limit > 0 && rec.App().Failures >= e.Sandbox.Spec.Backoff.Limit:
		return actual.ReasonBackoffLimitExceeded
	}
	return ""
}

// nextStart is when a stopped sandbox may be started.
func nextStart(e *desired.Entry, rec *actual.Record, floor time.Duration, now time.Time) time.Time {
	if rec.App().LastExit == nil || startReason(rec) != actual.ReasonBackOff {
		return now
	}
	delay := backoff(&e.Sandbox.Spec.Backoff, rec, floor)
	from := rec.App().LastExit.At
	if from.After(now.Add(delay)) {
		// The clock was set back by more than the delay. Nothing remembers since
		// when it has waited, and that clock may be years away: it starts now,
		// and what it does next is on record under this clock.
		return now
	}
	return from.Add(delay)
}

// startReason is why a stopped sandbox is started: only one that stopped by
// itself has a delay to wait for.
func startReason(rec *actual.Record) string {
	if rec.App().LastExit != nil && rec.App().LastExit.Reason == actual.ReasonCreateFailed {
		return actual.ReasonBackOff
	}
	if rec.Ending == nil {
		return actual.ReasonBackOff
	}
	switch rec.Ending.Reason {
	case actual.ReasonExited, actual.ReasonSentryKilled, actual.ReasonGoferDied:
		return actual.ReasonBackOff
	case actual.ReasonSuspended:
		return actual.ReasonResumed
	case actual.ReasonManifestRemoved:
		return actual.ReasonNew
	}
	return rec.Ending.Reason
}

// backoff is the delay after the given number of failures: initial, doubled
// for each further one, at most max, and spread by up to a tenth so that
// sandboxes that failed together do not come back together. The spread is
// derived from the name and the attempt: the same input gives the same plan. It is
// never below the floor, which is the administrator's: an author who wants no delay
// must not have a sandbox that ends at once take all of the host.
func backoff(b *desired.Backoff, rec *actual.Record, floor time.Duration) time.Duration {
	// One of the two is 0: an end of one kind ends the row of the other.
	times := rec.App().Failures + rec.App().CleanExits
	if times <= 0 {
		return 0
	}
	initial, most := float64(*b.Initial), float64(*b.Max)
	delay := min(initial*math.Pow(2, float64(min(times-1, 62))), most)
	h := fnv.New64a()
	h.Write([]byte(rec.Name))
	h.Write(strconv.AppendInt(nil, rec.Attempt, 10))
	spread := float64(h.Sum64()%2001)/1000 - 1 // -1 to 1
	return max(time.Duration(delay*(1+0.1*spread)), time.Duration(float64(floor)*(1+0.05*(1+spread))))
}
