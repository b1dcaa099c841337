// SPDX-License-Identifier: Apache-2.0

// Package namespaces compares the network namespaces that manifests name (mode netns) with
// those that sandboxes run in.
package namespaces

import (
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
)

// Namespace is what is known of a network namespace that a manifest names.
type Namespace struct {
	// Inode tells it from another one of the same name; 0 if there is none.
	Inode uint64
	// NotReady is why no sandbox can be started in it now; "" if one can.
	NotReady string
}

// Look looks at the network namespaces that manifests name. Those of a snapshot without
// any cost nothing.
func Look(want *desired.Snapshot, look func(name string) Namespace) map[string]Namespace {
	var out map[string]Namespace
	for i := range want.Entries {
		name := Named(&want.Entries[i])
		if _, known := out[name]; name == "" || known {
			continue
		}
		if out == nil {
			out = map[string]Namespace{}
		}
		out[name] = look(name)
	}
	return out
}

// Named is the network namespace that a manifest names, "" for none.
func Named(e *desired.Entry) string {
	if n := &e.Sandbox.Spec.Network; n.Mode == networks.Netns {
		return n.Netns
	}
	return ""
}

// Holder is the sandbox on record that has a network namespace, other than the one named.
func Holder(records []actual.Observed, netns, name string) string {
	for i := range records {
		rec := records[i].Record
		if rec.Name != name && rec.Phase != actual.PhaseStopped && rec.Network != nil && rec.Network.Path == desired.NetnsPath(netns) {
			return rec.Name
		}
	}
	return ""
}

// Replaced says whether the network namespace of a running sandbox was made anew and is
// ready: it is still in the old one, which nobody reaches any more.
func Replaced(found map[string]Namespace, e *desired.Entry, rec *actual.Record) bool {
	name := Named(e)
	n, known := found[name]
	if name == "" || !known || n.Inode == 0 || n.NotReady != "" {
		return false
	}
	if rec.Network == nil {
		// An earlier version started it with loopback only, and said so.
		return slices.ContainsFunc(rec.Warnings, func(w actual.Warning) bool { return w.Reason == actual.WarningNetworkUnconfigured })
	}
	return rec.Network.Inode != n.Inode
}

// Gone warns of a running sandbox whose network namespace was removed. e may be nil.
func Gone(found map[string]Namespace, e *desired.Entry, rec *actual.Record) *actual.Warning {
	if e == nil || rec.Network == nil || rec.Phase != actual.PhaseRunning {
		return nil
	}
	name := Named(e)
	n, known := found[name]
	switch {
	case name == "" || !known:
		return nil
	case n.Inode == 0:
		return &actual.Warning{Reason: actual.WarningNetworkGone, Message: "network namespace " + name + " was removed; the sandbox is still in it, and is restarted when a new one of that name exists"}
	case n.Inode != rec.Network.Inode && n.NotReady != "":
		return &actual.Warning{Reason: actual.WarningNetworkGone, Message: "network namespace " + name + " was replaced; the sandbox stays in the old one until the new one is ready: " + n.NotReady}
	}
	return nil
}
