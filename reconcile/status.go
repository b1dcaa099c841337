// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// The comments of phases, conditions and the fields below are tables of
// docs/reference/status.md: write it with `make reference`.

// Phases, one word for a table. Conditions tell the rest.
const (
	// It is wanted, and its start has not begun.
	PhasePending = "Pending"
	// It is being started.
	PhaseCreating = "Creating"
	// Sentry and gofer are alive.
	PhaseRunning = "Running"
	// It is being stopped, or it is dead and not yet cleaned up.
	PhaseStopping = "Stopping"
	// It waits after a failure; `describe` says how long.
	PhaseCrashLoopBackOff = "CrashLoopBackOff"
	// It ended with exit code 0 and waits for its next start, which `restartPolicy: Always`
	// wants. This is not a failure.
	PhaseRestarting = "Restarting"
	// It ran to its end, with exit code 0.
	PhaseCompleted = "Completed"
	// It ran to its end with another exit code, or can't be started.
	PhaseFailed = "Failed"
	// `spec.suspend` is set.
	PhaseSuspended = "Suspended"
	// Its manifest is gone, and so will the sandbox be.
	PhaseRemoving = "Removing"
	// Its record can't be acted on; what runs is left running.
	PhaseQuarantined = "Quarantined"
	// Its manifest has never been valid.
	PhaseInvalid = "Invalid"
	// One of its processes is neither proven alive nor proven dead; nothing is done.
	PhaseUnknown = "Unknown"
)

// Phases are all of them.
var Phases = []string{
	PhasePending, PhaseCreating, PhaseRunning, PhaseStopping, PhaseCrashLoopBackOff, PhaseRestarting, PhaseCompleted, PhaseFailed,
	PhaseSuspended, PhaseRemoving, PhaseQuarantined, PhaseInvalid, PhaseUnknown,
}

// Condition types.
const (
	// It runs what its manifest says.
	CondReady = "Ready"
	// Something is being done, or will be soon.
	CondReconciling = "Reconciling"
	// Nothing will be done without somebody's help; the message says what helps.
	CondStalled = "Stalled"
	// Its manifest in the directory can be read, and the host policy allows it.
	CondManifestValid = "ManifestValid"
	// `spec.resources` are in force.
	CondResourcesEnforced = "ResourcesEnforced"
)

// Values of Condition.Status.
const (
	True  = "True"
	False = "False"
)

// Condition is one aspect of a status. Every type is always present, and its
// status flips: a condition is never left over.
type Condition struct {
	// One of the conditions.
	Type string `json:"type"`
	// `True` or `False`.
	Status string `json:"status"`
	// One of the reasons.
	Reason string `json:"reason"`
	// The reason in a sentence.
	Message string `json:"message,omitempty"`
	// Since when it has this status, as far as the record tells.
	LastTransitionTime time.Time `json:"lastTransitionTime,omitzero"`
}

// Status is what is shown of one sandbox.
type Status struct {
	// The name of the sandbox.
	Name string `json:"name"`
	// Its id; a sandbox that was removed and created again has another one.
	UID string `json:"uid,omitempty"`
	// One of the phases.
	Phase string `json:"phase"`
	// Counts the changes of the manifest.
	Generation int64 `json:"generation,omitempty"`
	// The generation of what runs or ran last. It differs from `generation` while a change
	// is carried out.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// One object for each condition.
	Conditions []Condition `json:"conditions"`
	// How often it was started again after its application had ended.
	RestartCount int64 `json:"restartCount"`
	// How many failures in a row there were.
	Failures int `json:"failures,omitempty"`
	// When the next start is tried.
	NextRetry time.Time `json:"nextRetry,omitzero"`
	// How the last run ended.
	LastTermination *actual.Exit `json:"lastTermination,omitempty"`
	// The process id of the sentry.
	SentryPID int `json:"sentryPID,omitempty"`
	// The process id of the gofer.
	GoferPID int `json:"goferPID,omitempty"`
	// When its record was made.
	CreatedAt time.Time `json:"createdAt,omitzero"`
	// When what runs was started.
	StartedAt time.Time `json:"startedAt,omitzero"`
	// How long the phases of its last start took.
	Start *actual.Start `json:"start,omitempty"`
	// The file of its manifest.
	SourceFile string `json:"sourceFile,omitempty"`
	// The line where its manifest begins.
	SourceLine int `json:"sourceLine,omitempty"`
	// The hash of the fields whose change restarts it.
	SpecHash string `json:"specHash,omitempty"`
	// The version of the sentry that it runs on.
	Runtime string `json:"runtime,omitempty"`
	// Whether process 1 of the sandbox is an init process, or why not.
	Init string `json:"init,omitempty"`
	// One object for each of its containers, which is one: `app`. Its fields that the status
	// has too say the same.
	Containers []ContainerStatus `json:"containers,omitempty"`
	// What is wrong with its manifest.
	Problems []desired.Problem `json:"problems,omitempty"`
	// Recorded warnings.
	Warnings []actual.Warning `json:"warnings,omitempty"`
	// Counts its starts, failed ones included.
	Attempt int64 `json:"attempt,omitempty"`
}

