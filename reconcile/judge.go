// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/attached"
	"sandboxctl.dev/reconcile/endings"
	"sandboxctl.dev/reconcile/namespaces"
	"sandboxctl.dev/reconcile/needs"
	"sandboxctl.dev/reconcile/pulling"
)

// recorded describes a sandbox that has a record.
func (v *view) recorded(o *actual.Observed, e *desired.Entry) Status {
	r := o.Record
	s := Status{
		Name: r.Name, UID: r.UID, Generation: r.Generation, ObservedGeneration: r.Generation, RestartCount: r.App().Restarts,
		Failures: r.App().Failures, LastTermination: r.App().LastExit, CreatedAt: r.CreatedAt, StartedAt: r.App().StartedAt,
		Start: r.Start, Refresh: r.Refresh, SourceFile: r.SourceFile, SpecHash: r.SpecHash, Runtime: r.Runtime(), Init: r.App().Init, Image: r.App().Image, Warnings: r.Warnings, Attempt: r.Attempt,
		Containers: containerStatuses(o), Problems: v.problems[r.Name],
	}
	if o.Sentry == process.Alive {
		s.SentryPID = r.Sentry.PID
	}
	if o.Gofer == process.Alive {
		s.GoferPID = r.Gofer.PID
	}
	if e != nil {
		s.SourceFile, s.SourceLine = e.Source.File, e.Source.Line
		if !sameSpec(r, e) {
			s.Generation++
		}
	}
	w := e
	if w == nil && !v.in.gone(r) {
		w = v.in.LastGood[r.Name]
	}
	if warn := namespaces.Gone(v.in.Networks, w, r); warn != nil {
		s.Warnings = append(slices.Clip(s.Warnings), *warn)
	}
	s.Warnings = attached.Warn(s.Warnings, v.in.Desired, v.in.Lacks, r)
	if warn := pulling.Moved(v.in.Images, w, r, recordedImage(r, w)); warn != nil {
		s.Warnings = append(slices.Clip(s.Warnings), *warn)
	}
	if e != nil && e.Claim != nil && e.Claim.Why != "" && r.Phase == actual.PhaseRunning {
		s.Warnings = append(slices.Clip(s.Warnings), actual.Warning{Reason: e.Claim.Reason, Message: e.Claim.Why + "; it keeps what it was started with"})
	}
	if warn := needs.Gone(w, r, v.in.Files); warn != nil {
		s.Warnings = append(slices.Clip(s.Warnings), *warn)
	}
	v.judge(&s, o, w)
	v.lifetime(&s, o, w)
	s.Conditions = append(s.Conditions, v.manifestCondition(r.Name, e, v.in.gone(r)), resourcesCondition(r, w))
	return s
}

