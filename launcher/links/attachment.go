// SPDX-License-Identifier: Apache-2.0

package links

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
)

// Attachment is the link of a sandbox to a network.
type Attachment struct {
	// Sandbox is whose link it is: for people, in the alias of the host's end.
	Sandbox string
	// Link and Guest are the names of the host's end and of the sandbox's.
	Link, Guest string
	// The addresses of the sandbox and of the host on the link, zero if it has none of the
	// family.
	Address4, Address6 netip.Addr
	Gateway4, Gateway6 netip.Addr
	// Default says that its default routes lead over this link.
	Default bool
	// Routes are other subnets that are reached over it.
	Routes []netip.Prefix
	MTU    int
}

// named are the names of host's ends.
var named = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^sb[0-9a-f]{10}[0-9]$`) })

// Name is the name of the host's end of a sandbox's link. Names of interfaces have at most
// 15 bytes.
func Name(uid string, index int) string {
	sum := sha256.Sum256([]byte(uid))
	return "sb" + hex.EncodeToString(sum[:5]) + strconv.Itoa(index)
}

// MaxLinks is how many links a sandbox can have: their index is one digit.
const MaxLinks = 10

// IsOurs says whether an interface of the host has the name of a link of a sandbox.
func IsOurs(name string) bool { return named().MatchString(name) }

// hardwareAddr is the address of an end: locally administered, and always the same, so that
// a neighbor that was set stays right when a sandbox is started again.
func (a *Attachment) hardwareAddr(end string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(a.Link + " " + end))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

func (a *Attachment) hostAddr() net.HardwareAddr  { return a.hardwareAddr("host") }
func (a *Attachment) guestAddr() net.HardwareAddr { return a.hardwareAddr("guest") }

// family is one of the two that a link may have.
type family struct {
	number           int
	sandbox, gateway netip.Addr
}

// families are those that the link has.
func (a *Attachment) families() []family {
	var out []family
	if a.Address4.IsValid() {
		out = append(out, family{netlink.FAMILY_V4, a.Address4, a.Gateway4})
	}
	if a.Address6.IsValid() {
		out = append(out, family{netlink.FAMILY_V6, a.Address6, a.Gateway6})
	}
	return out
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// everything is the destination of the default route of a family.
func (f *family) everything() netip.Prefix {
	if f.number == netlink.FAMILY_V6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}
