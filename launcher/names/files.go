// SPDX-License-Identifier: Apache-2.0

package names

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// MaxHosts bounds a hosts file: each sandbox has one with all others that it sees, and all
// of them are written again when one comes or goes.
const MaxHosts = 64 << 10

// cut ends a hosts file that has no room for all.
const cut = "# There are more; the nameserver knows them.\n"

// Files makes the hosts files of the sandboxes of a directory. It is for one goroutine.
type Files struct {
	d *Directory
	// others are lines for all who have joined the same networks in the same order.
	others map[string][]line
}

// line is one of a hosts file, about a sandbox.
type line struct{ of, text string }

// NewFiles begins to make files.
func NewFiles(d *Directory) *Files { return &Files{d, map[string][]line{}} }

// Hosts is the hosts file of c, by which it finds the others while nobody answers: itself,
// the names that its manifest gives to addresses, and whom it sees. They have the names
// that the answerer knows them by. hostname is what c is called inside.
func (f *Files) Hosts(c *Sandbox, hostname string) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	for i := range c.Attachments {
		m := member{c, &c.Attachments[i]}
		all := append([]string{m.full(), c.Name, c.Name + "." + m.at.Network, hostname}, f.further(c, m)...)
		for _, a := range m.at.Addresses() {
			b.WriteString(entry(a, all))
		}
	}
	for i := range c.Extra {
		for _, a := range c.Extra[i].addresses(c) {
			b.WriteString(entry(a, c.Extra[i].Names))
		}
	}
	for _, l := range f.seenBy(c) {
		if l.of == c.Name {
			continue
		}
		if b.Len()+len(l.text)+len(cut) > MaxHosts {
			b.WriteString(cut)
			break
		}
		b.WriteString(l.text)
	}
	return b.Bytes()
}

// seenBy are the lines about those whom c sees, and itself.
func (f *Files) seenBy(c *Sandbox) []line {
	key, alike := "", len(c.Extra) == 0
	for i := range c.Attachments {
		key += c.Attachments[i].Network + " "
		alike = alike && !c.Attachments[i].Isolated
	}
	if out, ok := f.others[key]; ok && alike {
		return out
	}
	var out []line
	for i := range c.Attachments {
		at := &c.Attachments[i]
		for _, m := range f.d.members(at.Network) {
			if !visible(c, at, m) {
				continue
			}
			all := []string{m.full()}
			for _, name := range append([]string{m.sandbox.Name, m.sandbox.Name + "." + at.Network}, f.further(c, m)...) {
				if slices.Contains(all, name) || !f.leads(c, name, m) {
					continue
				}
				all = append(all, name)
			}
			for _, a := range m.at.Addresses() {
				out = append(out, line{m.sandbox.Name, entry(a, all)})
			}
		}
	}
	if alike {
		f.others[key] = out
	}
	return out
}

// further are the sets and aliases of a member that lead c to it.
func (f *Files) further(c *Sandbox, m member) (out []string) {
	for _, name := range slices.Concat(m.sandbox.Sets, m.sandbox.Aliases) {
		if name = strings.ToLower(name); f.leads(c, name, m) {
			out = append(out, name)
		}
	}
	return out
}

// leads says whether a name leads c to a member.
func (f *Files) leads(c *Sandbox, name string, m member) bool {
	found := f.d.Lookup(c, name).Addresses
	return slices.ContainsFunc(m.at.Addresses(), func(a netip.Addr) bool { return slices.Contains(found, a) })
}

// members are all on a network, by name.
func (d *Directory) members(network string) (out []member) {
	n := d.networks[network]
	if n == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(n.named[0])) {
		out = append(out, n.named[0][name]...)
	}
	return out
}

// entry is one line, with each name once.
func entry(a netip.Addr, all []string) string {
	var b strings.Builder
	b.WriteString(a.String())
	for i, name := range all {
		if !slices.Contains(all[:i], name) {
			b.WriteString(" " + name)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// Misleads says whether a hosts file says something that another one, which is of now, does
// not: an address may be another sandbox's by then.
func Misleads(had, now []byte) bool {
	lines := map[string]bool{}
	for l := range bytes.Lines(now) {
		lines[string(l)] = true
	}
	for l := range bytes.Lines(had) {
		if !lines[string(l)] && string(l) != cut {
			return true
		}
	}
	return false
}

// byRoute are the attachments of c, those that lead outside first.
func byRoute(c *Sandbox) (out []*Attachment) {
	for _, internal := range []bool{false, true} {
		for i := range c.Attachments {
			if c.Attachments[i].Internal == internal {
				out = append(out, &c.Attachments[i])
			}
		}
	}
	return out
}

// ResolvConf is the resolv.conf of c: its gateway is the one server, since all gateways are
// the same daemon and some resolvers ask all servers at once. The search list has the
// domains of its networks, then search.
func ResolvConf(c *Sandbox, search, options []string) []byte {
	var b bytes.Buffer
	server := netip.Addr{}
	for _, at := range byRoute(c) {
		if server = at.Gateway4; !server.IsValid() {
			server = at.Gateway6
		}
		if server.IsValid() {
			break
		}
	}
	if !server.IsValid() {
		return nil
	}
	fmt.Fprintf(&b, "nameserver %s\n", server)
	domains := []string{}
	for i := range c.Attachments {
		domains = append(domains, c.Attachments[i].Network+"."+Domain)
	}
	for _, s := range search {
		if !slices.Contains(domains, s) {
			domains = append(domains, s)
		}
	}
	fmt.Fprintf(&b, "search %s\n", strings.Join(domains, " "))
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.Bytes()
}
