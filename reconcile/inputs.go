// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/declared"
	"sandboxctl.dev/reconcile/needs"
)

// needsInputs delays the start of a sandbox until what its manifest refers to is there.
// One that runs is not stopped before for a start that can't come.
func (c *computation) needsInputs(a *Action) bool {
	e, then := c.starts(a), "; it starts when that has changed"
	missing := needs.Missing
	if a.Op == OpRefresh {
		e, then = a.Entry, "; it keeps the files that it has until then"
		missing = func(e *desired.Entry, files map[string]needs.File) (string, bool) {
			return needs.MissingIn(a.Volumes, e, files)
		}
	}
	if e == nil {
		return false
	}
	why, help := missing(e, c.in.Files)
	if why == "" && a.Op != OpRefresh { // which makes no volume
		why, help = declared.Waits(c.in.Desired, c.in.Volumes, e), true
	}
	if why != "" {
		a.Reason = actual.ReasonInputMissing
		c.delayForHost(*a, why+then, help)
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

// refresh gives a sandbox that runs the new content of its volumes with onChange: signal.
// While the snapshot does not have its manifest it is left as it is.
func (c *computation) refresh(e *desired.Entry, rec *actual.Record) {
	if c.in.LastGood[rec.Name] != nil {
		return
	}
	if volumes := needs.Stale(e, rec, c.in.Files); len(volumes) > 0 {
		c.add(Action{Op: OpRefresh, Name: rec.Name, Entry: e, Volumes: volumes, Reason: actual.ReasonInputChanged, Due: needs.RefreshDue(rec, c.in.Now)})
	}
}