// judge sets the phase and the first three conditions.
func (v *view) judge(s *Status, o *actual.Observed, w *desired.Entry) {
	r := o.Record
	a := v.actions[r.Name]
	ready := Condition{Type: CondReady, Status: False, LastTransitionTime: endings.LastStop(r)}
	reconciling := Condition{Type: CondReconciling, Status: False, Reason: actual.ReasonConverged}
	stall := Condition{Type: CondStalled, Status: False, Reason: actual.ReasonConverged}
	doing := func(reason, msg string) {
		reconciling.Status, reconciling.Reason, reconciling.Message = True, reason, msg
	}
	stuck := func(reason, msg string) { stall.Status, stall.Reason, stall.Message = True, reason, msg }

	switch {
	case Unknown(o):
		s.Phase = PhaseUnknown
		ready.Reason, ready.Message = actual.ReasonProcessUnknown, o.Why
		stuck(actual.ReasonProcessUnknown, "sandboxctl leaves it alone until this is resolved: "+o.Why)
	case w == nil && v.guarded[r.Name]:
		s.Phase = phaseOf(o)
		ready.Reason = s.Phase
		if r.Phase == actual.PhaseStopped {
			ready.Message = endings.Describe(r.App().LastExit)
		}
		stuck(actual.ReasonApprovalNeeded, v.plan.Guard.describe([]string{r.Name}))
	case w == nil && v.in.gone(r):
		s.Phase = PhaseRemoving
		ready.Reason, ready.Message = actual.ReasonManifestRemoved, endings.StopTrouble(r)
		doing(actual.ReasonManifestRemoved, joined("it is being removed: its manifest is gone", ready.Message, v.waits(s)))
	case r.Phase == actual.PhaseRunning && o.Sentry == process.Alive && o.Gofer == process.Alive:
		s.Phase = PhaseRunning
		ready.Status, ready.Reason, ready.LastTransitionTime = True, actual.ReasonRunning, r.App().StartedAt
		if why := v.denied(r.Name); why != "" {
			stuck(desired.ReasonPolicyDenied, "it keeps running, and is not started again: "+why)
		}
		reason := v.changing(r, w)
		switch reason {
		case "":
		case actual.ReasonInputChanged:
			doing(reason, "its files are being replaced")
		default:
			doing(reason, "it is being stopped")
		}
		if a != nil {
			reason = a.Reason
			if a.Ending.Reason == actual.ReasonSpecChanged {
				reason = a.Ending.Reason
			}
			doing(a.Reason, joined("it will be "+become(a)+": "+a.Reason, v.waits(s)))
		}
		if reason == actual.ReasonSpecChanged {
			ready.Status, ready.Reason, ready.Message = False, reason, "it runs what its manifest said before the last change"
		}
	case r.Phase == actual.PhaseStopping || r.Phase == actual.PhaseRunning:
		s.Phase = PhaseStopping
		ready.Reason = actual.ReasonStopping
		if a != nil {
			ready.Message = a.Ending.Reason
		} else if r.Ending != nil {
			ready.Message = r.Ending.Reason
		}
		ready.Message = joined(ready.Message, endings.StopTrouble(r))
		doing(actual.ReasonStopping, joined(ready.Message, v.waits(s)))
	case r.Phase != actual.PhaseStopped:
		s.Phase = PhaseCreating
		ready.Reason = actual.ReasonStarting
		doing(actual.ReasonStarting, v.waits(s))
	default:
		v.judgeStopped(s, r, w, &ready, doing, stuck)
	}
	s.Conditions = append(s.Conditions, ready, reconciling, stall)
}

// changing says why an operation under way stops or changes a sandbox that is still on record
// as running, "" if none does. The planner has no action for it: who waits for a change must
// not take what runs until the first record of the stop for what is wanted.
func (v *view) changing(r *actual.Record, w *desired.Entry) string {
	op, busy := v.in.Operations[r.Name]
	switch {
	case !busy:
		return ""
	case w != nil && !sameSpec(r, w):
		return actual.ReasonSpecChanged
	case op.Op == OpDestroy:
		return actual.ReasonStopping
	case op.Op == OpRefresh:
		return actual.ReasonInputChanged
	}
	return ""
}

// become says what an action makes of a sandbox that runs.
func become(a *Action) string {
	switch {
	case a.Op == OpRefresh:
		return "given new files"
	case a.Reason == actual.ReasonSuspended, a.Ending.TimeOver():
		return "stopped"
	case a.Ending.Replace:
		return "restarted"
	}
	return "restarted or stopped"
}

// waits says what the next operation on a sandbox waits for, "" if for nothing, and
// notes until when.
func (v *view) waits(s *Status) string {
	d := v.delayed[s.Name]
	if d == nil {
		return ""
	}
	s.NextRetry = d.Until
	return d.Describe(v.in.Now)
}

// joined makes one message of those that are not empty.
func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}

// denied says why the policy keeps a sandbox that is on record as it is, "" if
// it does not. While its manifest counts, it does not.
func (v *view) denied(name string) string {
	if v.in.Desired.Lookup(name) != nil {
		return ""
	}
	return v.in.Denied[name]
}

