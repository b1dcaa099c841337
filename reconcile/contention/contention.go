// SPDX-License-Identifier: Apache-2.0

// Package contention finds out what keeps a sandbox from its network: one that nobody
// declares, a port of the host or an address that another sandbox has. Functions of values:
// whether a program of the host has the port is not known here.
package contention

import (
	"fmt"
	"net/netip"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
)

// then ends a sentence about what a sandbox waits for.
const then = "; it starts when that has changed"

// Documents returns why the Network documents keep a sandbox from being started, "" if they
// do not: the reason and a sentence. changed says that it runs, and is to be stopped for a
// change of them.
func Documents(e *desired.Entry, want *desired.Snapshot, changed bool) (reason, why string) {
	n := &e.Sandbox.Spec.Network
	if n.Mode != networks.Bridge {
		return "", ""
	}
	for _, name := range n.Join {
		if lacks := lacking(name, want); lacks != "" {
			return actual.ReasonNetworkMissing, "spec.network.join: " + lacks + then
		}
	}
	if why := outside(n, want.Objects); why != "" {
		return actual.ReasonAddressUnusable, why + then
	}
	for _, name := range n.Join {
		if why := overlapping(name, want.Objects); changed && why != "" {
			return actual.ReasonAddressUnusable, "spec.network.join: " + why + then
		}
	}
	return "", ""
}

// overlapping says of a network that another document has addresses of its subnets. Who is
// first has them, which is known at a start only.
func overlapping(name string, docs desired.Objects) string {
	mine := docs.Network(name)
	if mine == nil {
		return ""
	}
	for i := range docs {
		o := docs[i].Network
		if o == nil || o == mine {
			continue
		}
		for _, p := range [][2]netip.Prefix{{mine.Prefix4(), o.Prefix4()}, {mine.Prefix6(), o.Prefix6()}} {
			if p[0].Overlaps(p[1]) {
				return fmt.Sprintf("Network %q can't have %s, which overlaps %s of %s", name, p[0], p[1], desired.Described(docs[i].Name()))
			}
		}
	}
	return ""
}

// between returns what a sandbox wants that another one has, and at which field. published
// are the ports of the first.
func between(n *networks.Network, published []networks.Port, other *desired.Entry) (reason, field, why string) {
	o := &other.Sandbox.Spec.Network
	for i := range published {
		for j := range o.Ports {
			if published[i].Overlaps(&o.Ports[j]) {
				at := slices.Index(n.Ports, published[i])
				return actual.ReasonPortInUse, fmt.Sprintf("spec.network.ports[%d].hostPort", at), fmt.Sprintf("port %s of the host is published by %s, as %s", published[i].Describe(), other.Sandbox.Metadata.Name, o.Ports[j].Describe())
			}
		}
	}
	theirs := o.Address.Addrs()
	for _, a := range n.Address.Addrs() {
		if slices.Contains(theirs, a) && slices.Equal(n.Join, o.Join) {
			return actual.ReasonAddressUnusable, "spec.network.address", fmt.Sprintf("%s on network %s is the address of %s", a, n.Join[0], other.Sandbox.Metadata.Name)
		}
	}
	return "", "", ""
}

// lacking says why there is no network of a name, "" if there is one.
func lacking(name string, want *desired.Snapshot) string {
	if want.Objects.Network(name) != nil {
		return ""
	}
	full := objects.Name(objects.Network, name)
	for i := range want.Problems {
		if want.Problems[i].Name == full {
			return fmt.Sprintf("Network %q can't be used: %s", name, want.Problems[i].Error())
		}
	}
	if name == networks.DefaultName {
		return "" // it is there without a document
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
