// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// transports are the protocols with ports.
var transports = []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP}

// beforeConnections is behind the kernel's putting together of fragments, and before it
// looks for connections: what is forged can't become part of one.
const beforeConnections = nftables.ChainPriority(-300)

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// sources drops what does not have the address that belongs to its link, so that no guest
// can speak as another one, as the host, or as somebody far away. That includes all that
// has link-local and unspecified addresses: a guest asks for its gateway with its own. What
// is not dropped is counted.
func (p *program) sources() {
	link := one(inLink())
	rules := []rule{
		all(link, one(noLink()), accept()),
		// Options of IPv4 can name a way that a packet is to take.
		all(four.is(), one(&expr.Payload{DestRegister: first, Base: expr.PayloadBaseNetworkHeader, Len: 1}, masked([]byte{0x0f}),
			&expr.Cmp{Op: expr.CmpOpNeq, Register: first, Data: []byte{5}}), continues("forged")),
		all(six.is(), one(&expr.Exthdr{DestRegister: first, Type: unix.IPPROTO_ROUTING, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6}, equals([]byte{1})), continues("forged")),
		// Links route 127.0.0.0/8, for connections of the host to ports that are
		// published there. The other way nothing is to use that: what listens there
		// trusts whoever comes.
		all(within(loopback4, destination), continues("forged")),
	}
	// Who has it that another router is better, or is one itself, leads the packets of others
	// to itself. The kernel takes a redirect about a known connection for an error about it.
	rules = append(rules, all(four.is(), four.icmpType(redirect4), continues("forged")),
		all(six.is(), six.icmpType(routerAdvertisement), continues("forged")), all(six.is(), six.icmpType(redirect6), continues("forged")))
	for _, f := range families {
		rules = append(rules, all(f.is(), link, one(f.load(f.source, afterLink), in(setSources+f.name), chainOf(mapSent))))
	}
	p.chain("sources", &base{nftables.ChainTypeFilter, nftables.ChainHookPrerouting, beforeConnections}, append(rules, all(continues("forged")))...)
	p.chain("forged", nil, all(link, one(chainOf(mapDenied))), all(drop()))
	p.chain("arrivals", &base{nftables.ChainTypeFilter, nftables.ChainHookPostrouting, *nftables.ChainPriorityFilter}, all(one(outLink(), chainOf(mapReceived))))
}
