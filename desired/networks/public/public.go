// SPDX-License-Identifier: Apache-2.0

// Package public says which addresses are hosts of the internet: the ones that `egress:
// public` allows, which all others that judge addresses mean too.
package public

import (
	"net/netip"
	"slices"
)

// Not4 are the addresses of IPv4 that are none. 169.254.0.0/16 has the services of clouds
// that hand out credentials.
var Not4 = Prefixes(
	"0.0.0.0/8",       // this network
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // shared by customers of a provider; some clouds have services there
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, metadata
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocols
	"192.0.2.0/24",    // documentation
	"192.31.196.0/24", // AS112
	"192.52.193.0/24", // AMT
	"192.88.99.0/24",  // relays of 6to4
	"192.168.0.0/16",  // private
	"192.175.48.0/24", // AS112
	"198.18.0.0/15",   // benchmarking
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/3",     // multicast, reserved, broadcast
)

// Not6 are those of IPv6. Addresses that hold one of IPv4 are refused as a whole
// where the internet has no use for them: a gateway that takes them out could lead
// anywhere. Of NAT64, which is the way to IPv4 on a host that has only IPv6, what holds an
// address of Not4 is refused.
var Not6 = append(Prefixes(
	"::/96",           // unspecified, loopback, IPv4-compatible
	"::ffff:0:0/96",   // IPv4-mapped
	"::ffff:0:0:0/96", // IPv4-translated
	"64:ff9b:1::/48",  // NAT64 of one's own
	"100::/64",        // discard
	"100:0:0:1::/64",  // dummy prefix
	"2001::/23",       // protocols, Teredo, ORCHID
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4
	"3fff::/20",       // documentation
	"5f00::/16",       // segment routing
	"fc00::/7",        // unique local
	"fe80::/10",       // link-local
	"fec0::/10",       // site-local
	"ff00::/8",        // multicast
), NAT64(Not4)...)

// NAT64 are prefixes of IPv4 below the well-known prefix of NAT64.
func NAT64(of4 []netip.Prefix) (out []netip.Prefix) {
	for _, p := range of4 {
		well := netip.MustParseAddr("64:ff9b::").As16()
		four := p.Addr().As4()
		copy(well[12:], four[:])
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(well), 96+p.Bits()))
	}
	return out
}

// Prefixes parses prefixes that a program has.
func Prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// Is says whether an address is a host of the internet.
func Is(a netip.Addr) bool { return a.IsValid() && !Overlaps(netip.PrefixFrom(a, a.BitLen())) }

// Overlaps says whether a prefix has an address that is none.
func Overlaps(p netip.Prefix) bool {
	return slices.ContainsFunc(Not4, p.Overlaps) || slices.ContainsFunc(Not6, p.Overlaps)
}

// None says whether a prefix has no address that is one.
func None(p netip.Prefix) bool {
	return slices.ContainsFunc(slices.Concat(Not4, Not6), func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) })
}
