// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/needs"
)

// needsInputs delays the start of a sandbox until what its manifest refers to is there.
// One that runs is not stopped before for a start that can't come.
func (c *computation) needsInputs(a *Action) bool {
	e := c.starts(a)
	if e == nil {
		return false
	}
	if why, help := needs.Missing(e, c.in.Files); why != "" {
		a.Reason = actual.ReasonInputMissing
		c.delayForHost(*a, why+"; it starts when that has changed", help)
		return true
	}
	if a.Entry != nil && len(c.in.Desired.Objects) > 0 {
		// What the start is given is what was judged here.
		a.Entry = new(*a.Entry)
		a.Entry.Objects = c.in.Desired.Objects
	}
	return false
}

// starts is the manifest of the start that an action is for, nil if it is for none.
func (c *computation) starts(a *Action) *desired.Entry {
	if a.Op == OpDestroy && a.Ending.Replace {
		return cmp.Or(c.in.Desired.Lookup(a.Name), c.in.LastGood[a.Name])
	}
	return a.Entry
}

// inputGone warns that what a sandbox has been started with is not there any more: it
// keeps running, and could not be started again.
func inputGone(in *Input, e *desired.Entry, r *actual.Record) *actual.Warning {
	if r.Phase != actual.PhaseRunning {
		return nil
	}
	why, _ := needs.Missing(e, in.Files)
	if why == "" {
		return nil
	}
	return &actual.Warning{Reason: actual.WarningInputGone, Message: why + "; it keeps what it was started with, and can't be started again without"}
}
