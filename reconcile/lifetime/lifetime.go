// SPDX-License-Identifier: Apache-2.0

// Package lifetime says when the time of a sandbox is over, and when one that has finished is
// given up: by its manifest, its record and the clocks. It is pure.
package lifetime

import (
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/desired/lifetime"
)

// End is the end of the time of a sandbox. The zero value is none.
type End struct {
	// Reason is ReasonDeadlineExceeded or ReasonExpired.
	Reason string
	// At is when it comes, by the wall clock of now. Shown is the same for people: it does
	// not change from one look to the next by what passes between two clocks.
	At, Shown time.Time
	// Over says that it has come.
	Over bool
}

// Of is the end of a sandbox; rec is nil if it has none. again says that its next start begins
// another run, for which the time that it has had does not count.
func Of(l *lifetime.Lifetime, rec *actual.Record, again bool, now moment.Moment) (end End) {
	if l.Until != nil {
		at := l.Until.Time
		// What has ended stays so when the clock is set back. That is on record.
		end = End{Reason: actual.ReasonExpired, At: at, Shown: at, Over: !now.Wall.Before(at) || rec != nil && Expired(rec) && rec.Ending.Until.Equal(at)}
	}
	if l.ActiveDeadline == nil || rec == nil || again || end.Over || rec.Phase == actual.PhaseStopped && (rec.App().Completed || rec.Ending.EndsTheRun()) {
		return end
	}
	active := rec.App().Active
	if active == nil {
		if rec.App().StartedAt.IsZero() {
			return end // its application has not been started
		}
		active = &moment.Active{From: moment.Moment{Wall: rec.App().StartedAt}} // by an earlier version
	}
	deadline := time.Duration(*l.ActiveDeadline)
	left := deadline - active.For(now)
	at := now.Wall.Add(left)
	if end.Reason == "" || at.Before(end.At) {
		end = End{Reason: actual.ReasonDeadlineExceeded, At: at, Shown: shown(at, active.From.Wall.Add(deadline-active.Earlier)), Over: left <= 0}
	}
	return end
}

// Expired says whether a sandbox has been stopped because its until was over.
func Expired(rec *actual.Record) bool {
	return rec.Phase == actual.PhaseStopped && rec.App().Completed && rec.Ending != nil && rec.Ending.Reason == actual.ReasonExpired
}

// Retire is when a sandbox that has finished is given up: zero if never, or if that was done.
func Retire(l *lifetime.Lifetime, rec *actual.Record, now moment.Moment) End {
	if l.TTLAfterFinished == nil || rec.Retired || rec.Phase != actual.PhaseStopped || !rec.App().Completed {
		return End{}
	}
	var from moment.Moment
	switch {
	case rec.App().Finished != nil:
		from = *rec.App().Finished
	case rec.App().LastExit != nil:
		from.Wall = rec.App().LastExit.At // by an earlier version
	}
	ttl := time.Duration(*l.TTLAfterFinished)
	left := ttl - now.Since(from)
	at := now.Wall.Add(left)
	return End{Reason: actual.ReasonTTLExpired, At: at, Shown: shown(at, from.Wall.Add(ttl)), Over: left <= 0}
}

// shown is what people are told of a moment: as it was on record, unless the clock has been
// set since.
func shown(at, recorded time.Time) time.Time {
	if at.Sub(recorded).Abs() < time.Second {
		return recorded.Round(0)
	}
	return at.Round(time.Second)
}

// Stop completes the order to stop a sandbox whose time is over: it is not started again.
// kept are the counters of its container; stalled says that it waited for nothing: why it failed
// is what its author has to know then.
func (e *End) Stop(order actual.Ending, rec *actual.Record, kept actual.ContainerEnding, stalled bool, now time.Time) actual.Ending {
	kept.Completed = true
	if e.Reason == actual.ReasonExpired {
		order.Until = e.At
	}
	if rec.Phase == actual.PhaseStopped {
		// How it ended is known. If it waited for its next start, why it is over is new.
		x := actual.Exit{}
		if last := rec.App().LastExit; last != nil {
			x = *last
		}
		if !stalled {
			x.Reason, x.Message, x.At, x.Permanent, x.PreconditionFailed = e.Reason, "its time was over while it waited for its next start", now, false, false
		}
		kept.Exit, order.Grace = &x, 0
	}
	order.Containers = []actual.ContainerEnding{kept}
	return order
}

// Suspended is the order that writes down a suspension which finds nothing running, as in a
// back-off: what follows it is another run, as after one that stops the sandbox. It is nil if
// there is none to write down. kept are the counters of its container.
func Suspended(rec *actual.Record, kept actual.ContainerEnding) *actual.Ending {
	app := rec.App()
	if app.Active == nil || app.Completed || rec.Ending.EndsTheRun() {
		return nil
	}
	if app.LastExit != nil { // the suspension says nothing about how it ended
		kept.Exit = new(*app.LastExit)
	}
	return &actual.Ending{Reason: actual.ReasonSuspended, Containers: []actual.ContainerEnding{kept}}
}
