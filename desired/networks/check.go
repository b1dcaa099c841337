// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	"sandboxctl.dev/desired/yamldoc"
)

// Bounds of lists: of each entry there are rules of the host.
const (
	maxJoin       = 8
	maxAliases    = 16
	maxPorts      = 100
	maxRange      = 1000
	maxPublished  = 1000 // ports of the host, of one manifest
	maxRules      = 200
	maxServers    = 3 // as C libraries read
	maxSearch     = 32
	maxOptions    = 16
	maxExtraHosts = 100
	maxHostNames  = 20
)

// Add takes one thing that is wrong with a field.
type Add func(field, format string, args ...any)

// Check tells everything that is wrong with a network with defaults. at is its path. The
// values of the mode and the name of a namespace are checked elsewhere.
func (n *Network) Check(at string, add Add) {
	if n.Mode != Bridge {
		for _, f := range n.bridged() {
			add(at+"."+f, "is for network.mode bridge only, which is %s", n.Mode)
		}
	}
	n.checkCNI(at+".cni", add)
	c := check{add}
	c.join(at+".join", n.Join)
	c.addresses(at+".address", n)
	c.aliases(at+".aliases", n.Aliases)
	c.ports(at+".ports", n)
	c.reach(at+".egress", n.Egress, true)
	c.reach(at+".ingress", n.Ingress, false)
	c.bandwidth(at+".bandwidth", n.Bandwidth)
	c.dns(at+".dns", n.DNS)
	c.extraHosts(at+".extraHosts", n.ExtraHosts)
	if m := n.MaxConnections; m != 0 && (m < MinConnections || m > MostConnections) {
		add(at+".maxConnections", "expected a number from %d to %d, got %d", MinConnections, MostConnections, m)
	}
}

