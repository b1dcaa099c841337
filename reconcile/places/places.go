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
	holds map[string]bool // by the name of the sandbox
	taken map[string]int  // by the name of the pool
}

// Of is what claims have by the manifests, those on record whose manifests the snapshot does not
// have, and the operations that create.
func Of(want *desired.Snapshot, lastGood map[string]*desired.Entry, have *actual.Snapshot, creates func(name string) bool) *Pools {
	p := &Pools{holds: map[string]bool{}, taken: map[string]int{}}
	add := func(e *desired.Entry) {
		if e == nil || PoolOf(e.Sandbox) == "" {
			return
		}
		name := e.Sandbox.Metadata.Name
		rec := recordOf(have, name)
		// Of one whose record can't be acted on it is not known whether it lives.
		if rec != nil && !rec.App().Completed || Quarantined(have, name) || creates(name) {
			p.add(e)
		}
	}
	for i := range want.Entries {
		add(&want.Entries[i])
	}
	for _, e := range lastGood {
		add(e)
	}
	return p
}

func (p *Pools) add(e *desired.Entry) {
	p.holds[e.Sandbox.Metadata.Name] = true
	p.taken[PoolOf(e.Sandbox)]++
}

// Waits gives the start of a claim a place, unless it has one. It says why it must wait, "" if it
// need not.
func (p *Pools) Waits(e *desired.Entry) (reason, why string) {
	switch c := e.Claim; {
	case c.Why != "":
		return c.Reason, c.Why + "; it starts when that has changed"
	case p.holds[e.Sandbox.Metadata.Name]:
	case c.Max > 0 && p.taken[c.Pool] >= c.Max:
		return actual.ReasonPoolFull, fmt.Sprintf("SandboxPool %q allows %d claims at a time, and that many have a sandbox; it starts when one of them has finished or is gone", c.Pool, c.Max)
	default:
		p.add(e)
	}
	return "", ""
}

// Taken is how many places of a pool are taken.
func (p *Pools) Taken(pool string) int { return p.taken[pool] }

// PoolOf is the pool that a sandbox was made of, "" if it was made of none.
func PoolOf(sb *desired.Sandbox) string { return sb.Metadata.Annotations[desired.PoolAnnotation] }
