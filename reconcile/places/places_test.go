// SPDX-License-Identifier: Apache-2.0

package places

import (
	"maps"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/ownnotes"
)

// claim is the entry of a claim of a pool that allows two.
func claim(name, pool string) desired.Entry {
	return desired.Entry{
		Sandbox: &desired.Sandbox{Metadata: desired.Metadata{Name: name, Annotations: map[string]string{ownnotes.Pool: pool}}},
		Claim:   &desired.Claim{ClaimSpec: desired.ClaimSpec{Pool: pool}, From: pool, Max: 2},
	}
}

func record(name string, completed bool) actual.Observed {
	return actual.Observed{Record: &actual.Record{Name: name, Containers: []actual.Container{{Name: actual.AppName, Completed: completed}}}}
}

func none(string) bool { return false }

// Claims hold the places of their pool from the operation that creates on until they have finished,
// also while their manifests are away.
func TestPools(t *testing.T) {
	t.Parallel()
	want := &desired.Snapshot{Entries: []desired.Entry{claim("a", "p"), claim("b", "p"), claim("c", "p"), claim("d", "q")}}
	have := &actual.Snapshot{Sandboxes: []actual.Observed{record("b", false)}}
	p := Of(want, nil, have, none)
	for i, why := range []string{"", "", actual.ReasonPoolFull, ""} {
		reason, text := p.Waits(&want.Entries[i])
		if reason != why || (text != "") != (why != "") {
			t.Errorf("%s: %q %s", want.Entries[i].Sandbox.Metadata.Name, reason, text)
		}
		if why == "" {
			p.Take(&want.Entries[i])
		}
	}
	if p.Taken("p") != 2 || p.Taken("q") != 1 {
		t.Errorf("%d %d", p.Taken("p"), p.Taken("q"))
	}
	// Twice is once.
	p.Take(&want.Entries[0])
	if reason, _ := p.Waits(&want.Entries[0]); reason != "" || p.Taken("p") != 2 {
		t.Errorf("%s %d", reason, p.Taken("p"))
	}
	p.Take(nil)
	(*Pools)(nil).Take(&want.Entries[0])
	have = &actual.Snapshot{Sandboxes: []actual.Observed{record("a", true), record("b", false), record("z", false)}}
	gone := claim("z", "p")
	if n := Of(want, map[string]*desired.Entry{"z": &gone, "y": nil}, have, none).Taken("p"); n != 2 {
		t.Errorf("%d places are taken, expected those of b and z", n)
	}
	if n := Of(want, nil, &actual.Snapshot{Quarantined: []actual.Quarantined{{Name: "a"}}}, none).Taken("p"); n != 1 {
		t.Errorf("%d places are taken, expected that of a", n)
	}
	p = Of(want, nil, &actual.Snapshot{}, func(name string) bool { return name == "c" || name == "b" })
	if reason, _ := p.Waits(&want.Entries[0]); reason != actual.ReasonPoolFull {
		t.Errorf("a got the place of one that is being made: %q", reason)
	}
	missing := claim("e", "p")
	missing.Claim.Reason, missing.Claim.Why = actual.ReasonInputMissing, "it is not there"
	if reason, why := Of(want, nil, &actual.Snapshot{}, none).Waits(&missing); reason != actual.ReasonInputMissing || !strings.HasPrefix(why, "it is not there") {
		t.Errorf("%s %s", reason, why)
	}
}

// What lives has its place in the pool that it is of: not in the one that its claim says now, where
// it takes one, if there is one, when it is stopped to be made again. What is of no claim has none.
func TestMoved(t *testing.T) {
	t.Parallel()
	moved, plain, note := claim("c", "p"), claim("d", "p"), claim("e", "p")
	moved.Claim.From, plain.Claim.From, note.Claim = "q", "", nil
	want := &desired.Snapshot{Entries: []desired.Entry{claim("a", "p"), claim("b", "p"), moved, plain, note}}
	have := &actual.Snapshot{Sandboxes: []actual.Observed{record("a", false), record("b", false), record("c", false), record("d", false), record("e", false)}}
	p := Of(want, nil, have, none)
	if p.Taken("p") != 2 || p.Taken("q") != 1 {
		t.Errorf("%d of p and %d of q are taken", p.Taken("p"), p.Taken("q"))
	}
	for i, why := range []string{"", "", actual.ReasonPoolFull, actual.ReasonPoolFull} {
		if reason, _ := p.Waits(&want.Entries[i]); reason != why {
			t.Errorf("%s: %q", want.Entries[i].Sandbox.Metadata.Name, reason)
		}
	}
	have.Sandboxes[0] = record("a", true)
	p = Of(want, nil, have, func(name string) bool { return name == "c" })
	if p.Taken("p") != 2 || p.Taken("q") != 1 {
		t.Errorf("%d of p and %d of q are taken while c is stopped", p.Taken("p"), p.Taken("q"))
	}
}

// The host has room for as many as its policy says, with those that are about to be.
func TestHostFull(t *testing.T) {
	t.Parallel()
	have := &actual.Snapshot{Sandboxes: []actual.Observed{record("a", false)}, Quarantined: []actual.Quarantined{{Name: "q"}}}
	busy := maps.Keys(map[string]bool{"a": true, "new": true})
	for more, full := range []bool{false, true} {
		if HostFull(have, busy, more, 4) != full {
			t.Errorf("%d more: %v", more, !full)
		}
	}
	if HostFull(have, busy, 9, 0) || !OnRecord(have, "q") || !OnRecord(have, "a") || OnRecord(have, "new") || !Quarantined(have, "q") || Quarantined(have, "a") {
		t.Error("it is full without a limit, or what is on record is not")
	}
}
