// SPDX-License-Identifier: Apache-2.0

package links

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/netns"
)

// ErrGone says that the link of a running sandbox is not there any more. It can't be made
// again: the packet socket of the sentry is one of the interface that is gone.
var ErrGone = errors.New("its link was removed")

// Host is what the host has of networks.
type Host struct {
	// Links are the host's ends of links of sandboxes, also of those that no record
	// knows.
	Links []Link
	// Routes are those of all interfaces, and the addresses of the host.
	Routes []netip.Prefix
}

// Link is the host's end of a link.
type Link struct {
	Name string
	// Sandbox is whose it is, by its alias.
	Sandbox string
	Up      bool
	// Addresses are those that are routed to it.
	Addresses []netip.Addr
}

// Look reads what the host has.
func Look() (*Host, error) {
	h, err := open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	list, err := netns.List(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := &Host{}
	ours := map[int]int{}
	for _, l := range list {
		if a := l.Attrs(); IsOurs(a.Name) {
			ours[a.Index] = len(out.Links)
			out.Links = append(out.Links, Link{Name: a.Name, Sandbox: a.Alias, Up: a.Flags&net.FlagUp != 0})
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		// Of all tables: policy routing of VPNs has its own.
		routes, err := netns.List(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for i := range routes {
			r := &routes[i]
			p, ok := prefix(r.Dst)
			if !ok || p.Bits() == 0 || !p.Addr().IsGlobalUnicast() {
				continue
			}
			if at, is := ours[r.LinkIndex]; is {
				// Also gateways, which the local table has.
				if r.Table != unix.RT_TABLE_LOCAL && p.IsSingleIP() {
					out.Links[at].Addresses = append(out.Links[at].Addresses, p.Addr())
				}
				continue
			}
			out.Routes = append(out.Routes, p)
		}
	}
	return out, nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	p := netip.PrefixFrom(ip, ones)
	return p, ok && p.IsValid()
}

// Restore sets up again what somebody has removed of the host's end of a link: its
// addresses, neighbors, routes and settings, or that it is up. It changes nothing where
// nothing is missing. ErrGone if there is no link.
func Restore(a *Attachment) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := find(h, a.Link)
	if err != nil {
		return err
	}
	if l == nil || !bytes.Equal(l.Attrs().HardwareAddr, a.hostAddr()) {
		return fmt.Errorf("network of %s: link %s: %w", a.Sandbox, a.Link, ErrGone)
	}
	if err := setHost(h, a); err != nil {
		return fmt.Errorf("repair the network of %s: %w", a.Sandbox, err)
	}
	return nil
}

// Missing says what of the host's end is not as it was set up; nothing if all is.
func Missing(a *Attachment) ([]string, error) {
	h, err := open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	l, err := find(h, a.Link)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return []string{"link " + a.Link}, nil
	}
	var out []string
	if l.Attrs().Flags&net.FlagUp == 0 {
		out = append(out, "link "+a.Link+" is down")
	}
	addrs, err := netns.List(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", a.Link, err)
	}
	routes, err := netns.List(func() ([]netlink.Route, error) { return h.RouteList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list routes of %s: %w", a.Link, err)
	}
	neighbors, err := netns.List(func() ([]netlink.Neigh, error) { return h.NeighList(l.Attrs().Index, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list neighbors of %s: %w", a.Link, err)
	}
	changed, err := otherSysctls(a)
	if err != nil {
		return nil, err
	}
	out = append(out, changed...)
	for _, f := range a.families() {
		if !slices.ContainsFunc(addrs, func(x netlink.Addr) bool { return x.IP.Equal(f.gateway.AsSlice()) }) {
			out = append(out, fmt.Sprintf("address %s of %s", f.gateway, a.Link))
		}
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool {
			p, ok := prefix(r.Dst)
			return ok && p.IsSingleIP() && p.Addr() == f.sandbox
		}) {
			out = append(out, fmt.Sprintf("route to %s over %s", f.sandbox, a.Link))
		}
		if !slices.ContainsFunc(neighbors, func(n netlink.Neigh) bool {
			return n.IP.Equal(f.sandbox.AsSlice()) && n.State == netlink.NUD_PERMANENT && bytes.Equal(n.HardwareAddr, a.guestAddr())
		}) {
			out = append(out, fmt.Sprintf("neighbor %s on %s", f.sandbox, a.Link))
		}
	}
	return out, nil
}
