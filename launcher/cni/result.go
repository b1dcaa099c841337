// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/yamldoc"
	"sandboxctl.dev/launcher/dns"
)

// resultOf is what ADD has returned, checked.
func resultOf(c *actual.CNI) (*current.Result, error) {
	made, err := create.CreateFromBytes(c.Result)
	if err != nil {
		return nil, fmt.Errorf("decode the result of its plugins: %w", err)
	}
	r, err := current.NewResultFromResult(made)
	if err != nil {
		return nil, fmt.Errorf("decode the result of its plugins: %w", err)
	}
	for _, s := range r.DNS.Nameservers {
		if _, err := netip.ParseAddr(s); err != nil {
			return nil, fmt.Errorf("expected addresses as dns.nameservers of the result of its plugins, got %q", yamldoc.Clip(s))
		}
	}
	// Each is a word in a line of resolv.conf, which must not begin another one.
	for _, s := range append(append([]string{r.DNS.Domain}, r.DNS.Search...), r.DNS.Options...) {
		if strings.ContainsAny(s, " \t\r\n\x00") || !yamldoc.Printable(s, "") {
			return nil, fmt.Errorf("expected words in dns of the result of its plugins, got %q", yamldoc.Clip(s))
		}
	}
	return r, nil
}

// Addresses are those that a sandbox has on one of its networks.
func Addresses(c *actual.CNI) (out []netip.Addr) {
	if len(c.Result) == 0 {
		return nil
	}
	r, err := resultOf(c)
	if err != nil {
		return nil
	}
	for _, ip := range r.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// ResolvConf is the resolv.conf of a sandbox: what its plugins say, those of the first network
// first, or without that the servers that this host asks, if they can be reached from elsewhere
// than the host itself.
func ResolvConf(all []actual.CNI) string {
	var said cnitypes.DNS
	for i := range all {
		r, err := resultOf(&all[i])
		if err != nil {
			return ""
		}
		said.Domain = cmp.Or(said.Domain, r.DNS.Domain)
		said.Nameservers = more(said.Nameservers, r.DNS.Nameservers)
		said.Search = more(said.Search, r.DNS.Search)
		said.Options = more(said.Options, r.DNS.Options)
	}
	if len(said.Nameservers) == 0 {
		servers, err := (&dns.Upstreams{}).Servers()
		if err != nil {
			servers = nil // none: look-ups fail at once
		}
		for _, a := range servers {
			if !a.IsLoopback() {
				said.Nameservers = append(said.Nameservers, a.String())
			}
		}
	}
	return resolvConf(&said)
}

// more adds words that are not there yet.
func more(list, words []string) []string {
	for _, w := range words {
		if !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	return list
}

func resolvConf(d *cnitypes.DNS) string {
	var b strings.Builder
	for _, s := range d.Nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if d.Domain != "" {
		fmt.Fprintf(&b, "domain %s\n", d.Domain)
	}
	if len(d.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Search, " "))
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return b.String()
}
