// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"fmt"
	"net/netip"
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

// Addresses are those that a sandbox has on its network; c may be nil.
func Addresses(c *actual.CNI) (out []netip.Addr) {
	if c == nil || len(c.Result) == 0 {
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

// ResolvConf is the resolv.conf of a sandbox: what its plugins say, or without that the servers
// that this host asks, if they can be reached from elsewhere than the host itself.
func ResolvConf(c *actual.CNI) string {
	r, err := resultOf(c)
	if err != nil {
		return ""
	}
	said := r.DNS
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