// Condition returns the condition of a type.
func (s *Status) Condition(typ string) *Condition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == typ {
			return &s.Conditions[i]
		}
	}
	return nil
}

// Summary is the state of the whole directory.
type Summary struct {
	// Everything is as the manifests say, and all of them can be read.
	Converged bool `json:"converged"`
	// How many sandboxes there are.
	Sandboxes int `json:"sandboxes"`
	// How many of them are ready.
	Ready int `json:"ready"`
	// The manifests directory can be relied on.
	Complete bool `json:"complete"`
	// Why it can't.
	Reason string `json:"reason,omitempty"`
	// The reason in a sentence.
	Message string `json:"message,omitempty"`
	// Removals that wait for approval.
	Guard *Guard `json:"guard,omitempty"`
	// What is not done because the disk of the state is short of room.
	DiskPressure string `json:"diskPressure,omitempty"`
	// What is wrong with files and with the directory.
	Problems []desired.Problem `json:"problems,omitempty"`
}

// Statuses words an input and its plan, for every name that is wanted, on
// record, or named by a problem; sorted by name.
func Statuses(in Input, plan Plan) []Status {
	v := &view{in: &in, plan: &plan, actions: map[string]*Action{}, delayed: map[string]*Delayed{}, problems: map[string][]desired.Problem{}, guarded: map[string]bool{}}
	for i := range plan.Actions {
		v.actions[plan.Actions[i].Name] = &plan.Actions[i]
	}
	for i := range plan.Delayed {
		v.actions[plan.Delayed[i].Name] = &plan.Delayed[i].Action
		v.delayed[plan.Delayed[i].Name] = &plan.Delayed[i]
	}
	if plan.Guard != nil {
		for _, n := range plan.Guard.Names {
			v.guarded[n] = true
		}
	}
	v.assignProblems()
	var out []Status
	seen := map[string]bool{}
	add := func(s Status) {
		seen[s.Name] = true
		out = append(out, s)
	}
	for i := range in.Actual.Sandboxes {
		o := &in.Actual.Sandboxes[i]
		add(v.recorded(o, in.Desired.Lookup(o.Record.Name)))
	}
	for _, h := range in.Actual.Quarantined {
		if !seen[h.Name] {
			add(v.quarantined(h, in.Desired.Lookup(h.Name)))
		}
	}
	for i := range in.Desired.Entries {
		if e := &in.Desired.Entries[i]; !seen[e.Sandbox.Metadata.Name] {
			add(v.pending(e))
		}
	}
	for name, ps := range v.problems {
		if !seen[name] {
			add(v.invalid(name, ps))
		}
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Summarize words the whole.
func Summarize(in Input, plan Plan, statuses []Status) Summary {
	s := Summary{
		Sandboxes: len(statuses), Complete: in.Desired.Complete, Reason: in.Desired.Reason, Message: in.Desired.Message,
		Guard: plan.Guard, DiskPressure: in.Actual.DiskPressure, Problems: in.Desired.Problems,
	}
	settled := true
	for i := range statuses {
		st := &statuses[i]
		if st.Condition(CondReady).Status == True {
			s.Ready++
		}
		if st.Condition(CondReconciling).Status == True || st.Condition(CondStalled).Status == True {
			settled = false
		}
	}
	s.Converged = settled && len(plan.Actions) == 0 && len(plan.Delayed) == 0 && len(in.Operations) == 0 && plan.Guard == nil &&
		in.Desired.Complete && len(in.Desired.Problems) == 0
	return s
}

// view holds what wording needs.
type view struct {
	in       *Input
	plan     *Plan
	actions  map[string]*Action // with those that are delayed
	delayed  map[string]*Delayed
	problems map[string][]desired.Problem
	guarded  map[string]bool
}

// assignProblems finds out which sandbox each problem is about: the one it
// names, or those whose manifest was that file.
func (v *view) assignProblems() {
	byFile := map[string][]string{}
	for i := range v.in.Actual.Sandboxes {
		r := v.in.Actual.Sandboxes[i].Record
		byFile[r.SourceFile] = append(byFile[r.SourceFile], r.Name)
	}
	for _, p := range v.in.Desired.Problems {
		if p.Name != "" {
			v.problems[p.Name] = append(v.problems[p.Name], p)
			continue
		}
		for file, names := range byFile {
			if file != p.File && !strings.HasPrefix(file, p.File+"/") {
				continue // neither that file nor one below that directory
			}
			for _, n := range names {
				if v.in.Desired.Lookup(n) == nil {
					v.problems[n] = append(v.problems[n], p)
				}
			}
		}
	}
}

// recorded words a sandbox that has a record.
func (v *view) recorded(o *actual.Observed, e *desired.Entry) Status {
	r := o.Record
	s := Status{
		Name: r.Name, UID: r.UID, Generation: r.Generation, ObservedGeneration: r.Generation, RestartCount: r.App().Restarts,
		Failures: r.App().Failures, LastTermination: r.App().LastExit, CreatedAt: r.CreatedAt, StartedAt: r.App().StartedAt,
		Start: r.Start, SourceFile: r.SourceFile, SpecHash: r.SpecHash, Runtime: r.Runtime(), Init: r.App().Init, Warnings: r.Warnings, Attempt: r.Attempt,
		Containers: containerStatuses(o), Problems: v.problems[r.Name],
	}
	if o.Sentry == actual.Alive {
		s.SentryPID = r.Sentry.PID
	}
	if o.Gofer == actual.Alive {
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
	if warn := networkGone(v.in, w, r); warn != nil {
		s.Warnings = append(slices.Clip(s.Warnings), *warn)
	}
	v.judge(&s, o, w)
	s.Conditions = append(s.Conditions, v.manifestCondition(r.Name, e, v.in.gone(r)), resourcesCondition(r, w))
	return s
}

// judge sets the phase and the first three conditions.
func (v *view) judge(s *Status, o *actual.Observed, w *desired.Entry) {
	r := o.Record
	a := v.actions[r.Name]
	ready := Condition{Type: CondReady, Status: False, LastTransitionTime: lastStop(r)}
	reconciling := Condition{Type: CondReconciling, Status: False, Reason: actual.ReasonConverged}
	stall := Condition{Type: CondStalled, Status: False, Reason: actual.ReasonConverged}
	doing := func(reason, msg string) {
		reconciling.Status, reconciling.Reason, reconciling.Message = True, reason, msg
	}
	stuck := func(reason, msg string) { stall.Status, stall.Reason, stall.Message = True, reason, msg }

	switch {
	case unknown(o):
		s.Phase = PhaseUnknown
		ready.Reason, ready.Message = actual.ReasonProcessUnknown, o.Why
		stuck(actual.ReasonProcessUnknown, "sandboxctl leaves it alone until this is resolved: "+o.Why)
	case w == nil && v.guarded[r.Name]:
		s.Phase = phaseOf(o)
		ready.Reason = s.Phase
		if r.Phase == actual.PhaseStopped {
			ready.Message = describeExit(r.App().LastExit)
		}
		stuck(actual.ReasonApprovalNeeded, v.plan.Guard.describe([]string{r.Name}))
	case w == nil && v.in.gone(r):
		s.Phase = PhaseRemoving
		ready.Reason, ready.Message = actual.ReasonManifestRemoved, stopTrouble(r)
		doing(actual.ReasonManifestRemoved, joined("it is being removed: its manifest is gone", ready.Message, v.waits(s)))
	case r.Phase == actual.PhaseRunning && o.Sentry == actual.Alive && o.Gofer == actual.Alive:
		s.Phase = PhaseRunning
		ready.Status, ready.Reason, ready.LastTransitionTime = True, actual.ReasonRunning, r.App().StartedAt
		if why := v.denied(r.Name); why != "" {
			stuck(desired.ReasonPolicyDenied, "it keeps running, and is not started again: "+why)
		}
		if a != nil {
			doing(a.Reason, joined("it will be restarted or stopped: "+a.Reason, v.waits(s)))
			if a.Reason == actual.ReasonSpecChanged {
				ready.Status, ready.Reason, ready.Message = False, actual.ReasonSpecChanged, "it runs what its manifest said before the last change"
			}
		}
	case r.Phase == actual.PhaseStopping || r.Phase == actual.PhaseRunning:
		s.Phase = PhaseStopping
		ready.Reason = actual.ReasonStopping
		if a != nil {
			ready.Message = a.Ending.Reason
		} else if r.Ending != nil {
			ready.Message = r.Ending.Reason
		}
		ready.Message = joined(ready.Message, stopTrouble(r))
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

// stopTrouble says what keeps a sandbox from being stopped, "" if nothing is known
// to.
func stopTrouble(r *actual.Record) string {
	for _, w := range r.Warnings {
		if w.Reason == actual.WarningStopFailed {
			return "that failed, and is tried again: " + w.Message
		}
	}
	return ""
}

// denied says why the policy keeps a sandbox that is on record as it is, "" if
// it does not. While its manifest counts, it does not.
func (v *view) denied(name string) string {
	if v.in.Desired.Lookup(name) != nil {
		return ""
	}
	return v.in.Denied[name]
}

// judgeStopped words a sandbox without processes.
func (v *view) judgeStopped(s *Status, r *actual.Record, w *desired.Entry, ready *Condition, doing, stuck func(reason, msg string)) {
	exit := describeExit(r.App().LastExit)
	switch {
	case w == nil:
		s.Phase = PhasePending
		ready.Reason, ready.Message = actual.ReasonManifestMissing, "its manifest is missing, and its record can't be used"
		stuck(actual.ReasonManifestMissing, ready.Message)
	case v.denied(r.Name) != "":
		s.Phase = PhaseFailed
		if succeeded(r) {
			s.Phase = PhaseCompleted
		}
		ready.Reason, ready.Message = desired.ReasonPolicyDenied, exit
		stuck(desired.ReasonPolicyDenied, "it is not started: "+v.denied(r.Name))
	case w.Sandbox.Spec.Suspend:
		s.Phase = PhaseSuspended
		ready.Reason, ready.Message = actual.ReasonSuspended, "spec.suspend is set"
	case v.delayed[r.Name] != nil && v.delayed[r.Name].Permanent:
		s.Phase = PhaseFailed
		ready.Reason, ready.Message = actual.ReasonCreateRefused, v.waits(s)
		stuck(ready.Reason, refused(s.Name, ready.Message))
	case v.delayed[r.Name] != nil && v.delayed[r.Name].Reason != actual.ReasonBackOff:
		s.Phase = PhasePending
		ready.Reason, ready.Message = v.delayed[r.Name].Reason, v.waits(s)
		doing(ready.Reason, ready.Message)
	case v.delayed[r.Name] == nil && v.actions[r.Name] != nil:
		s.Phase = PhasePending
		ready.Reason, ready.Message = actual.ReasonPending, exit
		doing(v.actions[r.Name].Reason, "")
	case r.App().Completed:
		s.Phase = PhaseFailed
		ready.Reason, ready.Message = actual.ReasonFailed, exit
		if succeeded(r) {
			s.Phase = PhaseCompleted
			ready.Reason = actual.ReasonCompleted
		}
	case stalled(w, r) != "":
		s.Phase = PhaseFailed
		ready.Reason, ready.Message = stalled(w, r), exit
		stuck(ready.Reason, fmt.Sprintf("%d failures in a row, the last: %s; change the manifest or call `sandboxctl restart %s`", r.App().Failures, exit, r.Name))
	case v.in.busy(r.Name):
		s.Phase = PhaseCreating
		ready.Reason = actual.ReasonStarting
		doing(actual.ReasonStarting, "")
	default:
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
}

// refused says what helps against a start that was refused.
func refused(name, why string) string {
	return why + "; change the manifest or call `sandboxctl restart " + name + "`"
}

// phaseOf words a sandbox whose removal waits for approval.
func phaseOf(o *actual.Observed) string {
	switch {
	case o.Sentry == actual.Alive && o.Gofer == actual.Alive:
		return PhaseRunning
	case succeeded(o.Record):
		return PhaseCompleted
	case o.Record.Phase == actual.PhaseStopped:
		return PhaseFailed
	}
	return PhaseStopping
}

// succeeded: it ran to its end, with exit code 0.
func succeeded(r *actual.Record) bool {
	return r.Phase == actual.PhaseStopped && r.App().Completed && r.App().LastExit != nil && r.App().LastExit.Known && r.App().LastExit.Code == 0
}

// lastStop is since when a sandbox that does not run does not.
func lastStop(r *actual.Record) time.Time {
	if r.App().LastExit != nil {
		return r.App().LastExit.At
	}
	return r.CreatedAt
}

func describeExit(x *actual.Exit) string {
	switch {
	case x == nil:
		return ""
	case x.Message != "":
		return x.Reason + ": " + x.Message
	}
	return x.Reason
}

// pending words a name that is wanted and not begun.
func (v *view) pending(e *desired.Entry) Status {
	name := e.Sandbox.Metadata.Name
	s := Status{Name: name, Phase: PhasePending, Generation: 1, SourceFile: e.Source.File, SourceLine: e.Source.Line, SpecHash: e.Hash, Problems: v.problems[name]}
	ready := Condition{Type: CondReady, Status: False, Reason: actual.ReasonPending}
	reconciling := Condition{Type: CondReconciling, Status: True, Reason: actual.ReasonNew}
	stall := Condition{Type: CondStalled, Status: False, Reason: actual.ReasonConverged}
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

// quarantined words a name whose record can't be acted on.
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

// invalid words a name that is known only from a manifest with problems.
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
