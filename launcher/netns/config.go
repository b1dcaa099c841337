// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
)

// Config is what a namespace had on its interfaces. It is kept on record while
// a sandbox has them, to be restored.
type Config struct {
	Links []Link `json:"links"`
}

// Link is an interface that is up.
type Link struct {
	Name string `json:"name"`
	// Index is its number, 0 if that is looked for by the name.
	Index    int  `json:"index"`
	Loopback bool `json:"loopback,omitempty"`
	MTU      int  `json:"mtu"`
	// HardwareAddr is its address as text, "" if it has none.
	HardwareAddr string         `json:"hardwareAddr,omitempty"`
	GSOMaxSize   uint32         `json:"gsoMaxSize,omitempty"`
	Addresses    []netip.Prefix `json:"addresses,omitempty"`
	Routes       []Route        `json:"routes,omitempty"`
	Neighbors    []Neighbor     `json:"neighbors,omitempty"`
}

// Route is a route of the main table.
type Route struct {
	// Destination is 0.0.0.0/0 or ::/0 for the default route.
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway,omitzero"`
	Source      netip.Addr   `json:"source,omitzero"`
	Scope       uint8        `json:"scope,omitempty"`
	Protocol    int          `json:"protocol,omitempty"`
	Priority    int          `json:"priority,omitempty"`
	MTU         int          `json:"mtu,omitempty"`
	OnLink      bool         `json:"onLink,omitempty"`
}

// Neighbor is a permanent entry of the neighbor table.
type Neighbor struct {
	Address      netip.Addr `json:"address"`
	HardwareAddr string     `json:"hardwareAddr"`
}

// HasInterfaces says whether there is anything but loopback.
func (c *Config) HasInterfaces() bool {
	return slices.ContainsFunc(c.Links, func(l Link) bool { return !l.Loopback })
}

