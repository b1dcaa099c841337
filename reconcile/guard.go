// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"fmt"
	"slices"

	"sandboxctl.dev/actual"
)

// guard decides whether the removals of this plan wait for approval.
//
// A removal that has begun is not counted, neither as a removal nor as a
// sandbox: finishing it must not make the rest look larger or smaller than it
// was when the decision was made.
func (c *computation) guard() {
	p := c.in.Policy
	if p.AllowMassDelete || !c.in.Desired.Complete {
		return
	}
	fresh, total := 0, 0
	for i := range c.in.Actual.Sandboxes {
		rec := c.in.Actual.Sandboxes[i].Record
		absent := c.in.Desired.Lookup(rec.Name) == nil
		if absent && removalBegun(rec) {
			continue
		}
		total++
		if absent {
			fresh++
		}
	}
	if fresh == 0 {
		return
	}
	recent := 0
	for _, at := range c.in.Removals {
		if age := c.in.Now.Sub(at); age >= 0 && age < removalWindow {
			recent++
		}
	}
	many := func(removed, of int) bool {
		return removed >= p.MaxRemoveCount && float64(removed) > p.MaxRemoveShare*float64(of)
	}
	if !many(fresh+recent, total+recent) {
		return
	}
	c.guarded = true
	var names []string
	for i := range c.in.Actual.Sandboxes {
		rec := c.in.Actual.Sandboxes[i].Record
		if c.in.Desired.Lookup(rec.Name) == nil && !removalBegun(rec) && !c.approved(rec.Name) {
			names = append(names, rec.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	total += recent
	before, after := "", ""
	switch {
	case recent == 1:
		before = fmt.Sprintf(", after another one in the last %s", removalWindow)
	case recent > 1:
		before = fmt.Sprintf(", after %d others in the last %s", recent, removalWindow)
	}
	if !many(fresh, total-recent) {
		after = ", or that time is over"
	}
	c.plan.Guard = &Guard{Names: names, Total: total, Message: fmt.Sprintf(
		"%d of %d sandboxes would be removed because their manifests are missing%s; nothing is removed until `sandboxctl approve` is called or the manifests are back%s", len(names), total, before, after)}
}

// removalBegun says whether the removal of a sandbox is under way.
func removalBegun(rec *actual.Record) bool {
	return rec.Ending != nil && rec.Ending.Reason == ReasonManifestRemoved &&
		(rec.Phase == actual.PhaseStopping || rec.Phase == actual.PhaseStopped)
}

// approved says whether an operator has approved the removal of a name.
func (c *computation) approved(name string) bool {
	for i := range c.in.Actual.Requests {
		r := &c.in.Actual.Requests[i]
		if r.Kind != actual.RequestApprove {
			continue
		}
		if _, ok := slices.BinarySearch(r.Names, name); ok {
			return true
		}
	}
	return false
}
