// SPDX-License-Identifier: Apache-2.0

package names

import (
	"net/netip"
	"slices"
	"strings"
)

// Domain ends the full names of sandboxes: NAME.NETWORK.internal. ICANN has set it aside
// for private use. Only the domains of the networks of a sandbox are ours: others below
// internal may be those of a cloud that the host is in.
const Domain = "internal"

// Sandbox is a running sandbox on networks, as others see it.
type Sandbox struct {
	Name string
	// Sets are names that it shares with other sandboxes: each of them is all members.
	Sets []string
	// Aliases are further names of it alone.
	Aliases []string
	// Attachments are in the order in which the networks were joined.
	Attachments []Attachment
	// Extra are names that its manifest gives to addresses, for it alone.
	Extra   []ExtraHost
	Outside Outside
}

// ExtraHost are names of an address, or of the host if that is not valid: its addresses on
// the networks of the sandbox.
type ExtraHost struct {
	Address netip.Addr
	Names   []string
}

// Attachment is a network that a sandbox has joined.
type Attachment struct {
	Network            string
	Address4, Address6 netip.Addr // not valid if it has none
	Gateway4, Gateway6 netip.Addr
	// Subnets are those of the network.
	Subnets []netip.Prefix
	// Internal says that the network leads nowhere else, Isolated that no sandbox on it
	// reaches another one.
	Internal, Isolated bool
}

// Outside says which names of the world a sandbox may ask for.
type Outside struct {
	// Servers are asked instead of those of the host.
	Servers []netip.Addr
	// Names are those that its egress rules are about: what they mean is let through.
	Names []string
	// Closed says that no other name is asked for: a question is a message to whoever
	// answers for the name.
	Closed bool
}

// Directory is all that run at one moment. It is not changed.
type Directory struct {
	byAddress map[netip.Addr]*Sandbox
	networks  map[string]*network
	gateways  []netip.Addr
}

// network is what is known of one network.
type network struct {
	// named are the members by rank of the name, best first, and name.
	named [3]map[string][]member
}

type member struct {
	sandbox *Sandbox
	at      *Attachment
}

// New makes a directory of sandboxes, in any order.
func New(sandboxes []Sandbox) *Directory {
	d := &Directory{byAddress: map[netip.Addr]*Sandbox{}, networks: map[string]*network{}}
	sorted := slices.Clone(sandboxes)
	slices.SortFunc(sorted, func(a, b Sandbox) int { return strings.Compare(a.Name, b.Name) })
	for i := range sorted {
		sb := &sorted[i]
		for j := range sb.Attachments {
			d.add(member{sb, &sb.Attachments[j]})
		}
	}
	slices.SortFunc(d.gateways, netip.Addr.Compare)
	d.gateways = slices.Compact(d.gateways)
	return d
}

func (d *Directory) add(m member) {
	for _, a := range m.at.Addresses() {
		d.byAddress[a] = m.sandbox
	}
	for _, g := range []netip.Addr{m.at.Gateway4, m.at.Gateway6} {
		if g.IsValid() {
			d.gateways = append(d.gateways, g)
		}
	}
	n := d.networks[m.at.Network]
	if n == nil {
		n = &network{}
		for i := range n.named {
			n.named[i] = map[string][]member{}
		}
		d.networks[m.at.Network] = n
	}
	for rank, names := range [][]string{{m.sandbox.Name}, m.sandbox.Sets, m.sandbox.Aliases} {
		for _, name := range names {
			name = strings.ToLower(name)
			n.named[rank][name] = append(n.named[rank][name], m)
		}
	}
}

// Addresses are those that the attachment has, IPv4 first.
func (a *Attachment) Addresses() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{a.Address4, a.Address6}, func(x netip.Addr) bool { return !x.IsValid() })
}

// Client is the sandbox with an address, nil if there is none.
func (d *Directory) Client(a netip.Addr) *Sandbox { return d.byAddress[a.Unmap()] }

// Has says whether a sandbox of this name is there.
func (d *Directory) Has(name string) bool {
	for _, n := range d.networks {
		if len(n.named[0][name]) > 0 {
			return true
		}
	}
	return false
}

