// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/endings"
	"sandboxctl.dev/reconcile/lifetime"
)

// end is the end of the time of a sandbox, see lifetime.Of. rec is nil of one without a record.
func (in *Input) end(e *desired.Entry, rec *actual.Record) lifetime.End {
	return lifetime.Of(&e.Sandbox.Spec.Lifetime, rec, rec != nil && rec.Phase == actual.PhaseStopped && in.again(e, rec), in.moment())
}

// again says whether the next start of a sandbox begins another run: for somebody has changed its
// spec, or asked for it.
func (in *Input) again(e *desired.Entry, rec *actual.Record) bool {
	return in.restartWanted(rec) || !sameSpec(rec, e)
}

// stale says whether the manifest of a sandbox does not count, and what is known of it is that of
// its last start. Its lifetime may have been another one since: nothing that can't be undone
// follows from it.
func (in *Input) stale(name string) bool { return in.LastGood[name] != nil }

func (in *Input) moment() moment.Moment {
	return moment.Moment{Wall: in.Now, Boot: in.Boot, BootID: in.Actual.BootID}
}

// over says whether the time of a sandbox on record is over, and plans what follows from
// that. It goes before all that would start or replace the sandbox.
func (c *computation) over(e *desired.Entry, rec *actual.Record) bool {
	end := c.in.end(e, rec)
	switch {
	case end.Over && c.in.stale(rec.Name):
		// It is not stopped for good by a typo. What does not run waits until the manifest
		// counts, or somebody asks for a restart.
		return rec.Phase == actual.PhaseStopped && !c.in.restartWanted(rec)
	case end.Over && rec.Phase == actual.PhaseStopped && rec.App().Completed:
		c.retire(e, rec)
	case end.Over:
		order := end.Stop(c.stop(e, rec, end.Reason), rec, endings.Kept(rec)[0], endings.Stalled(e, rec) != "", c.in.Now)
		c.add(Action{Op: OpDestroy, Name: rec.Name, Reason: end.Reason, Ending: order})
	case end.Reason != "":
		c.wakeAt(end.At)
	}
	return end.Over
}

// expires says whether a start has lost its reason because until is over, and notes when it
// will.
func (c *computation) expires(e *desired.Entry) bool {
	end := c.in.end(e, nil)
	if !end.Over && end.Reason != "" {
		c.wakeAt(end.At)
	}
	return end.Over
}

// retires is when a sandbox that has finished is given up: not if its manifest does not count, or
// it is about to be started again.
func (in *Input) retires(e *desired.Entry, rec *actual.Record) lifetime.End {
	if in.stale(rec.Name) || in.again(e, rec) && !e.Sandbox.Spec.Suspend && !in.end(e, rec).Over {
		return lifetime.End{}
	}
	return lifetime.Retire(&e.Sandbox.Spec.Lifetime, rec, in.moment())
}

// retire gives up what has finished long enough ago.
func (c *computation) retire(e *desired.Entry, rec *actual.Record) {
	switch end := c.in.retires(e, rec); {
	case end.Over:
		c.add(Action{Op: OpForget, Name: rec.Name, Reason: end.Reason, Retire: true, Approved: true})
	case end.Reason != "":
		c.wakeAt(end.At)
	}
}

// expired is the until that keeps a sandbox from being started, zero if none does. One that has
// finished before has not been ended by it.
func (v *view) expired(e *desired.Entry, rec *actual.Record) time.Time {
	if rec != nil && rec.App().Completed {
		switch {
		case !lifetime.Expired(rec):
			return time.Time{}
		case v.in.stale(rec.Name):
			return rec.Ending.Until // whatever its manifest said at its last start
		}
	}
	if end := v.in.end(e, rec); end.Over && end.Reason == actual.ReasonExpired {
		return end.At
	}
	return time.Time{}
}

// lifetime says until when a sandbox runs, or is kept.
func (v *view) lifetime(s *Status, o *actual.Observed, w *desired.Entry) {
	s.Retired = o.Record.Retired
	if w == nil || Unknown(o) || v.in.stale(s.Name) {
		return
	}
	if end := v.in.end(w, o.Record); !end.Over && s.Phase != PhaseSuspended && !o.Record.App().Completed {
		s.EndsAt, s.EndsReason = end.Shown, end.Reason
	}
	s.RetiresAt = v.in.retires(w, o.Record).Shown
}
