// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/reconcile/contention"
)

// Network is what is known of a network namespace that a manifest names.
type Network struct {
	// Inode tells it from another one of the same name; 0 if there is none.
	Inode uint64
	// NotReady is why no sandbox can be started in it now; "" if one can.
	NotReady string
}

// Networks looks at the network namespaces that manifests name. Those of a snapshot
// without any cost nothing.
func Networks(want *desired.Snapshot, look func(name string) Network) map[string]Network {
	var out map[string]Network
	for i := range want.Entries {
		name := netnsOf(&want.Entries[i])
		if _, known := out[name]; name == "" || known {
			continue
		}
		if out == nil {
			out = map[string]Network{}
		}
		out[name] = look(name)
	}
	return out
}

// netnsOf is the network namespace that a manifest names, "" for none.
func netnsOf(e *desired.Entry) string {
	if n := &e.Sandbox.Spec.Network; n.Mode == networks.Netns {
		return n.Netns
	}
	return ""
}

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
	name := netnsOf(a.Entry)
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
	if e := c.starts(a); e != nil && e.Sandbox.Spec.Network.Mode == networks.Bridge {
		if reason, why := contention.Of(e, contenders(c.in, c.plan.Actions)); reason != "" {
			a.Reason = reason
			c.delay(*a, time.Time{}, why)
			return true
		}
	}
	return false
}

// contenders are the others. It has copies: closures over a computation would cost each
// pass an allocation.
func contenders(in Input, planned []Action) *contention.Input {
	out := &contention.Input{Desired: in.Desired, Records: in.Actual.Sandboxes}
	out.Manifest = func(rec *actual.Record) *desired.Entry {
		return cmp.Or(in.Desired.Lookup(rec.Name), in.LastGood[rec.Name])
	}
	out.Idle = func(e *desired.Entry, rec *actual.Record) bool {
		return e.Sandbox.Spec.Suspend || in.gone(rec) || in.Denied[rec.Name] != "" || sameSpec(rec, e) && (rec.App().Completed || stalled(e, rec) != "")
	}
	for _, name := range slices.Sorted(maps.Keys(in.Operations)) {
		if e := in.Desired.Lookup(name); in.Operations[name].Op == OpCreate && e != nil {
			out.Starting = append(out.Starting, e)
		}
	}
	for i := range planned {
		if planned[i].Op == OpCreate {
			out.Starting = append(out.Starting, planned[i].Entry)
		}
	}
	return out
}

// holderOf is the sandbox that has a network namespace, or is about to get it, other
// than the one named.
func (c *computation) holderOf(netns, name string) string {
	for i := range c.in.Actual.Sandboxes {
		rec := c.in.Actual.Sandboxes[i].Record
		if rec.Name != name && rec.Phase != actual.PhaseStopped && rec.Network != nil && rec.Network.Path == desired.NetnsPath(netns) {
			return rec.Name
		}
	}
	for other, op := range c.in.Operations {
		if other != name && op.Op == OpCreate && op.Netns == netns {
			return other // there is no other: it would have waited for this one
		}
	}
	for i := range c.plan.Actions {
		if a := &c.plan.Actions[i]; a.Op == OpCreate && a.Name != name && netnsOf(a.Entry) == netns {
			return a.Name
		}
	}
	return ""
}

// networkReplaced says whether the network namespace of a running sandbox was made
// anew and is ready: it is still in the old one, which nobody reaches any more.
func (c *computation) networkReplaced(e *desired.Entry, rec *actual.Record) bool {
	name := netnsOf(e)
	n, known := c.in.Networks[name]
	if name == "" || !known || n.Inode == 0 || n.NotReady != "" {
		return false
	}
	if rec.Network == nil {
		// An earlier version started it with loopback only, and said so.
		return slices.ContainsFunc(rec.Warnings, func(w actual.Warning) bool { return w.Reason == actual.WarningNetworkUnconfigured })
	}
	return rec.Network.Inode != n.Inode
}

// networkGone warns of a running sandbox whose network namespace was removed.
func networkGone(in *Input, e *desired.Entry, rec *actual.Record) *actual.Warning {
	if e == nil || rec.Network == nil || rec.Phase != actual.PhaseRunning {
		return nil
	}
	name := netnsOf(e)
	if n, known := in.Networks[name]; known && name != "" {
		return contention.Gone(rec, name, n.Inode, n.NotReady)
	}
	return nil
}
