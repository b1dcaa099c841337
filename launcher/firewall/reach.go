// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Types of ICMP and ICMPv6.
const (
	echoRequest4, echoRequest6    = 8, 128
	neighborSolicit, neighborTell = 135, 136
	redirect4, redirect6          = 5, 137
	routerAdvertisement           = 134
)

// known lets packets of connections pass that were allowed when they began, and errors
// about them.
func known(then func() []expr.Any) []rule {
	return []rule{
		all(state(stateEstablished), then()),
		all(state(stateRelated), protocol(unix.IPPROTO_ICMP), then()),
		all(state(stateRelated), protocol(unix.IPPROTO_ICMPV6), then()),
	}
}

// filter decides about packets that the host forwards from or to sandboxes, and about those
// from sandboxes to the host itself. What the host sends to sandboxes is not filtered.
func (p *program) filter() {
	filter := func(hook *nftables.ChainHook) *base {
		return &base{nftables.ChainTypeFilter, hook, *nftables.ChainPriorityFilter}
	}
	from, to := one(inLink(), in(setLinks)), one(outLink(), in(setLinks))
	p.chain("forward", filter(nftables.ChainHookForward), append([]rule{all(from, jump("from")), all(to, jump("to"))}, perSandbox()...)...)
	p.chain("from", nil, append(known(returns),
		all(state(stateInvalid), continues("forged")),
		all(one(inLink(), chainOf(mapTopology))),
		all(one(inLink(), chainOf(mapEgress))),
		all(one(inLink(), chainOf(mapOpened))))...)
	p.chain("to", nil, append(known(returns),
		// A neighbor of the host that sends to the address of a sandbox, which it knows a
		// way to by the host, gets nowhere: what is to be reached is published.
		all(one(inLink(), noLink()), translated(false), continues("unpublished")),
		all(one(outLink(), chainOf(mapIngress))),
		all(one(outLink(), chainOf(mapEntered))))...)
	p.chain("unpublished", nil, all(one(outLink(), chainOf(mapBarred))), all(drop()))

	// What is accepted is a connection that the kernel keeps, too.
	accepted := func() []expr.Any { return continues("accepted") }
	p.chain("accepted", nil, all(begun(), one(inLink(), chainOf(mapConnections))), all(accept()))
	host := known(accepted)
	host = append(host, all(state(stateInvalid), continues("forged")))
	for _, f := range families {
		gateway := all(f.is(), one(inLink(), f.load(f.destination, afterLink), in(setGateways+f.name)))
		host = append(host, all(gateway, toPort(portDNS), accepted()),
			all(gateway, f.icmpType(map[*family]byte{four: echoRequest4, six: echoRequest6}[f]), accepted()))
	}
	host = append(host,
		all(six.is(), six.icmpType(neighborSolicit), accept()), all(six.is(), six.icmpType(neighborTell), accept()),
		all(one(inLink(), chainOf(mapHost))), all(continues("refused")))
	p.chain("input", filter(nftables.ChainHookInput), all(from, continues("to_host")))
	p.chain("to_host", nil, host...)

	p.chain("rejected", nil, reject...)
	p.chain("refused", nil, append([]rule{all(one(inLink(), chainOf(mapDenied)))}, reject...)...)
	p.chain("refused_in", nil, append([]rule{all(one(outLink(), chainOf(mapBarred)))}, reject...)...)
}

// reject answers, so that programs fail at once and need not wait.
var reject = []rule{
	all(protocol(unix.IPPROTO_TCP), one(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})),
	all(one(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})),
}