// seen are those that bear a name on the network of an attachment of c.
func (d *Directory) seen(c *Sandbox, at *Attachment, name string) []member {
	n := d.networks[at.Network]
	if n == nil {
		return nil
	}
	for _, names := range n.named {
		if found := names[name]; len(found) > 0 {
			return slices.DeleteFunc(slices.Clone(found), func(m member) bool { return !visible(c, at, m) })
		}
	}
	return nil
}

// visible says whether c sees m on a network: if nobody reaches anybody on it, only itself.
func visible(c *Sandbox, at *Attachment, m member) bool {
	return !at.Isolated || m.sandbox.Name == c.Name
}

// Found is what a name means to a sandbox.
type Found struct {
	Addresses []netip.Addr
	// Known says that the name exists. It may have no address of a family.
	Known bool
	// Zone is the domain that decides about the name, if that is a domain of ours; "" says
	// that somebody else may know the name.
	Zone string
}

// Lookup says what a name, in lower case and without a dot at its end, means to c.
func (d *Directory) Lookup(c *Sandbox, name string) Found {
	if f := c.extra(name); f.Known {
		return f
	}
	if full, ok := strings.CutSuffix(name, "."+Domain); ok {
		for i := range c.Attachments {
			at := &c.Attachments[i]
			first, below := strings.CutSuffix(full, "."+at.Network)
			switch {
			case full == at.Network:
				return Found{Known: true, Zone: name}
			case below:
				f := found(d.seen(c, at, first))
				f.Zone = at.Network + "." + Domain
				return f
			}
		}
		return Found{}
	}
	for i := range c.Attachments {
		at := &c.Attachments[i]
		first, ok := strings.CutSuffix(name, "."+at.Network)
		if !ok {
			continue
		}
		if f := found(d.seen(c, at, first)); f.Known {
			f.Zone = at.Network
			return f
		}
	}
	for i := range c.Attachments {
		if f := found(d.seen(c, &c.Attachments[i], name)); f.Known {
			f.Zone = name
			return f
		}
	}
	return Found{}
}

// extra is what the manifest of c says of a name.
func (c *Sandbox) extra(name string) (f Found) {
	for i := range c.Extra {
		if slices.Contains(c.Extra[i].Names, name) {
			f.Known, f.Zone = true, name
			f.Addresses = append(f.Addresses, c.Extra[i].addresses(c)...)
		}
	}
	return f
}

// addresses are those that e is about: of the gateways, the first of each family.
func (e *ExtraHost) addresses(c *Sandbox) (out []netip.Addr) {
	if e.Address.IsValid() {
		return []netip.Addr{e.Address}
	}
	for _, family := range []func(*Attachment) netip.Addr{
		func(a *Attachment) netip.Addr { return a.Gateway4 },
		func(a *Attachment) netip.Addr { return a.Gateway6 },
	} {
		for _, at := range byRoute(c) {
			if g := family(at); g.IsValid() {
				out = append(out, g)
				break
			}
		}
	}
	return out
}

func found(members []member) (f Found) {
	for _, m := range members {
		f.Known = true
		f.Addresses = append(f.Addresses, m.at.Addresses()...)
	}
	return f
}

// Reverse says who has an address, as c sees it. ours says that the address is of a network
// of c: then nobody else is asked.
func (d *Directory) Reverse(c *Sandbox, a netip.Addr) (name string, ours bool) {
	for i := range c.Extra {
		if e := &c.Extra[i]; len(e.Names) > 0 && slices.Contains(e.addresses(c), a) {
			return e.Names[0], true
		}
	}
	for i := range c.Attachments {
		at := &c.Attachments[i]
		if !slices.ContainsFunc(at.Subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
			continue
		}
		ours = true
		sb := d.byAddress[a]
		if sb == nil {
			continue
		}
		for j := range sb.Attachments {
			m := member{sb, &sb.Attachments[j]}
			if m.at.Network == at.Network && visible(c, at, m) && slices.Contains(m.at.Addresses(), a) {
				return m.full(), true
			}
		}
	}
	return "", ours
}

// full is the name that leads to m from everywhere on its network.
func (m member) full() string { return m.sandbox.Name + "." + m.at.Network + "." + Domain }

// Gateways are the addresses at which the sandboxes ask for names.
func (d *Directory) Gateways() []netip.Addr { return d.gateways }
