// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"
	"slices"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// Cancel is an operation under way that is to end: its reason is gone or is
// another one now.
type Cancel struct {
	Name   string
	Reason string
}

// cancels finds the operations that have lost their reason.
func (c *computation) cancels() {
	for name, op := range c.in.Operations {
		if reason := c.lost(name, &op); reason != "" && !op.Cancelled {
			c.plan.Cancel = append(c.plan.Cancel, Cancel{Name: name, Reason: reason})
		}
	}
	slices.SortFunc(c.plan.Cancel, func(a, b Cancel) int { return cmp.Compare(a.Name, b.Name) })
}

// lost says why an operation has lost its reason, "" if it has not.
func (c *computation) lost(name string, op *Operation) string {
	e := c.in.Desired.Lookup(name)
	if op.Op == OpCreate || op.Op == OpRefresh {
		return c.startLost(name, op, e)
	}
	// Its author has given it less time meanwhile. There is no way back from a stop
	// otherwise: the application has been told.
	if op.Op == OpDestroy && e != nil && op.Grace > gracePeriod(e) {
		return actual.ReasonSpecChanged
	}
	return ""
}

func (c *computation) startLost(name string, op *Operation, e *desired.Entry) string {
	switch {
	case c.in.ordered(name), c.in.Desired.Removed(name, "") && (!c.guarded || c.approved(name)):
		return actual.ReasonManifestRemoved
	case e == nil:
		return ""
	case e.Sandbox.Spec.Suspend:
		return actual.ReasonSuspended
	case c.expires(e):
		return actual.ReasonExpired
	case op.Hash != e.Hash && !desired.HashMatches(op.Hash, e.Sandbox):
		return actual.ReasonSpecChanged
	}
	if t := c.in.request(name).ID(); t != "" && t != op.Restart && !c.carriedOut(name, t) {
		return actual.ReasonRestartRequested
	}
	return ""
}

// carriedOut says whether the record of a name says that a restart request has
// been carried out.
func (c *computation) carriedOut(name, token string) bool {
	for i := range c.in.Actual.Sandboxes {
		if rec := c.in.Actual.Sandboxes[i].Record; rec.Name == name {
			return rec.RestartToken == token
		}
	}
	return false
}

func gracePeriod(e *desired.Entry) time.Duration {
	return time.Duration(*e.Sandbox.Spec.TerminationGracePeriod)
}