// cniName is what CNI lets networks be called.
var cniName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`) })

// mostCNI is how many networks of CNI a sandbox may be on: what plugins are told and return is
// on record, up to 128 KiB for each.
const mostCNI = 4

// checkCNI checks the networks of CNI.
func (n *Network) checkCNI(at string, add Add) {
	switch {
	case n.Mode != CNI && len(n.CNI) > 0:
		add(at, "is for network.mode cni only, which is %s", n.Mode)
	case n.Mode == CNI && len(n.CNI) == 0:
		CheckCNIName(at, "", add)
	case len(n.CNI) == 1:
		CheckCNIName(at, n.CNI[0], add)
	case len(n.CNI) > mostCNI:
		add(at, "expected at most %d networks, got %d", mostCNI, len(n.CNI))
	case n.Mode == CNI:
		for i, name := range n.CNI {
			each := fmt.Sprintf("%s[%d]", at, i)
			CheckCNIName(each, name, add)
			if slices.Contains(n.CNI[:i], name) {
				add(each, "is given twice: %s", yamldoc.Clip(name))
			}
		}
	}
}

// CheckCNIName checks the name of a network of CNI.
func CheckCNIName(at, name string, add Add) {
	if !cniName().MatchString(name) {
		add(at, "expected the name of a network of CNI, as a file of /etc/cni/net.d has it (letters, digits, _ . and -), got %q", yamldoc.Clip(name))
	}
}

// Bounds of Network.MaxConnections, whatever the host policy says: each takes memory of the
// kernel.
const (
	MinConnections  = 16
	MostConnections = 1_000_000
)

type check struct{ add Add }

// atMost checks the length of a list.
func (c check) atMost(at string, n, most int) bool {
	if n > most {
		c.add(at, "expected at most %d entries, got %d", most, n)
	}
	return n <= most
}

// Label checks a name of a network or a port.
func (c check) label(at, s string) {
	if !validLabel(s) {
		c.add(at, "expected a DNS label (at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit), got %q", yamldoc.Clip(s))
	}
}

// once checks that no text is given twice.
func (c check) once(at string, list []string) {
	for i, s := range list {
		if j := slices.Index(list[:i], s); j >= 0 {
			c.add(fmt.Sprintf("%s[%d]", at, i), "%s is given twice; remove one of them", yamldoc.Clip(s))
		}
	}
}

func (c check) join(at string, names []string) {
	if !c.atMost(at, len(names), maxJoin) {
		return
	}
	for i, n := range names {
		c.label(fmt.Sprintf("%s[%d]", at, i), n)
	}
	c.once(at, names)
}

func (c check) addresses(at string, n *Network) {
	if len(n.Address) > 0 && len(n.Join) > 1 {
		c.add(at, "is possible with one network only, and join has %d; leave it out, or join one", len(n.Join))
	}
	var v4, v6 bool
	for i, text := range n.Address {
		field := at
		if len(n.Address) > 1 {
			field = fmt.Sprintf("%s[%d]", at, i)
		}
		a, ok := c.address(field, text)
		switch {
		case !ok:
		case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast():
			c.add(field, "expected an address of the network, got %s", a)
		case a.Is4() && v4, a.Is6() && v6:
			c.add(field, "expected one address for each family, got a second one")
		}
		v4, v6 = v4 || a.Is4(), v6 || a.Is6()
	}
}

// address checks an address without a zone that is not an IPv4 address in disguise.
func (c check) address(at, text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	switch {
	case text == HostGateway:
		c.add(at, "host-gateway is no address, and stands for one in extraHosts only; ports of the host are allowed with egress: {allow: [\"host:5432\"]}")
	case err != nil || a.Zone() != "":
		c.add(at, "expected an address such as 10.0.0.5 or fd00::5, got %q", yamldoc.Clip(text))
	case a.Is4In6():
		c.add(at, "expected an IPv4 address as such, got %q; did you mean %q?", yamldoc.Clip(text), a.Unmap())
	default:
		return a, true
	}
	return netip.Addr{}, false
}

func (c check) aliases(at string, names []string) {
	if !c.atMost(at, len(names), maxAliases) {
		return
	}
	for i, n := range names {
		c.name(fmt.Sprintf("%s[%d]", at, i), n)
	}
	c.once(at, names)
}

// name checks a DNS name, which has one spelling.
func (c check) name(at, text string) {
	switch name, err := ParseName(text); {
	case err != nil:
		c.add(at, "%v", err)
	case name != text:
		c.add(at, "expected a name in lower case and without a dot at its end, got %q; did you mean %q?", yamldoc.Clip(text), yamldoc.Clip(name))
	}
}

func (c check) ports(at string, n *Network) {
	if !c.atMost(at, len(n.Ports), maxPorts) {
		return
	}
	published := 0
	for i := range n.Ports {
		p, field := &n.Ports[i], fmt.Sprintf("%s[%d]", at, i)
		if !c.port(field, p) {
			continue
		}
		if _, count := p.First(); p.HostPort != 0 {
			if published += count; published > maxPublished && published-count <= maxPublished {
				c.add(field+".hostPort", "expected at most %d ports of the host in all, got %d up to here", maxPublished, published)
			}
		}
		if p.HostPort != 0 && !n.publishes() {
			c.add(field+".hostPort", "is for network.mode bridge and cni only, which is %s", n.Mode)
		}
		for j := range n.Ports[:i] {
			o := &n.Ports[j]
			switch {
			case p.Name != "" && p.Name == o.Name:
				c.add(field+".name", "%s is given twice; rename one of them", yamldoc.Clip(p.Name))
			case p.Overlaps(o):
				c.add(field+".hostPort", "%s is published by %s[%d] too, as %s", p.Describe(), at, j, o.Describe())
			case p.HostPort == 0 && o.HostPort == 0 && p.ContainerPort == o.ContainerPort && p.Range == o.Range && p.Protocol == o.Protocol:
				c.add(field, "says the same as %s[%d]; remove one of them", at, j)
			}
		}
	}
}

// port checks what one entry says by itself.
func (c check) port(at string, p *Port) bool {
	before := true
	bad := func(field, format string, args ...any) {
		before = false
		c.add(at+field, format, args...)
	}
	if p.Name != "" && !validLabel(p.Name) {
		bad(".name", "expected a DNS label (at most 63 of a-z, 0-9 and -), got %q", yamldoc.Clip(p.Name))
	}
	if p.Protocol != TCP && p.Protocol != UDP {
		bad(".protocol", "expected one of %s, %s, got %q", TCP, UDP, yamldoc.Clip(p.Protocol))
	}
	switch {
	case p.ContainerPort == 0 && p.Range == "":
		bad("", "expected containerPort, a port from 1 to 65535, or range")
	case p.ContainerPort != 0 && p.Range != "":
		bad(".range", "expected containerPort or range, got both; remove one of them")
	}
	count := 1
	if p.Range != "" {
		first, last, err := parseRange(p.Range)
		if err != nil {
			bad(".range", "%v", err)
			return false
		}
		if count = int(last) - int(first) + 1; count > maxRange {
			bad(".range", "expected at most %d ports, got %d", maxRange, count)
		}
	}
	if last := int(p.HostPort) + count - 1; p.HostPort != 0 && last > 65535 {
		bad(".hostPort", "%d ports from %d on end at %d, at most 65535 is possible", count, p.HostPort, last)
	}
	if p.HostIP == "" {
		return before
	}
	a, ok := c.address(at+".hostIP", p.HostIP)
	switch {
	case !ok:
		before = false
	case a.IsUnspecified():
		bad(".hostIP", "leave it out for all addresses of the host, IPv4 and IPv6; %s alone is not possible", a)
	case a.IsMulticast():
		bad(".hostIP", "expected an address of the host, got the multicast address %s", a)
	case p.HostPort == 0:
		bad(".hostIP", "is for ports with a hostPort, which this one has not")
	}
	return before
}

func (c check) reach(at string, r *Reach, egress bool) {
	if r == nil || !c.atMost(at+".allow", len(r.Allow), maxRules) {
		return
	}
	switch {
	case r.Default == Public && !egress:
		c.add(at+".default", "public is for egress only; expected one of allow, deny")
	case r.Default != Allow && r.Default != Deny && r.Default != Public:
		want := "allow, deny, public"
		if !egress {
			want = "allow, deny"
		}
		c.add(at+".default", "expected one of %s, got %q", want, yamldoc.Clip(r.Default))
	}
	for i, text := range r.Allow {
		field := fmt.Sprintf("%s.allow[%d]", at, i)
		rule, err := ParseRule(text)
		switch {
		case err != nil:
			c.add(field, "%v", err)
		case !egress && rule.Host != "":
			c.add(field, "names are for egress: who connects has an address only; give a prefix")
		case !egress && rule.TheHost:
			c.add(field, "ports of the host are for egress; give a prefix with an address of the host")
		case r.Default == Allow && !rule.TheHost:
			c.add(field, "has no effect with default: allow; set default: deny, or remove it")
		}
	}
	c.once(at+".allow", r.Allow)
}

var dnsOption = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}(:[0-9]{1,5})?$`) })

