// SPDX-License-Identifier: Apache-2.0

// Package contention finds out what keeps a sandbox from its network: one that nobody
// declares, a namespace that is gone, a port of the host or an address that another
// sandbox has. Functions of
// values: whether a program of the host has the port is not known here.
package contention

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
)

// Input is what there is beside the sandbox that is looked at.
type Input struct {
	Desired *desired.Snapshot
	Records []actual.Observed // sorted by name
	// Manifest is the one that counts for a sandbox on record, nil if there is none.
	Manifest func(rec *actual.Record) *desired.Entry
	// Idle says that a stopped sandbox is not going to be started again by itself.
	Idle func(e *desired.Entry, rec *actual.Record) bool
	// Starting are sandboxes that are being created, or are about to be.
	Starting []*desired.Entry
}

// Of returns why a sandbox can't be started now, "" if it can: the reason and a sentence.
func Of(e *desired.Entry, in *Input) (reason, why string) {
	n := &e.Sandbox.Spec.Network
	if n.Mode != networks.Bridge && !n.Wants() {
		return "", ""
	}
	for _, name := range n.Join {
		if lacks := lacking(name, in.Desired); lacks != "" {
			return actual.ReasonNetworkMissing, "spec.network.join: " + lacks + "; it starts when that has changed"
		}
	}
	if why := outside(n, in.Desired.Objects); why != "" {
		return actual.ReasonAddressUnusable, why + "; it starts when that has changed"
	}
	published := n.Published()
	if len(published)+len(n.Address) == 0 {
		return "", ""
	}
	for other := range holders(e, in) {
		if reason, field, why := Between(n, published, other); reason != "" {
			return reason, field + ": " + why + "; it starts when that has changed"
		}
	}
	return "", ""
}

// Between returns what a sandbox wants that another one has, and at which field. published
// are the ports of the first.
func Between(n *networks.Network, published []networks.Port, other *desired.Entry) (reason, field, why string) {
	o := &other.Sandbox.Spec.Network
	if !o.Wants() {
		return "", "", ""
	}
	for i := range published {
		for j := range o.Ports {
			if published[i].Overlaps(&o.Ports[j]) {
				at := slices.Index(n.Ports, published[i])
				return actual.ReasonPortInUse, fmt.Sprintf("spec.network.ports[%d].hostPort", at), fmt.Sprintf("port %s of the host is published by %s, as %s", published[i].Describe(), other.Sandbox.Metadata.Name, o.Ports[j].Describe())
			}
		}
	}
	if len(n.Address) > 0 && len(o.Address) > 0 && slices.Equal(n.Join, o.Join) {
		theirs := o.Address.Addrs()
		for _, a := range n.Address.Addrs() {
			if slices.Contains(theirs, a) {
				return actual.ReasonAddressUnusable, "spec.network.address", fmt.Sprintf("%s on network %s is the address of %s", a, n.Join[0], other.Sandbox.Metadata.Name)
			}
		}
	}
	return "", "", ""
}

// lacking says why there is no network of a name, "" if there is one.
func lacking(name string, want *desired.Snapshot) string {
	if name == networks.DefaultName || want.Objects.Network(name) != nil {
		return ""
	}
	full := objects.Name(objects.Network, name)
	for i := range want.Problems {
		if want.Problems[i].Name == full {
			return fmt.Sprintf("Network %q can't be used: %s", name, want.Problems[i].Error())
		}
	}
	out := fmt.Sprintf("Network %q does not exist", name)
	if want.Reason != "" && want.Reason != desired.ReasonInvalidManifests {
		out += ", as far as can be told: " + want.Message
	}
	return out
}

// outside says which address is none of the network that it is for.
func outside(n *networks.Network, docs desired.Objects) string {
	if len(n.Address) == 0 || len(n.Join) != 1 {
		return ""
	}
	declared := docs.Network(n.Join[0])
	if declared == nil {
		return "" // its subnets are chosen when it is needed
	}
	for _, a := range n.Address.Addrs() {
		if why := declared.Refuses(a); why != "" {
			return fmt.Sprintf("spec.network.address: %s can't be on network %s: %s", a, n.Join[0], why)
		}
	}
	return ""
}

// holders are the manifests of those that keep what they have from a sandbox: all that run
// or are being started, and stopped ones that are started again, if they come before it.
func holders(e *desired.Entry, in *Input) iter.Seq[*desired.Entry] {
	name := e.Sandbox.Metadata.Name
	var mine *actual.Record
	if i, found := slices.BinarySearchFunc(in.Records, name, func(o actual.Observed, name string) int { return cmp.Compare(o.Record.Name, name) }); found {
		mine = in.Records[i].Record
	}
	return func(yield func(*desired.Entry) bool) {
		for i := range in.Records {
			rec := in.Records[i].Record
			if rec.Name == name {
				continue
			}
			other := in.Manifest(rec)
			if other == nil || !other.Sandbox.Spec.Network.Wants() {
				continue
			}
			if rec.Phase == actual.PhaseStopped && (in.Idle(other, rec) || mine != nil && before(mine, rec)) {
				continue
			}
			// Of two that run the older one has it, as in the rules of the host.
			if mine != nil && mine.Phase == actual.PhaseRunning && rec.Phase == actual.PhaseRunning && before(mine, rec) {
				continue
			}
			if !yield(other) {
				return
			}
		}
		for _, other := range in.Starting {
			if other.Sandbox.Metadata.Name != name && !yield(other) {
				return
			}
		}
	}
}

func before(a, b *actual.Record) bool {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Name, b.Name)) < 0
}
