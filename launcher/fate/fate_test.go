// SPDX-License-Identifier: Apache-2.0

package fate

import (
	"testing"

	"sandboxctl.dev/actual"
)

// What a later record says of the end of a run, and when there is no use in waiting
// for more.
func TestFate(t *testing.T) {
	t.Parallel()
	run := &actual.Record{UID: "u", Attempt: 3, Phase: actual.PhaseRunning, Containers: []actual.Container{{Name: actual.AppName, LastExit: &actual.Exit{Reason: "before"}}}}
	later := func(f func(r *actual.Record)) *actual.Record {
		r := run.Clone()
		f(r)
		return r
	}
	died := &actual.Exit{Reason: actual.ReasonSentryKilled}
	for name, c := range map[string]struct {
		now    *actual.Record
		reason string
		known  bool
	}{
		"nothing yet": {run, "", false},
		"stopping after its end": {later(func(r *actual.Record) {
			r.Phase, r.Ending = actual.PhaseStopping, &actual.Ending{Reason: actual.ReasonSentryKilled, Containers: []actual.ContainerEnding{{Name: actual.AppName, Exit: died}}}
		}), "", false},
		"stopped on purpose": {later(func(r *actual.Record) {
			r.Phase, r.Ending = actual.PhaseStopping, &actual.Ending{Reason: actual.ReasonSpecChanged}
		}), actual.ReasonSpecChanged, true},
		"stopped":             {later(func(r *actual.Record) { r.Phase, r.App().LastExit = actual.PhaseStopped, died }), actual.ReasonSentryKilled, true},
		"started again":       {later(func(r *actual.Record) { r.Attempt, r.App().LastExit = 4, died }), actual.ReasonSentryKilled, true},
		"ended again":         {later(func(r *actual.Record) { r.Attempt, r.Phase = 4, actual.PhaseStopped }), "", true},
		"twice started again": {later(func(r *actual.Record) { r.Attempt = 5 }), "", true},
		"deleted":             {nil, actual.ReasonManifestRemoved, true},
		"another of its name": {later(func(r *actual.Record) { r.UID = "v" }), actual.ReasonManifestRemoved, true},
	} {
		exit, known := told(run, c.now)
		reason := ""
		if exit != nil {
			reason = exit.Reason
		}
		if reason != c.reason || known != c.known {
			t.Errorf("%s: %q %v, expected %q %v", name, reason, known, c.reason, c.known)
		}
	}
}