func (c check) dns(at string, d *DNS) {
	if d == nil {
		return
	}
	if c.atMost(at+".servers", len(d.Servers), maxServers) {
		for i, s := range d.Servers {
			field := fmt.Sprintf("%s.servers[%d]", at, i)
			a, ok := c.address(field, s)
			switch {
			case !ok:
			case a.IsUnspecified() || a.IsMulticast():
				c.add(field, "expected the address of a server, got %s", a)
			case a.IsLoopback() || a.IsLinkLocalUnicast():
				// The daemon asks: an author must not speak by it to what only the host reaches.
				c.add(field, "expected the address of a server that sandboxes may reach, got %s, which is the host's own or of its link; without servers those of the host are asked", a)
			}
		}
		c.once(at+".servers", d.Servers)
	}
	if c.atMost(at+".search", len(d.Search), maxSearch) {
		for i, s := range d.Search {
			c.name(fmt.Sprintf("%s.search[%d]", at, i), s)
		}
	}
	if c.atMost(at+".options", len(d.Options), maxOptions) {
		for i, o := range d.Options {
			if !dnsOption().MatchString(o) {
				c.add(fmt.Sprintf("%s.options[%d]", at, i), "expected an option of resolv.conf(5) such as \"ndots:2\", got %q", yamldoc.Clip(o))
			}
		}
	}
}