// judgeStopped describes a sandbox without processes.
func (v *view) judgeStopped(s *Status, r *actual.Record, w *desired.Entry, ready *Condition, doing, stuck func(reason, msg string)) {
	exit := endings.Describe(r.App().LastExit)
	switch {
	case w == nil:
		s.Phase = PhasePending
		ready.Reason, ready.Message = actual.ReasonManifestMissing, "its manifest is missing, and its record can't be used"
		stuck(actual.ReasonManifestMissing, ready.Message)
	case v.denied(r.Name) != "":
		s.Phase = PhaseFailed
		if endings.Succeeded(r) {
			s.Phase = PhaseCompleted
		}
		ready.Reason, ready.Message = desired.ReasonPolicyDenied, exit
		stuck(desired.ReasonPolicyDenied, "it is not started: "+v.denied(r.Name))
	case w.Sandbox.Spec.Suspend:
		s.Phase = PhaseSuspended
		ready.Reason, ready.Message = actual.ReasonSuspended, "spec.suspend is set"
	case !v.expired(w, r).IsZero():
		s.Phase = PhaseExpired
		ready.Reason, ready.Message = actual.ReasonExpired, joined("it is not started any more: until: "+v.expired(w, r).Format(time.RFC3339), exit)
	case v.delayed[r.Name] != nil && v.delayed[r.Name].Permanent:
		s.Phase = PhaseFailed
		ready.Reason, ready.Message = actual.ReasonCreateRefused, v.waits(s)
		stuck(ready.Reason, refused(s.Name, ready.Message))
	case v.delayed[r.Name] != nil && v.delayed[r.Name].Reason != actual.ReasonBackOff && !v.delayed[r.Name].Retire:
		s.Phase = PhasePending
		ready.Reason, ready.Message = v.delayed[r.Name].Reason, v.waits(s)
		doing(ready.Reason, ready.Message)
	case v.delayed[r.Name] == nil && v.actions[r.Name] != nil && !v.actions[r.Name].Retire:
		s.Phase = PhasePending
		ready.Reason, ready.Message = actual.ReasonPending, exit
		doing(v.actions[r.Name].Reason, "")
	case v.in.busy(r.Name):
		s.Phase = PhaseCreating
		ready.Reason = actual.ReasonStarting
		doing(actual.ReasonStarting, "")
	case r.App().Completed:
		s.Phase = PhaseFailed
		ready.Reason, ready.Message = actual.ReasonFailed, exit
		switch {
		case endings.Succeeded(r):
			s.Phase, ready.Reason = PhaseCompleted, actual.ReasonCompleted
		case r.Ending.TimeOver():
			ready.Reason = r.Ending.Reason
		}
	case endings.Stalled(w, r) != "":
		s.Phase = PhaseFailed
		ready.Reason, ready.Message = endings.Stalled(w, r), exit
		stuck(ready.Reason, refused(r.Name, fmt.Sprintf("failure %d: %s", r.App().Failures, exit)))
	default:
		v.backsOff(s, r, ready, doing, exit)
	}
}

// backsOff describes a sandbox that has ended and is started again after a delay.
func (v *view) backsOff(s *Status, r *actual.Record, ready *Condition, doing func(reason, msg string), exit string) {
	s.Phase = PhaseCrashLoopBackOff
	why := ""
	if d := v.delayed[r.Name]; d != nil {
		s.NextRetry, why = d.Until, d.Why
	}
	ready.Reason, ready.Message = actual.ReasonBackOff, exit
	if r.App().LastExit != nil && r.App().LastExit.Reason == actual.ReasonCreateFailed {
		ready.Reason = actual.ReasonCreateFailed
	}
	start := "next start when its manifest can be read"
	if !s.NextRetry.IsZero() {
		start = "next start in " + s.NextRetry.Sub(v.in.Now).Round(time.Second/10).String()
	}
	if why != "" && ready.Reason != actual.ReasonCreateFailed { // which says it
		start += "; the last try failed: " + why
	}
	if r.App().Failures == 0 && r.App().CleanExits > 0 {
		s.Phase = PhaseRestarting
		doing(actual.ReasonBackOff, "it ended with exit code 0, which restartPolicy Always starts again; "+start)
		return
	}
	doing(actual.ReasonBackOff, fmt.Sprintf("failure %d; %s", r.App().Failures, start))
}

