// SPDX-License-Identifier: Apache-2.0

package links

import (
	"net/netip"
	"slices"

	"sandboxctl.dev/launcher/netns"
)

// segment is how much a veth takes at once, to be cut by the kernel.
const segment = 1 << 16

// Config is what the network stack of a sandbox has of its links: its addresses, what is reached
// over each, and whom it finds there without asking.
func Config(all []*Attachment) *netns.Config {
	c := &netns.Config{}
	for _, a := range all {
		l := netns.Link{Name: a.Guest, MTU: a.MTU, HardwareAddr: a.guestAddr().String(), GSOMaxSize: segment}
		for _, f := range a.families() {
			l.Addresses = append(l.Addresses, netip.PrefixFrom(f.sandbox, f.sandbox.BitLen()))
			l.Neighbors = append(l.Neighbors, netns.Neighbor{Address: f.gateway, HardwareAddr: a.hostAddr().String()})
			to := a.Routes
			if a.Default {
				to = append(slices.Clip(to), f.everything())
			}
			for _, p := range to {
				if p.Addr().Is4() == f.sandbox.Is4() {
					l.Routes = append(l.Routes, netns.Route{Destination: p.Masked(), Gateway: f.gateway, OnLink: true})
				}
			}
		}
		c.Links = append(c.Links, l)
	}
	return c
}
