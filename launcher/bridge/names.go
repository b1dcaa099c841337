// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"net/netip"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/names"
)

// directory is what the sandboxes are called that may run, and what each may ask: by the
// same records and manifests as the rules of the firewall. A sandbox is in it before its
// application is started, which may ask at once.
func directory(records []*actual.Record, wanted map[string]*networks.Network) *names.Directory {
	return names.New(sandboxes(records, wanted))
}

func sandboxes(records []*actual.Record, wanted map[string]*networks.Network) (all []names.Sandbox) {
	for _, r := range records {
		if attached(r) {
			all = append(all, named(r, networkOf(r, wanted)))
		}
	}
	return all
}

// named is a sandbox as others see it.
func named(r *actual.Record, n *networks.Network) names.Sandbox {
	out := names.Sandbox{Name: r.Name, Aliases: slices.Clone(n.Aliases), Outside: names.Outside{Servers: n.DNS.Addrs()}}
	for i := range r.Attachments {
		a := &r.Attachments[i]
		at := names.Attachment{
			Network: a.Network, Address4: a.Address4, Address6: a.Address6, Gateway4: gateway(a.Subnet4), Gateway6: gateway(a.Subnet6),
			Internal: a.Internal, Isolated: a.Isolated,
		}
		for _, p := range []netip.Prefix{a.Subnet4, a.Subnet6} {
			if p.IsValid() {
				at.Subnets = append(at.Subnets, p)
			}
		}
		out.Attachments = append(out.Attachments, at)
	}
	for _, e := range n.ExtraHosts {
		out.Extra = append(out.Extra, names.ExtraHost{Address: e.Addr(), Names: e.Names})
	}
	for _, rule := range n.Egress.Rules() {
		if rule.Host != "" {
			out.Outside.Names = append(out.Outside.Names, rule.Host)
		}
	}
	// Who names servers has said whom questions go to.
	out.Outside.Closed = n.Egress.Otherwise() == networks.Deny && len(out.Outside.Servers) == 0
	return out
}

// ResolvConf is the resolv.conf that a sandbox is started with.
func ResolvConf(r *actual.Record, n *networks.Network) string {
	own := named(r, n)
	search, options := []string(nil), []string(nil)
	if n.DNS != nil {
		search, options = n.DNS.Search, n.DNS.Options
	}
	return string(names.ResolvConf(&own, search, options))
}
