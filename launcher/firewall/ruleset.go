// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"net/netip"
	"regexp"
	"sync"
)

// Attachment is a link of a sandbox to a network.
type Attachment struct {
	Sandbox, Network string
	// Link is the name of the host end.
	Link string
	// Address4 and Address6 are what the sandbox has; zero for none.
	Address4, Address6 netip.Addr
	// Gateway4 and Gateway6 are the host's addresses on the link.
	Gateway4, Gateway6 netip.Addr
	// Internal networks have no way out of them.
	Internal bool
	// Isolated keeps the sandboxes of the network apart.
	Isolated bool
}

// Port is a range of published ports, of one in most cases.
type Port struct {
	// Protocol is tcp or udp.
	Protocol string
	// HostIP is the host's address that the port is published on, zero for all.
	HostIP netip.Addr
	// HostPort is the first port of the host, To the first one of the sandbox.
	HostPort, To uint16
	Count        int
}

// Rule is an entry of what is allowed: exactly one of Prefix, Name, Sandbox and Host is set.
type Rule struct {
	Prefix  netip.Prefix
	Name    string
	Sandbox string
	Host    bool
	// Port is a port of TCP and UDP, 0 for all protocols.
	Port uint16
}

// What Reach.Default can be.
const (
	Allow = "allow"
	Deny  = "deny"
	// Public allows the addresses of the internet, as package public has them, and is for
	// egress only.
	Public = "public"
)

// Reach is what is allowed in one direction.
type Reach struct {
	// Default is one of the constants; empty is Allow.
	Default string
	Allow   []Rule
	// Log and LogAllowed have what is refused be logged, and the first packets of what is
	// allowed, a few in a second.
	Log, LogAllowed bool
}

// Sandbox is a sandbox that runs, or is about to.
type Sandbox struct {
	Name            string
	Attachments     []Attachment
	Ports           []Port
	Egress, Ingress Reach
	// Connections is how many the kernel may keep for it at a time; 0 is no bound.
	Connections int
}

// Ruleset is all that the table is made of.
type Ruleset struct {
	Sandboxes []Sandbox
	// Closed are links that nothing passes.
	Closed []string
	// LogGroup is the group of nflog that packets are logged to; 0 is none: nothing is logged.
	LogGroup uint16
	// Kept are how long the kernel keeps connections; zero are its defaults.
	Kept Kept
}

// label is a name as all sandboxes and networks have.
var label = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) })

// check says what of a ruleset contradicts itself. Rules that are wrong would be accepted
// by the kernel and let pass what they should not.
func (r *Ruleset) check() error {
	names, links, addresses := map[string]bool{}, map[string]string{}, map[netip.Addr]string{}
	for i := range r.Sandboxes {
		s := &r.Sandboxes[i]
		if !label().MatchString(s.Name) || names[s.Name] {
			return fmt.Errorf("firewall: sandbox %q: expected a name that no other sandbox has", s.Name)
		}
		names[s.Name] = true
		for _, a := range s.Attachments {
			if err := a.check(s.Name); err != nil {
				return err
			}
			if other := links[a.Link]; other != "" {
				return fmt.Errorf("firewall: link %s belongs to %s and to %s", a.Link, other, s.Name)
			}
			links[a.Link] = s.Name
			for _, addr := range a.addresses() {
				if other := addresses[addr]; other != "" {
					return fmt.Errorf("firewall: address %s belongs to %s and to %s", addr, other, s.Name)
				}
				addresses[addr] = s.Name
			}
		}
		if err := s.checkRules(); err != nil {
			return err
		}
	}
	return nil
}

// addresses are those that there are.
func (a *Attachment) addresses() (out []netip.Addr) {
	for _, addr := range []netip.Addr{a.Address4, a.Address6} {
		if addr.IsValid() {
			out = append(out, addr)
		}
	}
	return out
}

func (a *Attachment) check(sandbox string) error {
	six := func(addr netip.Addr) bool { return addr.Is6() && !addr.Is4In6() && addr.Zone() == "" }
	switch {
	case a.Link == "" || len(a.Link) > 15:
		return fmt.Errorf("firewall: sandbox %s: %q is no name of a link", sandbox, a.Link)
	case !label().MatchString(a.Network):
		return fmt.Errorf("firewall: sandbox %s: %q is no name of a network", sandbox, a.Network)
	case a.Address4.IsValid() && !a.Address4.Is4(), a.Gateway4.IsValid() && !a.Gateway4.Is4(),
		a.Address6.IsValid() && !six(a.Address6), a.Gateway6.IsValid() && !six(a.Gateway6):
		return fmt.Errorf("firewall: sandbox %s: an address on %s is not of its family", sandbox, a.Network)
	case len(a.addresses()) == 0:
		return fmt.Errorf("firewall: sandbox %s: no address on %s", sandbox, a.Network)
	}
	return nil
}

func (s *Sandbox) checkRules() error {
	for _, p := range s.Ports {
		switch {
		case p.Protocol != "tcp" && p.Protocol != "udp":
			return fmt.Errorf("firewall: sandbox %s: protocol %q of a port: expected tcp or udp", s.Name, p.Protocol)
		case p.HostPort == 0 || p.To == 0 || p.Count < 1 || int(p.HostPort)+p.Count > 1<<16 || int(p.To)+p.Count > 1<<16:
			return fmt.Errorf("firewall: sandbox %s: %d ports from %d to %d: expected ports from 1 to 65535", s.Name, p.Count, p.HostPort, p.To)
		case p.HostIP.Is4In6() || p.HostIP.Zone() != "":
			return fmt.Errorf("firewall: sandbox %s: port %d is published on %s: expected an address without a zone, and IPv4 as such", s.Name, p.HostPort, p.HostIP)
		}
	}
	if s.Connections < 0 {
		return fmt.Errorf("firewall: sandbox %s: %d connections: expected a number of at least 1", s.Name, s.Connections)
	}
	for direction, reach := range map[string]*Reach{"egress": &s.Egress, "ingress": &s.Ingress} {
		switch reach.Default {
		case "", Allow, Deny:
		case Public:
			if direction == "ingress" {
				return fmt.Errorf("firewall: sandbox %s: ingress can't be public", s.Name)
			}
		default:
			return fmt.Errorf("firewall: sandbox %s: %s is %q: expected allow, deny or public", s.Name, direction, reach.Default)
		}
		for _, rule := range reach.Allow {
			if err := rule.check(); err != nil {
				return fmt.Errorf("firewall: sandbox %s: %s: %w", s.Name, direction, err)
			}
			if direction == "ingress" && (rule.Name != "" || rule.Host) {
				return fmt.Errorf("firewall: sandbox %s: ingress: a rule is about a DNS name or the host", s.Name)
			}
		}
	}
	return nil
}

func (r *Rule) check() error {
	kinds := 0
	for _, is := range []bool{r.Prefix.IsValid(), r.Name != "", r.Sandbox != "", r.Host} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return fmt.Errorf("a rule is about %d things: expected one", kinds)
	case r.Prefix.IsValid() && (r.Prefix.Addr().Is4In6() || r.Prefix != r.Prefix.Masked()):
		return fmt.Errorf("%s is no prefix", r.Prefix)
	case r.Host && r.Port == 0:
		return fmt.Errorf("a rule allows all of the host: expected a port")
	}
	return nil
}
