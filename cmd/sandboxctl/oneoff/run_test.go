// SPDX-License-Identifier: Apache-2.0

package oneoff

import (
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// The command runs in no sandbox but that of its own manifest, and nobody waits for the end of
// another one.
func TestRun(t *testing.T) {
	t.Parallel()
	text, caller, err := (&Options{Name: "web"}).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	docs, problems := desired.Decode("web.yaml", text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	ours := docs[0].Entry()
	stranger := caller
	stranger.StartTime++
	for what, c := range map[string]struct {
		entries []desired.Entry
		caller  process.Identity
		record  bool
		refused string
	}{
		"our own":                 {[]desired.Entry{ours}, caller, true, ""},
		"that of another process": {[]desired.Entry{ours}, stranger, true, "by somebody else meanwhile"},
		"no manifest":             {nil, caller, true, "by somebody else meanwhile"},
		"no record":               {[]desired.Entry{ours}, caller, false, "it is Completed"},
	} {
		w := &world.World{In: reconcile.Input{Desired: &desired.Snapshot{Entries: c.entries, Complete: true}, Actual: &actual.Snapshot{}}}
		if c.record {
			w.In.Actual.Sandboxes = []actual.Observed{{Record: &actual.Record{Name: "web", UID: "u", Attempt: 3}}}
		}
		s := &reconcile.Status{Name: "web", Phase: reconcile.PhaseCompleted}
		r := &Run{Name: "web", Caller: c.caller}
		ready, err := r.Ready(w, "web", s)
		if ready != (c.refused == "") || (err == nil) != ready || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: ready %v, %v", what, ready, err)
		}
		if ready && r.Seen != (Incarnation{"u", 3}) {
			t.Errorf("%s: seen is %+v", what, r.Seen)
		}
		s.Conditions = []reconcile.Condition{{Type: reconcile.CondStalled, Status: reconcile.False}}
		done, err := GoneOrTaken(w, "web", s)
		if done != (c.entries != nil) || err != nil {
			t.Errorf("%s: the wait for its end is over: %v, %v", what, done, err)
		}
	}
}

// A name that a start has claimed, and that no record has yet, is not gone: run would return
// before its directory does.
func TestGoneOrTakenClaimed(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		claimed []string
		busy    string
		done    bool
	}{
		"nothing":                   {nil, "", true},
		"claimed, without a daemon": {[]string{"web"}, "", false},
		"being started":             {nil, "web", false},
		"another one is":            {[]string{"db"}, "db", true},
	} {
		w := &world.World{In: reconcile.Input{Desired: &desired.Snapshot{Complete: true}, Actual: &actual.Snapshot{Aborted: c.claimed}}}
		if c.busy != "" {
			w.In.Operations = map[string]reconcile.Operation{c.busy: {}}
		}
		if done, err := GoneOrTaken(w, "web", nil); done != c.done || err != nil {
			t.Errorf("%s: %v, %v", what, done, err)
		}
	}
}
