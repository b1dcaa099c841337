// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"net/netip"

	"sandboxctl.dev/desired/networks/public"
)

// neverLearned are addresses that no name gives a way to: whoever answers for the name
// could open the host, or what hands out credentials, to a sandbox that is allowed the
// name. Private addresses are what names of companies lead to.
var neverLearned = append(public.Prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
	"::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "fe80::/10", "ff00::/8", "fd00:ec2::/32", "fd20:ce::/32"),
	public.NAT64(public.Prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))...)

// holds says whether a prefix has an address.
func holds(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