// networks makes a chain for each network, which says where packets of its sandboxes may go
// at all.
func (p *program) networks(sandboxes []Sandbox) {
	of := map[string][]Attachment{}
	var names []string
	for i := range sandboxes {
		for _, a := range sandboxes[i].Attachments {
			if of[a.Network] == nil {
				names = append(names, a.Network)
			}
			of[a.Network] = append(of[a.Network], a)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		members := "members_" + name
		p.declare(members, nftables.TypeIFName)
		internal, isolated := false, false
		for _, a := range of[name] {
			p.add(members, linkKey(a.Link))
			internal, isolated = internal || a.Internal, isolated || a.Isolated
		}
		var rules []rule
		if !isolated {
			rules = append(rules, all(one(outLink(), in(members)), returns()))
		}
		if internal {
			rules = append(rules, all(continues("refused")))
		} else {
			// What is published can be reached from outside by anybody, so also from
			// another network.
			rules = append(rules, all(translated(true), returns()), all(one(outLink(), in(setLinks)), continues("refused")))
		}
		p.chain("network_"+name, nil, rules...)
	}
}

// reach makes the chains of a sandbox that has rules of its own.
func (p *program) reach(s *Sandbox, addresses map[string][]netip.Addr) {
	lead := func(set, chain string, rules []rule) {
		p.chain(chain, nil, rules...)
		for _, a := range s.Attachments {
			p.lead(set, a.Link, chain)
		}
	}
	if restricted(s.Egress) {
		lead(mapEgress, "egress_"+s.Name, p.egress(s, addresses))
	}
	if restricted(s.Ingress) {
		lead(mapIngress, "ingress_"+s.Name, ingress(s, addresses))
	}
	if rules := toHost(s, p.admitted(s)); len(rules) > 0 {
		lead(mapHost, "host_"+s.Name, rules)
	}
}

func restricted(r Reach) bool { return r.Default != "" && r.Default != Allow }

func (p *program) egress(s *Sandbox, addresses map[string][]netip.Addr) (rules []rule) {
	for _, r := range s.Egress.Allow {
		switch {
		case r.Host:
			// A port of the host that a sandbox publishes: by now the packet has the
			// address of that sandbox.
			rules = append(rules, all(translated(true), ported(), one(&expr.Ct{Register: first, Key: expr.CtKeyPROTODST},
				equals(binaryutil.BigEndian.PutUint16(r.Port))), returns()))
		case r.Name != "":
			for _, f := range families {
				name := p.nameSet(s.Name, r.Name, f)
				rules = append(rules, all(f.is(), one(f.load(f.destination, first), in(name)), toPort(r.Port), returns()))
			}
		default:
			for _, prefix := range r.prefixes(addresses) {
				rules = append(rules, all(within(prefix, destination), toPort(r.Port), returns()))
			}
		}
	}
	if s.Egress.Default == Deny {
		return append(rules, all(continues("refused")))
	}
	for _, f := range families {
		rules = append(rules, all(f.is(), one(f.load(f.destination, first), in(setNotPublic+f.name)), continues("refused")))
	}
	return rules
}

// prefixes are the addresses that a rule means. A sandbox that does not run has none.
func (r *Rule) prefixes(addresses map[string][]netip.Addr) (out []netip.Prefix) {
	if r.Prefix.IsValid() {
		return []netip.Prefix{r.Prefix}
	}
	for _, a := range addresses[r.Sandbox] {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// nameSet is the set of a name's addresses, declared at its first use.
func (p *program) nameSet(sandbox, name string, f *family) string {
	of := learnedSet(sandbox, name, f)
	if p.byName[of] == nil {
		s := p.declare(of, f.typeOf())
		s.kept, s.HasTimeout, s.Timeout, s.Size, s.Comment = true, true, learnedDefault, learnedMost, name
		p.learned[[2]string{sandbox, name}] = true
	}
	return of
}

// ingress lets pass what is allowed. A sandbox is allowed to reach itself, by a port that
// it publishes.
func ingress(s *Sandbox, addresses map[string][]netip.Addr) (rules []rule) {
	for _, r := range append([]Rule{{Sandbox: s.Name}}, s.Ingress.Allow...) {
		for _, prefix := range r.prefixes(addresses) {
			rules = append(rules, all(within(prefix, source), toPort(r.Port), returns()))
		}
	}
	return append(rules, all(continues("refused_in")))
}

// toHost are the rules about the host itself: its ports, and its addresses if they are
// named as such. A prefix of several addresses, and the default, do not mean the host: who
// allows 10.0.0.0/8 thinks of other machines.
func toHost(s *Sandbox, then []expr.Any) (rules []rule) {
	for _, r := range s.Egress.Allow {
		switch {
		case r.Host:
			rules = append(rules, all(toPort(r.Port), then))
		case r.Prefix.IsSingleIP():
			rules = append(rules, all(within(r.Prefix, destination), toPort(r.Port), then))
		}
	}
	return rules
}

// Bounds of what is learned from names.
const (
	learnedDefault = time.Minute
	learnedMost    = 1024
)
