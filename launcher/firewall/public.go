// SPDX-License-Identifier: Apache-2.0

package firewall

import "net/netip"

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// notPublic4 are the addresses that egress of Public refuses, of IPv4: all that are not
// one host of the internet. 169.254.0.0/16 has the services of clouds that hand out
// credentials.
var notPublic4 = prefixes(
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

// notPublic6 are those of IPv6. Addresses that hold one of IPv4 are refused as a whole
// where the internet has no use for them: a gateway that takes them out could lead
// anywhere. Of NAT64, which is the way to IPv4 on a host that has only IPv6, what holds an
// address of notPublic4 is refused.
var notPublic6 = append(prefixes(
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
), nat64(notPublic4)...)

// nat64 are prefixes of IPv4 below the well-known prefix of NAT64.
func nat64(of4 []netip.Prefix) (out []netip.Prefix) {
	for _, p := range of4 {
		well := netip.MustParseAddr("64:ff9b::").As16()
		four := p.Addr().As4()
		copy(well[12:], four[:])
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(well), 96+p.Bits()))
	}
	return out
}

// IsPublic says whether an address is one that egress of Public allows: a host of the
// internet.
func IsPublic(a netip.Addr) bool {
	return a.IsValid() && !holds(notPublic4, a) && !holds(notPublic6, a)
}

// neverLearned are addresses that no name gives a way to: whoever answers for the name
// could open the host, or what hands out credentials, to a sandbox that is allowed the
// name. Private addresses are what names of companies lead to.
var neverLearned = append(prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
	"::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "fe80::/10", "ff00::/8", "fd00:ec2::/32", "fd20:ce::/32"),
	nat64(prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))...)

// holds says whether a prefix has an address.
func holds(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
