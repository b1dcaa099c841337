// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Values of Port.Protocol.
const (
	TCP = "TCP"
	UDP = "UDP"
)

// Port is a port of the application, or a range of them, and where the host publishes it.
type Port struct {
	// A word for the port, such as `web`, unique in the manifest.
	Name string `json:"name,omitempty"`
	// The port in the sandbox.
	ContainerPort uint16 `json:"containerPort,omitempty"`
	// Ports in the sandbox, such as `6000-6010`, in place of `containerPort`. `hostPort` is
	// then the port of the host for the first of them, and the others follow.
	Range string `json:"range,omitempty"`
	// The port of the host that leads there. Default: none, the port is not published.
	HostPort uint16 `json:"hostPort,omitempty"`
	// The address of the host that is published at, such as `127.0.0.1` or `"::1"`. Default:
	// all addresses.
	HostIP string `json:"hostIP,omitempty"`
	// What is spoken there. Default: `TCP`.
	Protocol string `json:"protocol,omitempty"`
}

// First is the first port in the sandbox, and how many there are: 1 without a range. Both
// are 0 if the range is not valid.
func (p *Port) First() (container uint16, count int) {
	if p.Range == "" {
		return p.ContainerPort, 1
	}
	first, last, err := parseRange(p.Range)
	if err != nil {
		return 0, 0
	}
	return first, int(last) - int(first) + 1
}

// Addr is HostIP, or the zero address for all.
func (p *Port) Addr() netip.Addr { return addr(p.HostIP) }

