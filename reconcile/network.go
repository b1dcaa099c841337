// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/contention"
	"sandboxctl.dev/reconcile/endings"
	"sandboxctl.dev/reconcile/namespaces"
)

// needsNetwork delays the start of a sandbox whose network namespace another one
// has, or which is not ready. Started all the same it would have no network for
// good.
func (c *computation) needsNetwork(a *Action) bool {
	if c.contends(a) {
		return true
	}
	if a.Op != OpCreate {
		return false
	}
	name := namespaces.Named(a.Entry)
	if name == "" {
		return false
	}
	if holder := c.holderOf(name, a.Name); holder != "" {
		a.Reason = actual.ReasonNetworkInUse
		c.delay(*a, time.Time{}, "network namespace "+name+" is used by "+holder+"; it starts when that has ended")
		return true
	}
	if n, known := c.in.Networks[name]; known && n.NotReady != "" {
		a.Reason = actual.ReasonNetworkNotReady
		c.delayForHost(*a, n.NotReady+"; it starts when that has changed", false)
		return true
	}
	return false
}

// contends delays a start until its networks are declared, and its ports and addresses
// are free. What runs is not stopped before for a start that can't come.
func (c *computation) contends(a *Action) bool {
	e := c.starts(a)
	if e == nil {
		return false
	}
	reason, why := contention.Documents(e, c.in.Desired, a.Reason == actual.ReasonNetworkChanged)
	if reason == "" && a.Op == OpDestroy {
		reason, why = contention.Subnets(e, c.in.Desired, c.in.Actual.Sandboxes, c.in.Led)
	}
	if reason == "" && e.Sandbox.Spec.Network.Wants() {
		if c.holders == nil {
			c.holders = holders(c.in, c.plan.Actions)
		}
		reason, why = c.holders.Of(e)
	}
	if reason == "" {
		return false
	}
	a.Reason = reason
	c.delay(*a, time.Time{}, why)
	return true
}

// holders are those that have ports and addresses. It has copies: closures over a
// computation would cost each pass an allocation.
func holders(in Input, planned []Action) *contention.Index {
	x := contention.New(in.Actual.Sandboxes, func(rec *actual.Record) *desired.Entry {
		return cmp.Or(in.Desired.Lookup(rec.Name), in.LastGood[rec.Name])
	}, func(e *desired.Entry, rec *actual.Record) bool {
		return e.Sandbox.Spec.Suspend || in.end(e, rec).Over || in.gone(rec) || in.Denied[rec.Name] != "" || sameSpec(rec, e) && (rec.App().Completed || endings.Stalled(e, rec) != "")
	})
	for _, name := range slices.Sorted(maps.Keys(in.Operations)) {
		if e := in.Desired.Lookup(name); in.Operations[name].Op == OpCreate && e != nil {
			x.Add(e)
		}
	}
	for i := range planned {
		if planned[i].Op == OpCreate {
			x.Add(planned[i].Entry)
		}
	}
	return x
}

// holderOf is the sandbox that has a network namespace, or is about to get it, other
// than the one named.
func (c *computation) holderOf(netns, name string) string {
	if holder := namespaces.Holder(c.in.Actual.Sandboxes, netns, name); holder != "" {
		return holder
	}
	for other, op := range c.in.Operations {
		if other != name && op.Op == OpCreate && op.Netns == netns {
			return other // there is no other: it would have waited for this one
		}
	}
	for i := range c.plan.Actions {
		if a := &c.plan.Actions[i]; a.Op == OpCreate && a.Name != name && namespaces.Named(a.Entry) == netns {
			return a.Name
		}
	}
	return ""
}
