// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/sharing"
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
	// `spec.until` is over.
	PhaseExpired = "Expired"
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
	PhaseSuspended, PhaseExpired, PhaseRemoving, PhaseQuarantined, PhaseInvalid, PhaseUnknown,
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
	// When its time is over, by the clock now; missing if it is not bounded, or over.
	EndsAt time.Time `json:"endsAt,omitzero"`
	// Why: `DeadlineExceeded` or `Expired`.
	EndsReason string `json:"endsReason,omitempty"`
	// When what has finished is given up, because of `spec.ttlAfterFinished`.
	RetiresAt time.Time `json:"retiresAt,omitzero"`
	// That was done: only its record is left.
	Retired bool `json:"retired,omitempty"`
	// How long the phases of its last start took.
	Start *actual.Start `json:"start,omitempty"`
	// How volumes with `onChange: signal` were given new files since its start.
	Refresh *actual.Refresh `json:"refresh,omitempty"`
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
	// The image that it was started from last.
	Image *actual.Image `json:"image,omitempty"`
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

// Statuses describes an input and its plan, for every name that is wanted, on
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
	for name, warnings := range sharing.Writes(in.Desired) {
		if i, found := slices.BinarySearchFunc(out, name, func(s Status, name string) int { return cmp.Compare(s.Name, name) }); found {
			out[i].Warnings = append(slices.Clip(out[i].Warnings), warnings...)
		}
	}
	return out
}

// Summarize describes the whole.
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
	s.Converged = settled && len(plan.Actions) == 0 && len(plan.Delayed) == 0 && len(plan.Volumes)+len(plan.VolumesLater)+len(plan.PoolsWait) == 0 && len(in.Operations) == 0 && plan.Guard == nil &&
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
		if !desired.ValidName(p.Name) && p.Name != "" {
			continue // of a document that is no sandbox; those that need it wait, and say so
		}
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