// addr is the address that a text of a checked manifest says, zero if it says none.
func addr(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// parseRange takes 6000-6010 apart.
func parseRange(text string) (first, last uint16, err error) {
	a, b, ok := strings.Cut(text, "-")
	if ok {
		if first, ok = parsePort(a); ok {
			last, ok = parsePort(b)
		}
	}
	if !ok || first > last {
		return 0, 0, fmt.Errorf("expected two ports such as 6000-6010, the lower one first, got %q", text)
	}
	return first, last, nil
}

// parsePort reads a port as it is written: without signs and zeros in front of it.
func parsePort(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n > 0 && strconv.FormatUint(n, 10) == text
}

// Values of Reach.Default.
const (
	Allow  = "allow"
	Deny   = "deny"
	Public = "public"
)

// Reach is whom a sandbox may talk to, or who may talk to it.
type Reach struct {
	// What counts for whom no rule names. `public` is for egress only: addresses of the
	// Internet, not private, link-local and other special ones, and not the host's own.
	// Default: `deny` if `allow` is given, else `allow`.
	Default string `json:"default,omitempty"`
	// Whom traffic is allowed with besides: prefixes (`10.0.0.0/8`), prefixes with a port
	// (`10.1.2.3/32:443`, `"[fd00::/8]:53"`), other sandboxes on a common network
	// (`sandbox:db`, `sandbox:db:5432`). For egress also names (`example.org:443`) and ports
	// of the host itself (`host:5432`). A port is one of the side that is connected to.
	Allow []string `json:"allow,omitempty"`
	// What is refused is told in the log of the daemon: the sandbox, the protocol, and both
	// addresses with their ports. At most a packet in a second for each sandbox and direction,
	// after the first 20; of more their number is told. Default: `false`.
	Log bool `json:"log,omitempty"`
	// The same for the first packet of each connection that is allowed. Default: `false`.
	LogAllowed bool `json:"logAllowed,omitempty"`
}

// Rules are the entries of a checked list.
func (r *Reach) Rules() []Rule {
	if r == nil {
		return nil
	}
	out := make([]Rule, 0, len(r.Allow))
	for _, text := range r.Allow {
		if rule, err := ParseRule(text); err == nil {
			out = append(out, rule)
		}
	}
	return out
}

// Otherwise is what counts for whom no rule names; r may be nil.
func (r *Reach) Otherwise() string {
	if r == nil {
		return Allow
	}
	return cmp.Or(r.Default, Allow)
}

// DNS is how a sandbox finds addresses of names.
type DNS struct {
	// Servers that are asked instead of those of the host, by the daemon in the place of the
	// sandbox. With them any name is asked for, also where `egress` denies what no rule names.
	Servers []string `json:"servers,omitempty"`
	// Domains that names without a dot are looked up in.
	Search []string `json:"search,omitempty"`
	// Options of resolv.conf(5), such as `ndots:2`.
	Options []string `json:"options,omitempty"`
}

// Addrs are the servers of a checked manifest.
func (d *DNS) Addrs() []netip.Addr {
	if d == nil {
		return nil
	}
	return addrs(d.Servers)
}

// HostGateway stands for the host itself as the address of an ExtraHost, as in docker.
const HostGateway = "host-gateway"

// ExtraHost is an address with names that a sandbox finds it by.
type ExtraHost struct {
	// The address, or `host-gateway`: the host, as the sandbox reaches it.
	IP string `json:"ip"`
	// Its names.
	Names []string `json:"names"`
}

// Addr is the address of a checked manifest, not valid if that is HostGateway.
func (h *ExtraHost) Addr() netip.Addr { return addr(h.IP) }

// Addresses are one address, or one for each family.
type Addresses []string

// OneOrMany says that one text may stand for a list of it.
func (Addresses) OneOrMany() {}

// UnmarshalJSON reads "10.210.0.9" or a list.
func (a *Addresses) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*a = Addresses{""}
		return json.Unmarshal(b, &(*a)[0])
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// Addrs are the addresses of a checked manifest.
func (a Addresses) Addrs() []netip.Addr { return addrs(a) }

func addrs(texts []string) (out []netip.Addr) {
	for _, text := range texts {
		if a := addr(text); a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// CNINames are one network of CNI, or several.
type CNINames []string

// OneOrMany says that one text may stand for a list of it.
func (CNINames) OneOrMany() {}

// UnmarshalJSON reads "lab" or a list.
func (c *CNINames) UnmarshalJSON(b []byte) error { return (*Addresses)(c).UnmarshalJSON(b) }

// MarshalJSON writes one as a text: the hash of a manifest is that of what is written.
func (c CNINames) MarshalJSON() ([]byte, error) {
	if len(c) == 1 {
		return json.Marshal(c[0])
	}
	return json.Marshal([]string(c))
}

// Declared is the spec of a Network document: what a network is to be. A change restarts the
// sandboxes on it, if nothing else is said.
type Declared struct {
	// The IPv4 addresses of the network, `/8` to `/30`, of a private range, such as
	// `10.44.0.0/24`. The first one is that of the gateway. Default: one of the pool of the
	// host policy that nobody has, chosen once.
	Subnet string `json:"subnet,omitempty"`
	// The IPv6 addresses of the network, `/48` to `/126`, such as `fd44::/64`. Default: as of
	// `subnet`.
	Subnet6 string `json:"subnet6,omitempty"`
	// The network has IPv6 addresses. Default: `true`.
	IPv6 *bool `json:"ipv6,omitempty"`
	// Nothing but the sandboxes on the network can be reached through it. A change takes effect
	// at once. Default: `false`.
	Internal bool `json:"internal,omitempty"`
	// The largest packet, 1280 to 65535 bytes. Default: 1500.
	MTU int `json:"mtu,omitempty"`
	// The sandboxes on the network can't reach each other through it. A change takes effect
	// at once. Default: `false`.
	Isolation bool `json:"isolation,omitempty"`
}

// DefaultMTU is that of Ethernet.
const DefaultMTU = 1500

// DefaultName is the network that sandboxes join which name none. It is there without a
// document.
const DefaultName = "default"

// Fill gives what was left out its default. Subnets of the pool are chosen elsewhere.
func (s *Declared) Fill() {
	s.IPv6 = cmp.Or(s.IPv6, new(true))
	s.MTU = cmp.Or(s.MTU, DefaultMTU)
}

// Values are what a document says, for those who compare two.
func (s *Declared) Values() map[string][]byte {
	out := map[string][]byte{"ipv6": fmt.Append(nil, *s.IPv6), "internal": fmt.Append(nil, s.Internal), "isolation": fmt.Append(nil, s.Isolation), "mtu": fmt.Append(nil, s.MTU)}
	for key, text := range map[string]string{"subnet": s.Subnet, "subnet6": s.Subnet6} {
		if text != "" {
			out[key] = []byte(text)
		}
	}
	return out
}

// Value is what a document says by one of its keys, such as subnet.
func (s *Declared) Value(key string) string { return string(s.Values()[key]) }

// DefaultPool is what subnets are chosen from without another word of the host policy.
var DefaultPool = []string{"10.208.0.0/12", "fd5b:9c7e:210::/48"}

// Refuses says why no sandbox can have an address in the subnets that a checked document
// has, "" if one can.
func (s *Declared) Refuses(a netip.Addr) string {
	p := s.Prefix4()
	if a.Is6() {
		p = s.Prefix6()
		if !*s.IPv6 {
			return "the network has no IPv6"
		}
	}
	switch {
	case !p.IsValid(): // it is chosen when it is needed
		return ""
	case !p.Contains(a):
		return "its subnet is " + p.String()
	case a == p.Addr(), a.Prev() == p.Addr():
		return "the first addresses of " + p.String() + " are those of the network and its gateway"
	case a.Is4() && !p.Contains(a.Next()):
		return "the last address of " + p.String() + " is for broadcasts"
	}
	return ""
}

// Prefix4 is the subnet of a checked document, zero if one is to be chosen.
func (s *Declared) Prefix4() netip.Prefix { return prefix(s.Subnet) }

// Prefix6 is the IPv6 subnet of a checked document, zero if one is to be chosen or the
// network has none.
func (s *Declared) Prefix6() netip.Prefix { return prefix(s.Subnet6) }

func prefix(text string) netip.Prefix {
	if text == "" {
		return netip.Prefix{} // an error would be an allocation, of each pass
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
