// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An address that a sandbox answers for stays on its interface, and the kernel does
// not serve it: a blackhole takes the place of its local route. What set the
// interface up finds the address when it takes it down, which comes before the client
// deletes the container: the bridge plugin of CNI removes its NAT rules by it. Packet
// sockets see what arrives before the blackhole does.
//
// For IPv6 that is not enough. The kernel answers neighbor solicitations for every
// address that it has, and a sandbox that looks whether its address is in use would be
// told that it is, where a bridge sends back what it was sent. They come by multicast:
// the interface loses its multicast route, and the kernel hears none of them.
//
// Link-local addresses of IPv6 are removed: nothing looks for them.

// stays says whether an address stays on its interface.
func stays(p netip.Prefix) bool { return p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() }

// blackholeMetric is that of the blackhole of an IPv6 address: the kernel chooses it
// for routes without one. It tells it from the address's local route, whose metric is 0,
// when it is removed.
const blackholeMetric = 1024

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// blackhole is the route that keeps the kernel from serving an address.
func blackhole(a netip.Addr) *netlink.Route {
	r := &netlink.Route{
		Family: familyOf(a), Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BLACKHOLE,
		Protocol: unix.RTPROT_STATIC,
	}
	if a.Is6() {
		r.Priority = blackholeMetric
	}
	return r
}

// local is the route by which the kernel serves an address, as it makes it itself.
func local(a netip.Addr, index int) *netlink.Route {
	r := &netlink.Route{
		Family: familyOf(a), Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL,
		Protocol: unix.RTPROT_KERNEL, LinkIndex: index,
	}
	if a.Is4() {
		r.Scope, r.Src = netlink.SCOPE_HOST, a.AsSlice()
	}
	return r
}

// multicast is the route by which the kernel hears IPv6 multicast on an interface. It
// makes it again when the interface gets an address.
func multicast(index int) *netlink.Route {
	return &netlink.Route{
		Family: netlink.FAMILY_V6, Dst: ipNet(netip.MustParsePrefix("ff00::/8")), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_MULTICAST,
		LinkIndex: index,
	}
}

// silence has the kernel no longer serve an address; already says that it is silenced.
// There is no moment at which packets for the address are forwarded: in one step it is
// a blackhole, or with IPv6 there is one below the local route before that goes.
func silence(h *netlink.Handle, l netlink.Link, p netip.Prefix, already bool) error {
	err := h.RouteReplace(blackhole(p.Addr()))
	if err != nil || p.Addr().Is4() {
		return err
	}
	err = h.RouteDel(local(p.Addr(), l.Attrs().Index))
	if errors.Is(err, unix.ESRCH) && !already {
		// The kernel still looks for duplicates of the address. It would serve the
		// address when it has found none.
		err = h.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)})
	}
	return unlessNone(err)
}

// deafen has the kernel no longer hear IPv6 multicast on an interface.
func deafen(h *netlink.Handle, index int) error { return unlessNone(h.RouteDel(multicast(index))) }

// unlessNone is the error of a removal, nil if there was nothing to remove.
func unlessNone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

// unsilence removes the blackholes of what was passed through, also for interfaces that are
// gone: another one may get the address.
func (n *Namespace) unsilence(c *Config) error {
	return n.netlink(func(h *netlink.Handle) error {
		for i := range c.Links {
			for _, p := range c.Links[i].Addresses {
				if c.Links[i].Loopback || !stays(p) {
					continue
				}
				err := restore(func() error { return unlessNone(h.RouteDel(blackhole(p.Addr()))) })
				if err != nil {
					return fmt.Errorf("serve address %s again: %w", p, err)
				}
			}
		}
		return nil
	})
}

// serve has the kernel serve an address of an interface again.
func serve(h *netlink.Handle, l netlink.Link, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // it was in use until now
		// Its local route is the kernel's to make, with the address; the multicast
		// route of the interface comes back with it.
		if err := restore(func() error { return unlessNone(h.AddrDel(l, addr)) }); err != nil {
			return err
		}
		return restore(func() error { return h.AddrReplace(l, addr) })
	}
	if err := restore(func() error { return h.AddrReplace(l, addr) }); err != nil {
		return err
	}
	return restore(func() error { return h.RouteReplace(local(p.Addr(), l.Attrs().Index)) })
}

// silenced are the addresses that the kernel does not serve: those of what is
// passed through already.
func silenced(h *netlink.Handle) (map[netip.Addr]bool, error) {
	out := map[netip.Addr]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := List(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BLACKHOLE}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
		if err != nil {
			return nil, fmt.Errorf("list local routes: %w", err)
		}
		for _, r := range routes {
			if p, ok := prefixOf(r.Dst); ok && p.IsSingleIP() {
				out[p.Addr()] = true
			}
		}
	}
	return out, nil
}
