// SPDX-License-Identifier: Apache-2.0

package contention

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
)

// Subnets returns why a sandbox that runs could not be started again in the subnets that
// documents give its networks, "" if it could: sandboxes of another network have addresses of
// them, routes of the host lead into them, as Led has found, or there are not enough addresses
// for all that join. The start would find that out when the sandbox is stopped, and so would
// those of all others on the network.
func Subnets(e *desired.Entry, want *desired.Snapshot, have []actual.Observed, led map[string]string) (reason, why string) {
	n := &e.Sandbox.Spec.Network
	if n.Mode != networks.Bridge {
		return "", ""
	}
	for _, name := range n.Join {
		d := want.Objects.Network(name)
		if d == nil {
			continue // it keeps the subnets that it has
		}
		for _, p := range [2]netip.Prefix{d.Prefix4(), d.Prefix6()} {
			why := inUse(name, p, have)
			if why == "" && moves(e.Sandbox.Metadata.Name, name, p, have) {
				why = tooSmall(name, p, want, have)
				if route := led[p.String()]; why == "" && route != "" {
					why = fmt.Sprintf("Network %q can't have %s, into which the route %s of the host leads", name, p, route)
				}
			}
			if why != "" {
				return actual.ReasonAddressUnusable, "spec.network.join: " + why + then
			}
		}
	}
	return "", ""
}

// inUse says which sandbox has a subnet of another network that overlaps. One that is stopped
// keeps its own. The asking sandbox counts too: a network that it has joined has the subnet on
// record, whichever sandbox is started.
func inUse(name string, p netip.Prefix, have []actual.Observed) string {
	if !p.IsValid() {
		return ""
	}
	for i := range have {
		rec := have[i].Record
		for j := range rec.Attachments {
			a := &rec.Attachments[j]
			if a.Network == name {
				continue
			}
			for _, q := range [2]netip.Prefix{a.Subnet4, a.Subnet6} {
				if p.Overlaps(q) {
					return fmt.Sprintf("Network %q can't have %s, which overlaps %s of network %s, on which %s is", name, p, q, a.Network, rec.Name)
				}
			}
		}
	}
	return ""
}

// moves says whether a sandbox is on a network with another subnet. Otherwise it keeps its
// address, also where there is none for others.
func moves(sandbox, name string, p netip.Prefix, have []actual.Observed) bool {
	i, found := slices.BinarySearchFunc(have, sandbox, func(o actual.Observed, name string) int { return cmp.Compare(o.Record.Name, name) })
	if !found || !p.IsValid() {
		return false
	}
	a := on(have[i].Record, name)
	return a != nil && a.Subnet4 != p && a.Subnet6 != p
}

// on is what a record says of a network, nil if nothing.
func on(rec *actual.Record, name string) *actual.Attachment {
	for i := range rec.Attachments {
		if rec.Attachments[i].Network == name {
			return &rec.Attachments[i]
		}
	}
	return nil
}

// tooSmall says of a subnet that it has not enough addresses for all that join, or have joined.
func tooSmall(name string, p netip.Prefix, want *desired.Snapshot, have []actual.Observed) string {
	most := room(p)
	if len(want.Entries)+len(have) <= most {
		return "" // so nobody need count
	}
	n := 0
	for i := range want.Entries {
		if joins(&want.Entries[i], name) {
			n++
		}
	}
	for i := range have {
		rec := have[i].Record
		if e := want.Lookup(rec.Name); on(rec, name) != nil && (e == nil || !joins(e, name)) {
			n++
		}
	}
	if n <= most {
		return ""
	}
	return fmt.Sprintf("Network %q can't have %s, which has room for %d, and %d join it", name, p, most, n)
}

// joins says whether a manifest is of a sandbox that is to run on a network.
func joins(e *desired.Entry, name string) bool {
	s := &e.Sandbox.Spec
	return !s.Suspend && s.Network.Mode == networks.Bridge && slices.Contains(s.Network.Join, name)
}

// room is how many sandboxes a subnet has addresses for: not those of the network and of its
// gateway, nor that for broadcasts.
func room(p netip.Prefix) int {
	n := 1<<min(p.Addr().BitLen()-p.Bits(), 31) - 2
	if p.Addr().Is4() {
		n--
	}
	return n
}

// Led are the subnets that documents give networks on which sandboxes have another one, and into
// which routes of the host lead, each with the largest of these. The host is looked at only if
// there are such networks. Where a sandbox has the subnet already, a route that the host got
// later keeps no other one from it, as it does not at a start.
func Led(want *desired.Snapshot, have []actual.Observed, look func() []netip.Prefix) map[string]string {
	var moving []netip.Prefix
	for i := range want.Objects {
		d := want.Objects[i].Network
		if d == nil {
			continue
		}
		_, name, _ := objects.Split(want.Objects[i].Name())
		for _, p := range [2]netip.Prefix{d.Prefix4(), d.Prefix6()} {
			if p.IsValid() && toMove(name, p, have) {
				moving = append(moving, p)
			}
		}
	}
	if len(moving) == 0 {
		return nil
	}
	var out map[string]string
	routes := look()
	for _, p := range moving {
		var hit netip.Prefix
		for _, r := range routes {
			if r.Bits() > 0 && r.Overlaps(p) && (!hit.IsValid() || r.Bits() < hit.Bits()) {
				hit = r.Masked()
			}
		}
		if !hit.IsValid() {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[p.String()] = hit.String()
	}
	return out
}

// toMove says whether a network that sandboxes are on is to have another subnet of a family,
// which none of them has yet.
func toMove(name string, p netip.Prefix, have []actual.Observed) (moving bool) {
	for i := range have {
		a := on(have[i].Record, name)
		switch {
		case a == nil:
		case a.Subnet4 == p || a.Subnet6 == p:
			return false
		default:
			moving = true
		}
	}
	return moving
}
