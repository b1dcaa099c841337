// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"cmp"
	"slices"
	"strings"
)

// Values of Network.Mode.
const (
	None   = "none"   // loopback only
	Bridge = "bridge" // networks that this program makes
	CNI    = "cni"    // networks that plugins of CNI make
	Netns  = "netns"  // an existing network namespace
	Host   = "host"   // the host's own network; the host policy must allow it
)

// Network is the spec.network of a sandbox: what it can reach, and who reaches it.
type Network struct {
	// `none`: its own loopback. `bridge`: networks that sandboxctl makes. `netns`: the
	// interfaces of a network namespace. `cni`: what plugins of CNI make of networks that are
	// configured on the host. `host`: what the host reaches. The host policy must
	// allow the last three. Default: `bridge` if one of the fields below `cni` is given, else
	// `none`.
	Mode string `json:"mode,omitempty"`
	// With `mode: netns`: a name in `/run/netns`, as `ip netns` lists them.
	Netns string `json:"netns,omitempty"`
	// With `mode: cni`: the `name` of a network in a file of `/etc/cni/net.d`, or a list of at
	// most 4, in which the sandbox has `eth0`, `eth1`, and so on.
	CNI CNINames `json:"cni,omitempty"`
	// With `mode: bridge`: names of networks, at most 8. The sandbox has an interface in each;
	// the first one that is not `internal` has the default route. Default: `[default]`.
	Join []string `json:"join,omitempty"`
	// With `mode: bridge` and one network: the address there, or a list of one for each
	// family. Default: one that nobody has, which the sandbox keeps.
	Address Addresses `json:"address,omitempty"`
	// More names that sandboxes on common networks find it by. A change restarts nothing.
	Aliases []string `json:"aliases,omitempty"`
	// Ports of the application, and where the host publishes them, with `mode: bridge` or `cni`.
	// A change restarts nothing, but with `cni` the sandbox.
	Ports []Port `json:"ports,omitempty"`
	// What the sandbox may reach. A change restarts nothing.
	Egress *Reach `json:"egress,omitempty"`
	// Who may connect to the sandbox, its published ports included; `public` is not for it,
	// and neither are names and `host:PORT`. A change restarts nothing.
	Ingress *Reach `json:"ingress,omitempty"`
	// How much passes each interface of the sandbox, see
	// [Bandwidth](../guide/network.md#bandwidth). A change restarts nothing.
	Bandwidth *Bandwidth `json:"bandwidth,omitempty"`
	// How names are looked up.
	DNS *DNS `json:"dns,omitempty"`
	// Addresses with names that the sandbox alone finds them by. A change restarts nothing.
	ExtraHosts []ExtraHost `json:"extraHosts,omitempty"`
	// With `mode: bridge`: how many connections the host's kernel may keep for the sandbox at a
	// time, 16 or more and at most `network.maxConnections` of the host policy; more are refused.
	// A change restarts nothing. Default: a sixteenth of those that the kernel keeps for all of the host.
	MaxConnections int `json:"maxConnections,omitempty"`
}

// bridged are the fields that only mode bridge has, if they are given.
func (n *Network) bridged() (fields []string) {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"join", len(n.Join) > 0},
		{"address", len(n.Address) > 0},
		{"aliases", len(n.Aliases) > 0},
		{"egress", n.Egress != nil},
		{"ingress", n.Ingress != nil},
		{"bandwidth", n.Bandwidth != nil},
		{"dns", n.DNS != nil},
		{"extraHosts", len(n.ExtraHosts) > 0},
		{"maxConnections", n.MaxConnections != 0},
	} {
		if f.given {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// Fill gives what was left out its default.
func (n *Network) Fill() {
	if n.Mode == "" {
		n.Mode = None
		if len(n.Ports) > 0 || len(n.bridged()) > 0 {
			n.Mode = Bridge
		}
	}
	for i := range n.Ports {
		n.Ports[i].Protocol = strings.ToUpper(cmp.Or(n.Ports[i].Protocol, TCP))
	}
	if n.Mode != Bridge {
		return
	}
	if len(n.Join) == 0 {
		n.Join = []string{DefaultName}
	}
	for _, r := range []*Reach{n.Egress, n.Ingress} {
		if r == nil {
			continue
		}
		// Who lists what is allowed means that nothing else is.
		r.Default = cmp.Or(r.Default, map[bool]string{true: Deny, false: Allow}[len(r.Allow) > 0])
	}
}

// Restarting is what of it needs a new sandbox when it changes. The rest is rules and files
// on the host, which are changed beside what runs.
func (n Network) Restarting() Network {
	out := Network{Mode: n.Mode, Netns: n.Netns, CNI: n.CNI, Join: n.Join, Address: n.Address, DNS: n.DNS}
	if n.Mode == CNI {
		out.Ports = n.Ports // plugins are told once
	}
	return out
}

// publishes says whether the mode has ports of the host.
func (n *Network) publishes() bool { return n.Mode == Bridge || n.Mode == CNI }

// Published are the ports that the host is to have, none in modes without them.
func (n *Network) Published() []Port {
	if !n.publishes() || !slices.ContainsFunc(n.Ports, func(p Port) bool { return p.HostPort != 0 }) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(n.Ports), func(p Port) bool { return p.HostPort == 0 })
}

// Overlaps says whether two published ports take the same port of the host, at a common
// address.
func (p *Port) Overlaps(o *Port) bool {
	_, a := p.First()
	_, b := o.First()
	return p.HostPort != 0 && o.HostPort != 0 && p.Protocol == o.Protocol &&
		int(p.HostPort) < int(o.HostPort)+b && int(o.HostPort) < int(p.HostPort)+a &&
		(p.HostIP == "" || o.HostIP == "" || p.Addr() == o.Addr())
}

// Wants says whether the sandbox asks for a port of the host or an address of its own.
func (n *Network) Wants() bool {
	return n.publishes() && (len(n.Address) > 0 || slices.ContainsFunc(n.Ports, func(p Port) bool { return p.HostPort != 0 }))
}

// Joins says whether the sandbox has an interface in a network.
func (n *Network) Joins(name string) bool { return n.Mode == Bridge && slices.Contains(n.Join, name) }

// Describe is a published port for a sentence: 127.0.0.1:8080/TCP.
func (p *Port) Describe() string {
	ports := portsText(p.HostPort, 1)
	if _, count := p.First(); count > 1 {
		ports = portsText(p.HostPort, count)
	}
	if p.HostIP != "" {
		host := p.HostIP
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		ports = host + ":" + ports
	}
	return ports + "/" + p.Protocol
}