// Scrape reads what the interfaces of the namespace have. Those that are down or
// have no address are left out: there is nothing to pass through.
func (n *Namespace) Scrape() (*Config, error) {
	c := &Config{}
	err := n.netlink(func(h *netlink.Handle) error {
		links, err := List(h.LinkList)
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		detached, err := silenced(h)
		if err != nil {
			return err
		}
		for _, l := range links {
			link, err := scrapeLink(h, l, detached)
			if err != nil {
				return fmt.Errorf("read interface %s: %w", l.Attrs().Name, err)
			}
			if link != nil {
				c.Links = append(c.Links, *link)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// netlink calls fn with a netlink socket of the namespace.
func (n *Namespace) netlink(fn func(*netlink.Handle) error) error {
	return n.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink socket: %w", err)
		}
		defer h.Close()
		return fn(h)
	})
}

func scrapeLink(h *netlink.Handle, l netlink.Link, detached map[netip.Addr]bool) (*Link, error) {
	a := l.Attrs()
	if a.Flags&net.FlagUp == 0 {
		return nil, nil
	}
	link := &Link{
		Name: a.Name, Index: a.Index, MTU: a.MTU, Loopback: a.Flags&net.FlagLoopback != 0,
		HardwareAddr: a.HardwareAddr.String(), GSOMaxSize: a.GSOMaxSize,
	}
	addrs, err := List(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && !detached[p.Addr()] {
			link.Addresses = append(link.Addresses, p)
		}
	}
	if len(link.Addresses) == 0 {
		return nil, nil
	}
	routes, err := List(func() ([]netlink.Route, error) { return h.RouteList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		route, err := routeOf(&r)
		if err != nil {
			return nil, err
		}
		link.Routes = append(link.Routes, *route)
	}
	neighbors, err := List(func() ([]netlink.Neigh, error) { return h.NeighList(a.Index, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list neighbors: %w", err)
	}
	for _, n := range neighbors {
		// What is reachable now is found again; what was set stays set.
		if ip, ok := netip.AddrFromSlice(n.IP); ok && n.State == netlink.NUD_PERMANENT && len(n.HardwareAddr) > 0 {
			link.Neighbors = append(link.Neighbors, Neighbor{ip.Unmap(), n.HardwareAddr.String()})
		}
	}
	return link, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	ip = ip.Unmap()
	if bits == 128 && ip.Is4() {
		ones -= 96
	}
	p := netip.PrefixFrom(ip, ones)
	return p, ok && p.IsValid()
}

func routeOf(r *netlink.Route) (*Route, error) {
	out := &Route{Scope: uint8(r.Scope), Protocol: int(r.Protocol), Priority: r.Priority, MTU: r.MTU, OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0}
	if gw, ok := netip.AddrFromSlice(r.Gw); ok {
		out.Gateway = gw.Unmap()
	}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		out.Source = src.Unmap()
	}
	var ok bool
	switch {
	case r.Dst != nil:
		out.Destination, ok = prefixOf(r.Dst)
	case r.Family == netlink.FAMILY_V6:
		out.Destination, ok = netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
	default:
		out.Destination, ok = netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	if !ok || len(r.MultiPath) > 0 {
		return nil, fmt.Errorf("route %s is of a kind that a sandbox can't take over", r)
	}
	return out, nil
}

// Detach has the kernel no longer answer for the addresses of what is passed through: the
// sandbox does. Link-local ones are removed, and their routes with them.
func (n *Namespace) Detach(c *Config) error {
	return n.eachInterface(c, func(h *netlink.Handle, link *Link, l netlink.Link) error {
		already, err := silenced(h)
		if err != nil {
			return err
		}
		for _, p := range link.Addresses {
			err := detach(func() error {
				if stays(p) {
					return silence(h, l, p, already[p.Addr()])
				}
				return unlessNone(h.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)}))
			})
			if err != nil {
				return fmt.Errorf("detach address %s from %s: %w", p, link.Name, err)
			}
		}
		if !slices.ContainsFunc(link.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
			return nil
		}
		if err := detach(func() error { return deafen(h, link.Index) }); err != nil {
			return fmt.Errorf("detach multicast from %s: %w", link.Name, err)
		}
		return nil
	})
}

// detach is one step of Detach.
func detach(step func() error) error { return crashpoint.Do(crashpoint.NetworkTake, step) }

// restore is one step of Restore.
func restore(step func() error) error { return crashpoint.Do(crashpoint.NetworkReturn, step) }

// Restore undoes Detach. An interface that is gone, or another one
// by now, is left alone. It is safe to repeat.
func (n *Namespace) Restore(c *Config) error {
	if err := n.unsilence(c); err != nil {
		return err
	}
	return n.eachInterface(c, func(h *netlink.Handle, link *Link, l netlink.Link) error {
		for _, p := range link.Addresses {
			if err := serve(h, l, p); err != nil {
				return fmt.Errorf("restore address %s on %s: %w", p, link.Name, err)
			}
		}
		// Those without a gateway first: the others lead over them.
		for _, direct := range []bool{true, false} {
			for i := range link.Routes {
				r := &link.Routes[i]
				if r.Gateway.IsValid() == direct {
					continue
				}
				if err := restore(func() error { return c.putRoute(h, link, r) }); err != nil {
					return fmt.Errorf("restore route to %s on %s: %w", r.Destination, link.Name, err)
				}
			}
		}
		for _, n := range link.Neighbors {
			mac, err := net.ParseMAC(n.HardwareAddr)
			if err == nil {
				neigh := &netlink.Neigh{LinkIndex: link.Index, State: netlink.NUD_PERMANENT, IP: n.Address.AsSlice(), HardwareAddr: mac}
				err = restore(func() error { return h.NeighSet(neigh) })
			}
			if err != nil {
				return fmt.Errorf("restore neighbor %s on %s: %w", n.Address, link.Name, err)
			}
		}
		return nil
	})
}

// putRoute has the kernel have a route, if it has not. One of IPv4 that leads to the same over
// another interface would be replaced by it: both are there, and the first counts.
func (c *Config) putRoute(h *netlink.Handle, link *Link, r *Route) error {
	shared := r.Destination.Addr().Is4() && slices.ContainsFunc(c.Links, func(o Link) bool {
		return o.Index != link.Index && slices.ContainsFunc(o.Routes, func(x Route) bool { return x.Destination == r.Destination && x.Priority == r.Priority })
	})
	if !shared {
		return h.RouteReplace(r.netlink(link.Index))
	}
	if err := h.RouteAppend(r.netlink(link.Index)); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// eachInterface calls fn for every interface but loopback that is still there.
func (n *Namespace) eachInterface(c *Config, fn func(*netlink.Handle, *Link, netlink.Link) error) error {
	return n.netlink(func(h *netlink.Handle) error {
		for i := range c.Links {
			link := &c.Links[i]
			if link.Loopback {
				continue
			}
			l, err := h.LinkByIndex(link.Index)
			if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
				continue
			}
			if err != nil {
				return fmt.Errorf("look at interface %s: %w", link.Name, err)
			}
			if l.Attrs().HardwareAddr.String() != link.HardwareAddr {
				continue
			}
			if err := fn(h, link, l); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *Route) netlink(index int) *netlink.Route {
	out := &netlink.Route{
		LinkIndex: index, Dst: ipNet(r.Destination), Scope: netlink.Scope(r.Scope), Protocol: netlink.RouteProtocol(r.Protocol),
		Priority: r.Priority, MTU: r.MTU, Family: netlink.FAMILY_V4,
	}
	if r.Destination.Addr().Is6() {
		out.Family = netlink.FAMILY_V6
	}
	if r.Gateway.IsValid() {
		out.Gw = r.Gateway.AsSlice()
	}
	if r.Source.IsValid() {
		out.Src = r.Source.AsSlice()
	}
	if r.OnLink {
		out.Flags = int(netlink.FLAG_ONLINK)
	}
	return out
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