// refused says what helps against a start that was refused.
func refused(name, why string) string {
	return why + "; change the manifest or call `sandboxctl restart " + name + "`"
}

// phaseOf describes a sandbox whose removal waits for approval.
func phaseOf(o *actual.Observed) string {
	switch {
	case o.Sentry == process.Alive && o.Gofer == process.Alive:
		return PhaseRunning
	case endings.Succeeded(o.Record):
		return PhaseCompleted
	case o.Record.Phase == actual.PhaseStopped:
		return PhaseFailed
	}
	return PhaseStopping
}

// pending describes a name that is wanted and not begun.
func (v *view) pending(e *desired.Entry) Status {
	name := e.Sandbox.Metadata.Name
	s := Status{Name: name, Phase: PhasePending, Generation: 1, SourceFile: e.Source.File, SourceLine: e.Source.Line, SpecHash: e.Hash, Problems: v.problems[name]}
	ready := Condition{Type: CondReady, Status: False, Reason: actual.ReasonPending}
	reconciling := Condition{Type: CondReconciling, Status: True, Reason: actual.ReasonNew}
	stall := Condition{Type: CondStalled, Status: False, Reason: actual.ReasonConverged}
	if end := v.in.end(e, nil); !end.Over {
		s.EndsAt, s.EndsReason = end.Shown, end.Reason
	}
	if d := v.delayed[name]; d != nil {
		ready.Reason, ready.Message = d.Reason, v.waits(&s)
		reconciling.Reason, reconciling.Message = d.Reason, ready.Message
		if d.Permanent {
			s.Phase, ready.Reason = PhaseFailed, actual.ReasonCreateRefused
			reconciling = Condition{Type: CondReconciling, Status: False, Reason: actual.ReasonConverged}
			stall = Condition{Type: CondStalled, Status: True, Reason: actual.ReasonCreateRefused, Message: refused(name, ready.Message)}
		}
	}
	if v.actions[name] == nil && !v.in.busy(name) && tooMany(v.in, 0) {
		ready.Reason = desired.ReasonPolicyDenied
		reconciling.Status, reconciling.Reason = False, actual.ReasonConverged
		stall.Status, stall.Reason = True, desired.ReasonPolicyDenied
		stall.Message = fmt.Sprintf("the host policy (%s) allows at most %d sandboxes, and that many exist; remove one of them", v.in.Desired.Policy.Source(), v.in.Desired.Bounds().MaxSandboxes)
		ready.Message = stall.Message
	}
	if until := v.expired(e, nil); !until.IsZero() {
		s.Phase = PhaseExpired
		ready.Reason, ready.Message = actual.ReasonExpired, "it was not started: until: "+until.Format(time.RFC3339)
		reconciling.Status, reconciling.Reason = False, actual.ReasonConverged
	}
	if e.Sandbox.Spec.Suspend {
		s.Phase = PhaseSuspended
		ready.Reason, ready.Message = actual.ReasonSuspended, "spec.suspend is set"
		reconciling.Status, reconciling.Reason = False, actual.ReasonConverged
	}
	s.Conditions = []Condition{
		ready, reconciling, stall, v.manifestCondition(name, e, false), resourcesCondition(nil, e),
	}
	return s
}

