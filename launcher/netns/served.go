// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An IPv4 address that a sandbox answers for stays on its interface, and the
// kernel does not serve it: a blackhole takes the place of its local route. What
// set the interface up finds the address when it takes it down, which comes before
// the client deletes the container: the bridge plugin of CNI removes its NAT rules
// by it. Packet sockets see what arrives before the blackhole does.
//
// IPv6 addresses are removed instead. The kernel answers neighbor solicitations for
// every address that it has, whatever the routes are, and a sandbox that looks
// whether its address is in use would be told that it is.

// stays says whether an address stays on its interface.
func stays(p netip.Prefix) bool { return p.Addr().Is4() }

// blackhole is the route that keeps the kernel from serving an address.
func blackhole(a netip.Addr) *netlink.Route {
	return &netlink.Route{
		Family: netlink.FAMILY_V4, Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BLACKHOLE,
		Protocol: unix.RTPROT_STATIC,
	}
}

// local is the route by which the kernel serves an address, as it makes it itself.
func local(a netip.Addr, index int) *netlink.Route {
	return &netlink.Route{
		Family: netlink.FAMILY_V4, Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL,
		Protocol: unix.RTPROT_KERNEL, Scope: netlink.SCOPE_HOST, Src: a.AsSlice(), LinkIndex: index,
	}
}

// silence has the kernel no longer serve an address. It is one step: there is no
// moment at which packets for the address are forwarded.
func silence(h *netlink.Handle, a netip.Addr) error { return h.RouteReplace(blackhole(a)) }

// unsilence removes the blackholes of what was lent, also for interfaces that are
// gone: another one may get the address.
func (n *Namespace) unsilence(c *Config) error {
	return n.netlink(func(h *netlink.Handle) error {
		for i := range c.Links {
			for _, p := range c.Links[i].Addresses {
				if c.Links[i].Loopback || !stays(p) {
					continue
				}
				err := putBack(func() error { return h.RouteDel(blackhole(p.Addr())) })
				if err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("serve address %s again: %w", p, err)
				}
			}
		}
		return nil
	})
}

// serve has the kernel serve an address that is on the interface.
func serve(h *netlink.Handle, a netip.Addr, index int) error { return h.RouteReplace(local(a, index)) }

// silenced are the addresses that the kernel does not serve: those that are lent
// already.
func silenced(h *netlink.Handle) (map[netip.Addr]bool, error) {
	routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BLACKHOLE}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return nil, fmt.Errorf("list local routes: %w", err)
	}
	out := map[netip.Addr]bool{}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && p.IsSingleIP() {
			out[p.Addr()] = true
		}
	}
	return out, nil
}
