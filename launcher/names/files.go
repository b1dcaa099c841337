// SPDX-License-Identifier: Apache-2.0

package names

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Hosts is the hosts file that c is started with: itself, by what does not change while it
// runs. hostname is what it is called inside. Other sandboxes, its aliases and the names
// that its manifest gives to addresses are for the answerer: the file can't be changed later,
// and would lead to an address that is another sandbox's by then.
func Hosts(c *Sandbox, hostname string) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	for i := range c.Attachments {
		m := member{c, &c.Attachments[i]}
		for _, a := range m.at.Addresses() {
			all := []string{m.full(), c.Name, c.Name + "." + m.at.Network}
			if hostname != c.Name {
				all = append(all, hostname)
			}
			fmt.Fprintf(&b, "%s %s\n", a, strings.Join(all, " "))
		}
	}
	return b.Bytes()
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