// quarantined describes a name whose record can't be acted on.
func (v *view) quarantined(h actual.Quarantined, e *desired.Entry) Status {
	s := Status{Name: h.Name, Phase: PhaseQuarantined, Problems: v.problems[h.Name]}
	if e != nil {
		s.SourceFile, s.SourceLine = e.Source.File, e.Source.Line
	}
	msg := h.Reason + ": " + h.Message + "; what runs is left running and nothing is started"
	if h.Reason == actual.QuarantinedCorrupt || h.Reason == actual.QuarantinedUnreadable {
		msg += "; `sandboxctl repair " + h.Name + "` repairs it"
	}
	doing := Condition{Type: CondReconciling, Status: False, Reason: actual.ReasonConverged}
	if a := v.actions[h.Name]; a != nil || v.in.busy(h.Name) {
		doing.Status, doing.Reason = True, actual.ReasonRepairRequested
	}
	s.Conditions = []Condition{
		{Type: CondReady, Status: False, Reason: actual.ReasonRecordQuarantined, Message: msg},
		doing,
		{Type: CondStalled, Status: True, Reason: actual.ReasonRecordQuarantined, Message: msg},
		v.manifestCondition(h.Name, e, v.in.Desired.Complete), resourcesCondition(nil, e),
	}
	return s
}

// invalid describes a name that is known only from a manifest with problems.
func (v *view) invalid(name string, ps []desired.Problem) Status {
	return Status{
		Name: name, Phase: PhaseInvalid, SourceFile: ps[0].File, SourceLine: ps[0].Line, Problems: ps,
		Conditions: []Condition{
			{Type: CondReady, Status: False, Reason: problemReason(ps), Message: ps[0].Error()},
			{Type: CondReconciling, Status: False, Reason: actual.ReasonConverged},
			{Type: CondStalled, Status: True, Reason: problemReason(ps), Message: ps[0].Error()},
			v.manifestCondition(name, nil, false), resourcesCondition(nil, nil),
		},
	}
}

// problemReason tells a manifest that is wrong from one that only asks for what
// the host policy does not allow.
func problemReason(ps []desired.Problem) string {
	if slices.ContainsFunc(ps, func(p desired.Problem) bool { return p.Reason != desired.ReasonPolicyDenied }) {
		return actual.ReasonManifestInvalid
	}
	return desired.ReasonPolicyDenied
}

// manifestCondition describes the manifest of a name, e if it counts; gone says that
// its absence does.
func (v *view) manifestCondition(name string, e *desired.Entry, gone bool) Condition {
	c := Condition{Type: CondManifestValid, Status: True, Reason: actual.ReasonManifestValid}
	ps := v.problems[name]
	switch {
	case len(ps) > 0:
		c.Status, c.Reason, c.Message = False, problemReason(ps), ps[0].Error()
		if n := len(ps) - 1; n > 0 {
			c.Message += fmt.Sprintf(" (and %d more)", n)
		}
	case e == nil && gone:
		c.Status, c.Reason = False, actual.ReasonManifestMissing
	case e == nil && v.in.Desired.Complete:
		c.Status, c.Reason = False, actual.ReasonManifestMissing
		c.Message = "its file now has a document of the same name for another program; the sandbox keeps running: `sandboxctl delete " + name + "` removes it"
	case e == nil:
		c.Status, c.Reason, c.Message = False, actual.ReasonSourceIncomplete, v.in.Desired.Reason+": "+v.in.Desired.Message
	}
	return c
}

func resourcesCondition(r *actual.Record, e *desired.Entry) Condition {
	c := Condition{Type: CondResourcesEnforced, Status: True, Reason: actual.ReasonResourcesEnforced}
	if r != nil {
		for _, w := range r.Warnings {
			if w.Reason == actual.WarningResourceNotEnforced {
				c.Status, c.Reason, c.Message = False, actual.ReasonResourcesNotEnforced, w.Message
				return c
			}
		}
	}
	if e == nil || e.Sandbox.Spec.Resources == (desired.Resources{}) {
		c.Reason = actual.ReasonResourcesNotRequested
	}
	return c
}
