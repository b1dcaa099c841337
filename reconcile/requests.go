// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"sandboxctl.dev/actual"
	"sandboxctl.dev/reconcile/places"
)

// Done says whether a request has been carried out, or asks for what there is not.
func (in *Input) Done(r actual.Request) bool {
	switch r.Kind {
	case actual.RequestRestart:
		if places.Quarantined(in.Actual, r.Name) {
			return false
		}
		for i := range in.Actual.Sandboxes {
			if rec := in.Actual.Sandboxes[i].Record; rec.Name == r.Name {
				// Only the request says from which checkpoint: it stays until that has
				// been restored, or could not be.
				return rec.RestartToken == r.Token && (r.Checkpoint == "" || !rec.CutShort())
			}
		}
		return in.Desired.Complete && in.Desired.Lookup(r.Name) == nil
	case actual.RequestRepair:
		return !places.Quarantined(in.Actual, r.Name)
	case actual.RequestRemove:
		return in.removed(&r)
	case actual.RequestApprove:
		for _, n := range r.Names {
			for i := range in.Actual.Sandboxes {
				if in.Actual.Sandboxes[i].Record.Name == n && in.Desired.Lookup(n) == nil {
					return false // still to be removed
				}
			}
		}
		return true
	}
	return true
}

// repairs carries out what an operator asked of a quarantined name. Nothing
// else is ever done with one.
func (c *computation) repairs() {
	added := false
	for i := range c.in.Actual.Requests {
		r := &c.in.Actual.Requests[i]
		// One request is one try, whatever its outcome: the person who asked reads it.
		if r.Kind != actual.RequestRepair || c.in.busy(r.Name) || !places.Quarantined(c.in.Actual, r.Name) || c.in.Tried[r.Name] == r.Token {
			continue
		}
		c.add(Action{Op: OpRepair, Name: r.Name, Request: r, Reason: actual.ReasonRepairRequested})
		added = true
	}
	if added {
		c.sort()
	}
}