func (c check) extraHosts(at string, hosts []ExtraHost) {
	if !c.atMost(at, len(hosts), maxExtraHosts) {
		return
	}
	for i := range hosts {
		h, field := &hosts[i], fmt.Sprintf("%s[%d]", at, i)
		if h.IP != HostGateway {
			c.address(field+".ip", h.IP)
		}
		if len(h.Names) == 0 {
			c.add(field+".names", "expected at least one name")
		}
		if !c.atMost(field+".names", len(h.Names), maxHostNames) {
			continue
		}
		for j, name := range h.Names {
			c.name(fmt.Sprintf("%s.names[%d]", field, j), name)
		}
	}
}

// portsText is a port, or some of them from it on.
func portsText(first uint16, count int) string {
	if count > 1 {
		return fmt.Sprintf("%d-%d", first, int(first)+count-1)
	}
	return fmt.Sprint(first)
}

// private are the ranges that networks of sandboxes may be in: what is elsewhere belongs
// to somebody, who could not be reached any more.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fc00::/7"),
}

// Check tells everything that is wrong with the spec of a network with defaults.
func (s *Declared) Check(at string, add Add) {
	c := check{add}
	c.subnet(at+".subnet", s.Subnet, false)
	c.subnet(at+".subnet6", s.Subnet6, true)
	if s.Subnet6 != "" && !*s.IPv6 {
		add(at+".subnet6", "is not possible with ipv6: false; remove one of them")
	}
	if s.MTU < 1280 || s.MTU > 65535 {
		add(at+".mtu", "expected 1280 to 65535 bytes, got %d", s.MTU)
	}
}

func (c check) subnet(at, text string, six bool) {
	if text == "" {
		return
	}
	CheckSubnet(at, text, six, c.add)
}

// CheckSubnet checks the subnet of a network.
func CheckSubnet(at, text string, six bool, add Add) {
	p, ok := checkPool(at, text, add)
	switch {
	case !ok:
	case six && !p.Addr().Is6():
		add(at, "expected an IPv6 prefix such as fd44::/64, got %s; IPv4 belongs into subnet", p)
	case !six && !p.Addr().Is4():
		add(at, "expected an IPv4 prefix such as 10.44.0.0/24, got %s; IPv6 belongs into subnet6", p)
	case six && (p.Bits() < 48 || p.Bits() > 126):
		add(at, "expected /48 to /126, got %s", p)
	case !six && (p.Bits() < 8 || p.Bits() > 30):
		add(at, "expected /8 to /30, got %s", p)
	}
}

// checkPool checks a prefix of private addresses.
func checkPool(at, text string, add Add) (netip.Prefix, bool) {
	p, err := ParsePrefix(text)
	switch {
	case err != nil:
		add(at, "%v", err)
	case !slices.ContainsFunc(private, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }):
		add(at, "expected private addresses (in %s), got %s", strings.Join(prefixTexts(private), ", "), p)
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// CheckPool checks a prefix that subnets are chosen from: there must be room for one.
func CheckPool(at, text string, add Add) {
	switch p, ok := checkPool(at, text, add); {
	case ok && p.Addr().Is4() && p.Bits() > 24:
		add(at, "expected /8 to /24, of which each network gets a /20, or a /24 if it is smaller than a /16, got %s", p)
	case ok && p.Addr().Is6() && p.Bits() > 64:
		add(at, "expected /8 to /64, of which each network gets a /64, got %s", p)
	}
}

func prefixTexts(list []netip.Prefix) (out []string) {
	for _, p := range list {
		out = append(out, p.String())
	}
	return out
}
