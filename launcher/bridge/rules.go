// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/ownfield"
	"sandboxctl.dev/launcher/addresses"
	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/flows"
	"sandboxctl.dev/launcher/inforce"
	"sandboxctl.dev/launcher/links"
)

// attached says whether a record may have links: from before the first is made until its
// processes are proven dead.
func attached(r *actual.Record) bool { return len(r.Attachments) > 0 && r.Phase != actual.PhaseStopped }

// ruleset is what the firewall is to have: of the records that may run, and of what
// manifests say of them now, or said when they were started if there is no manifest.
// Refused are published ports that can't be, by sandbox; held says of one why a program of
// the host keeps it from that.
func ruleset(records []*actual.Record, wanted map[string]*networks.Network, held func(*networks.Port) string) (_ *firewall.Ruleset, refused map[string][]string) {
	running := slices.DeleteFunc(slices.Clone(records), func(r *actual.Record) bool { return !attached(r) })
	// Who was first keeps a port.
	slices.SortFunc(running, func(a, b *actual.Record) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Name, b.Name))
	})
	out := &firewall.Ruleset{}
	refused = map[string][]string{}
	type publisher struct {
		port *networks.Port
		name string
	}
	var published []publisher
	for _, r := range running {
		s := firewall.Sandbox{Name: r.Name, Attachments: attachments(r)}
		if n := networkOf(r, wanted); n != nil {
			s.Egress, s.Ingress, s.Connections = reach(n.Egress), reach(n.Ingress), n.MaxConnections
			ports := n.Published()
			for i := range ports {
				p := &ports[i]
				if at := slices.IndexFunc(published, func(o publisher) bool { return p.Overlaps(o.port) }); at >= 0 {
					refused[r.Name] = append(refused[r.Name], fmt.Sprintf("port %s is published by %s", p.Describe(), published[at].name))
					continue
				}
				if !reachable(r, p.Addr()) {
					refused[r.Name] = append(refused[r.Name], fmt.Sprintf("port %s can't be published: the sandbox has no address of that family", p.Describe()))
					continue
				}
				if why := held(p); why != "" {
					refused[r.Name] = append(refused[r.Name], why)
					continue
				}
				published = append(published, publisher{p, r.Name})
				container, count := p.First()
				s.Ports = append(s.Ports, firewall.Port{
					Protocol: strings.ToLower(p.Protocol), HostIP: p.Addr(), HostPort: p.HostPort, To: container, Count: count,
				})
			}
		}
		out.Sandboxes = append(out.Sandboxes, s)
	}
	return out, refused
}

// bound gives the sandboxes whose manifests say nothing their share of the connections that
// the kernel keeps for all of the host; most is what the host policy allows, 0 if that is
// not known.
func bound(rules *firewall.Ruleset, kernel flows.Settings, most int) {
	if len(rules.Sandboxes) == 0 {
		return
	}
	rules.Kept = firewall.Kept{Datagrams: kernel.Datagrams, TCP: kernel.TCP, Other: kernel.Other, Established: kernel.Established, States: kernel.States}
	each := kernel.Each()
	if most > 0 {
		each = min(each, most)
	}
	for i := range rules.Sandboxes {
		s := &rules.Sandboxes[i]
		s.Connections = cmp.Or(s.Connections, each)
	}
}

// reachable says whether the record has an address of the family.
func reachable(r *actual.Record, host netip.Addr) bool {
	return !host.IsValid() || slices.ContainsFunc(r.Attachments, func(a actual.Attachment) bool {
		return host.Is4() && a.Address4.IsValid() || host.Is6() && a.Address6.IsValid()
	})
}

// networkOf is what counts for a record: what is in force, or that of its last start.
func networkOf(r *actual.Record, inForce map[string]*networks.Network) *networks.Network {
	if n := inForce[r.Name]; n != nil {
		return n
	}
	return inforce.Recorded(r)
}

func reach(r *networks.Reach) firewall.Reach {
	out := firewall.Reach{Default: r.Otherwise()}
	if r != nil {
		out.Log, out.LogAllowed = r.Log, r.LogAllowed
	}
	for _, rule := range r.Rules() {
		out.Allow = append(out.Allow, firewall.Rule{Prefix: rule.Prefix, Name: rule.Host, Sandbox: rule.Sandbox, Host: rule.TheHost, Port: rule.Port})
	}
	return out
}

// logGroup is where packets are logged to, if rules log some. It is part of a round of
// rules: a log that can't be had keeps no rule from being installed, and is tried again by
// the next round.
func (k *Keeper) logGroup(rules *firewall.Ruleset) uint16 {
	if !slices.ContainsFunc(rules.Sandboxes, func(s firewall.Sandbox) bool {
		return s.Egress.Log || s.Egress.LogAllowed || s.Ingress.Log || s.Ingress.LogAllowed
	}) {
		return 0
	}
	group, err := k.packets.Open()
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != k.unlogged && why != "" {
		k.log.Warn("packets of sandboxes are not logged, will retry", "err", err)
	}
	k.unlogged = why
	return group
}

func attachments(r *actual.Record) []firewall.Attachment {
	out := make([]firewall.Attachment, len(r.Attachments))
	for i := range r.Attachments {
		a := &r.Attachments[i]
		out[i] = firewall.Attachment{
			Sandbox: r.Name, Network: a.Network, Link: a.Link, Address4: a.Address4, Address6: a.Address6,
			Gateway4: gateway(a.Subnet4), Gateway6: gateway(a.Subnet6), Internal: a.Internal, Isolated: a.Isolated,
		}
	}
	return out
}

// Places are where a record has its sandbox on networks.
func Places(r *actual.Record) (out []ownfield.Place) {
	for i := range r.Attachments {
		a := &r.Attachments[i]
		out = append(out, ownfield.Place{Network: a.Network, Address4: a.Address4, Address6: a.Address6})
	}
	return out
}

// gateway is the host's address on links to a subnet.
func gateway(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	return addresses.Gateway(p)
}

// link is how an attachment of a record is set up.
func link(r *actual.Record, i int) *links.Attachment {
	a := &r.Attachments[i]
	out := &links.Attachment{
		Sandbox: r.Name, Link: a.Link, Guest: a.Interface, MTU: a.MTU, Default: a.Default,
		Address4: a.Address4, Address6: a.Address6, Gateway4: gateway(a.Subnet4), Gateway6: gateway(a.Subnet6),
	}
	for _, p := range []netip.Prefix{a.Subnet4, a.Subnet6} {
		if p.IsValid() {
			out.Routes = append(out.Routes, p)
		}
	}
	return out
}

// Links are the links of a record, as they are to be.
func Links(r *actual.Record) []*links.Attachment {
	out := make([]*links.Attachment, len(r.Attachments))
	for i := range out {
		out[i] = link(r, i)
	}
	return out
}
