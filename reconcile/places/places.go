// SPDX-License-Identifier: Apache-2.0

// Package places says how many sandboxes there is room for: on the host, as its policy says, and in
// a pool. It is pure. Which ones get the room is a matter of who was first: nothing that is there
// makes place.
package places

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/ownnotes"
)

// HostFull says whether there is no room for one more sandbox beside those that are there, those
// that are about to be, and more. most is how many there may be, 0 for any number; busy are the
// names that have an operation.
func HostFull(have *actual.Snapshot, busy iter.Seq[string], more, most int) bool {
	if most == 0 {
		return false
	}
	n := len(have.Sandboxes) + len(have.Quarantined) + more
	for name := range busy {
		if !OnRecord(have, name) {
			n++
		}
	}
	return n >= most
}

// OnRecord says whether there is anything of a name.
func OnRecord(a *actual.Snapshot, name string) bool {
	return recordOf(a, name) != nil || Quarantined(a, name)
}

// Quarantined says whether the record of a name can't be acted on.
func Quarantined(a *actual.Snapshot, name string) bool {
	return slices.ContainsFunc(a.Quarantined, func(q actual.Quarantined) bool { return q.Name == name })
}

func recordOf(a *actual.Snapshot, name string) *actual.Record {
	i, found := slices.BinarySearchFunc(a.Sandboxes, name, func(o actual.Observed, name string) int { return cmp.Compare(o.Record.Name, name) })
	if !found {
		return nil
	}
	return a.Sandboxes[i].Record
}

// Pools counts the claims of each pool that have a place: a sandbox that has not finished, or one
// that is being made.
type Pools struct {
	holds map[place]bool
	taken map[string]int // by the name of the pool
}

// place is that of a sandbox in a pool.
type place struct{ sandbox, pool string }

// Of is what claims have by the manifests, those on record whose manifests the snapshot does not
// have, and the operations that start, also those that end what is there before.
func Of(want *desired.Snapshot, lastGood map[string]*desired.Entry, have *actual.Snapshot, starts func(name string) bool) *Pools {
	p := &Pools{holds: map[place]bool{}, taken: map[string]int{}}
	lives := func(name string) bool {
		rec := recordOf(have, name)
		return rec != nil && !rec.App().Completed
	}
	for i := range want.Entries {
		c, name := want.Entries[i].Claim, want.Entries[i].Sandbox.Metadata.Name
		if c == nil {
			continue
		}
		if lives(name) { // in the pool that it is of, whatever its claim says now
			p.add(place{name, c.From})
		}
		// Of one whose record can't be acted on it is not known whether it lives.
		if starts(name) || Quarantined(have, name) {
			p.add(place{name, c.Pool})
		}
	}
	for name, e := range lastGood {
		if e != nil && lives(name) {
			p.add(place{name, PoolOf(e.Sandbox)})
		}
	}
	return p
}

func (p *Pools) add(at place) {
	if at.pool != "" && !p.holds[at] {
		p.holds[at] = true
		p.taken[at.pool]++
	}
}

// Waits says why the start of a claim must wait, "" if it need not.
func (p *Pools) Waits(e *desired.Entry) (reason, why string) {
	switch c := e.Claim; {
	case c.Why != "":
		return c.Reason, c.Why + "; it starts when that has changed"
	case c.Max > 0 && p.taken[c.Pool] >= c.Max && !p.holds[place{e.Sandbox.Metadata.Name, c.Pool}]:
		return actual.ReasonPoolFull, fmt.Sprintf("SandboxPool %q allows %d claims at a time, and that many have a sandbox; it starts when one of them has finished or is gone", c.Pool, c.Max)
	}
	return "", ""
}

// Take gives the start of a claim a place: one that nothing else keeps waiting, or others would wait
// for what it does not use. e may be nil or no claim's.
func (p *Pools) Take(e *desired.Entry) {
	if p != nil && e != nil && e.Claim != nil {
		p.add(place{e.Sandbox.Metadata.Name, e.Claim.Pool})
	}
}

// Taken is how many places of a pool are taken.
func (p *Pools) Taken(pool string) int { return p.taken[pool] }

// PoolOf is the pool that a sandbox was made of, "" if it was made of none.
func PoolOf(sb *desired.Sandbox) string { return sb.Metadata.Annotations[ownnotes.Pool] }
