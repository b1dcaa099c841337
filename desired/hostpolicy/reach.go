// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"fmt"
	"net/netip"
	"slices"

	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/networks/public"
	"sandboxctl.dev/desired/yamldoc"
)

// DenyPrivate in NetworkPolicy.Deny is all that is no host of the internet.
const DenyPrivate = "private"

// denied are destinations that no manifest may have.
type denied struct {
	private bool
	// prefixes are others, also as IPv6 says addresses of IPv4.
	prefixes []netip.Prefix
}

func (n *NetworkPolicy) denied() (d denied) {
	for _, text := range n.Deny {
		if text == DenyPrivate {
			d.private = true
		} else if p, err := networks.ParsePrefix(text); err == nil { // else it was not valid
			d.prefixes = append(d.prefixes, p)
			if p.Addr().Is4() {
				d.prefixes = append(d.prefixes, public.NAT64([]netip.Prefix{p})...)
			}
		}
	}
	return d
}

// some says whether one address of a prefix is denied.
func (d *denied) some(p netip.Prefix) bool {
	return d.private && public.Overlaps(p) || slices.ContainsFunc(d.prefixes, p.Overlaps)
}

// ofPublic says whether a host of the internet is denied.
func (d *denied) ofPublic() bool {
	return slices.ContainsFunc(d.prefixes, func(p netip.Prefix) bool { return !public.None(p) })
}

// reach judges what a sandbox may reach. Names are answered with hosts of the internet only,
// whatever who answers says; so they lead to nothing else that is denied.
func (v *check) reach(n *networks.Network) {
	d := v.p.Network.denied()
	if !d.private && len(d.prefixes) == 0 {
		return
	}
	const ask = ", or have the administrator change network.deny"
	deny := listed(v.p.Network.Deny)
	switch {
	case n.Egress.Otherwise() == networks.Deny:
	case d.ofPublic():
		v.Add("spec.network.egress.default", "%s forbids sandboxes to reach %s; set it to deny and allow what is needed%s", v.p.where(), deny, ask)
	case n.Egress.Otherwise() != networks.Public:
		v.Add("spec.network.egress.default", "%s forbids sandboxes to reach %s; set it to public or deny%s", v.p.where(), deny, ask)
	}
	if n.Egress != nil {
		for i, text := range n.Egress.Allow {
			rule, err := networks.ParseRule(text)
			if err != nil {
				continue // it is told of elsewhere
			}
			if rule.Prefix.IsValid() && d.some(rule.Prefix) || rule.Host != "" && d.ofPublic() || rule.TheHost && d.private {
				v.Add(fmt.Sprintf("spec.network.egress.allow[%d]", i), "%s forbids sandboxes to reach %s, which %s may lead to; remove it%s", v.p.where(), deny, yamldoc.Clip(text), ask)
			}
		}
	}
	// They are asked by the daemon, in the place of the sandbox.
	for i, a := range n.DNS.Addrs() {
		if d.some(netip.PrefixFrom(a, a.BitLen())) {
			v.Add(fmt.Sprintf("spec.network.dns.servers[%d]", i), "%s forbids sandboxes to reach %s, of which %s is one; use another one%s", v.p.where(), deny, a, ask)
		}
	}
}
