// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/yamldoc"
)

// fill gives what was left out its default.
func (n *NetworkPolicy) fill() {
	n.CNI.fill()
	n.Bridge = cmp.Or(n.Bridge, new(true))
	n.Ports.Min = cmp.Or(n.Ports.Min, DefaultMinPort)
	if n.Ports.Addresses == nil {
		n.Ports.Addresses = []string{AnyAddress}
	}
	if n.Pool == nil {
		n.Pool = networks.DefaultPool
	}
	n.MaxConnections = cmp.Or(n.MaxConnections, hostConnections()/4)
}

// hostConnections is how many connections the kernel keeps for all of the host, or for a
// small one where it does not say.
func hostConnections() int {
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return 1 << 16
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 1 << 16
	}
	return min(max(n, 4*networks.MinConnections), 4*networks.MostConnections)
}

// Pools are the prefixes that subnets are chosen from.
func (n *NetworkPolicy) Pools() (v4, v6 []netip.Prefix) {
	for _, text := range n.Pool {
		switch p, err := netip.ParsePrefix(text); {
		case err != nil: // it was not valid
		case p.Addr().Is4():
			v4 = append(v4, p)
		default:
			v6 = append(v6, p)
		}
	}
	return v4, v6
}

// network checks what a policy says.
func (v *validator) network(n *NetworkPolicy) {
	for i, name := range n.Netns {
		if name != "*" {
			v.NetnsName(fmt.Sprintf("network.netns[%d]", i), name)
		}
	}
	v.cni(&n.CNI)
	if m := n.MaxConnections; m != 0 && (m < networks.MinConnections || m > networks.MostConnections) {
		v.Add("network.maxConnections", "expected a number from %d to %d, got %d", networks.MinConnections, networks.MostConnections, m)
	}
	if n.Ports.Min < 0 || n.Ports.Min > 65535 { // 0 is the default
		v.Add("network.ports.min", "expected a port from 1 to 65535, got %d", n.Ports.Min)
	}
	for i, text := range n.Deny {
		if _, err := networks.ParsePrefix(text); err != nil && text != DenyPrivate {
			v.Add(fmt.Sprintf("network.deny[%d]", i), "expected private, or a prefix such as 10.0.0.0/8, got %q", yamldoc.Clip(text))
		}
	}
	for i, text := range n.Ports.Addresses {
		if _, err := networks.ParsePrefix(text); err != nil && text != AnyAddress {
			v.Add(fmt.Sprintf("network.ports.addresses[%d]", i), "expected an address of the host such as 127.0.0.1, a prefix, or \"*\" for any, got %q", yamldoc.Clip(text))
		}
	}
	var seen []netip.Prefix
	for i, text := range n.Pool {
		at := fmt.Sprintf("network.pool[%d]", i)
		networks.CheckPool(at, text, v.Add)
		p, err := networks.ParsePrefix(text)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(seen, p.Overlaps) {
			v.Add(at, "overlaps with another one; remove one of them")
		}
		seen = append(seen, p)
	}
}

func (v *check) bridge(field string) {
	if !*v.p.Network.Bridge {
		v.Add(field, "%s does not allow networks of sandboxes; use mode: none, or have the administrator set network.bridge", v.p.where())
	}
}

func (v *check) network(n *networks.Network) {
	switch n.Mode {
	case networks.Host:
		if !v.p.Network.Host {
			v.Add("spec.network.mode", "%s does not allow the host's network; use none, or have the administrator set network.host", v.p.where())
		}
	case networks.Netns:
		if allowed := v.p.Network.Netns; !slices.Contains(allowed, "*") && !slices.Contains(allowed, n.Netns) {
			v.Add("spec.network.netns", "%s does not allow the network namespace %q; allowed: %s; use another one, or have the administrator add it to network.netns", v.p.where(), yamldoc.Clip(n.Netns), listed(allowed))
		}
	case networks.CNI:
		v.cni(n)
	case networks.Bridge:
		v.bridge("spec.network.mode")
		v.reach(n)
		if most := v.p.Network.MaxConnections; n.MaxConnections > most {
			v.Add("spec.network.maxConnections", "%s allows at most %d, got %d; use less, or have the administrator set network.maxConnections", v.p.where(), most, n.MaxConnections)
		}
		for i := range n.Ports {
			v.published(fmt.Sprintf("spec.network.ports[%d]", i), &n.Ports[i])
		}
	}
}

// published judges one port of the host.
func (v *check) published(at string, p *networks.Port) {
	if p.HostPort == 0 {
		return
	}
	ports := &v.p.Network.Ports
	if int(p.HostPort) < ports.Min {
		v.Add(at+".hostPort", "%s allows ports of the host from %d, got %d; use another one, or have the administrator set network.ports.min", v.p.where(), ports.Min, p.HostPort)
	}
	if slices.ContainsFunc(ports.Addresses, func(text string) bool {
		prefix, err := networks.ParsePrefix(text)
		return text == AnyAddress || err == nil && prefix.Contains(p.Addr())
	}) {
		return
	}
	if p.HostIP == "" {
		v.Add(at+".hostIP", "is missing: %s does not allow ports at all addresses of the host; allowed: %s; set it to one of these", v.p.where(), listed(ports.Addresses))
		return
	}
	v.Add(at+".hostIP", "%s does not allow ports at %s; allowed: %s; use one of these, or have the administrator add it to network.ports.addresses", v.p.where(), p.HostIP, listed(ports.Addresses))
}

var _ desired.Policy = (*Policy)(nil)
