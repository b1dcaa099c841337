// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers. All that is compared or looked up begins in the first one. A key of several
// parts lies in registers that follow each other: the name of an interface fills one.
const (
	first       = unix.NFT_REG_1
	afterLink   = unix.NFT_REG_2
	part0       = unix.NFT_REG32_00
	part1       = unix.NFT_REG32_01
	part2       = unix.NFT_REG32_02
	part5       = unix.NFT_REG32_05
	verdictPart = unix.NFT_REG_VERDICT
)

// rule is one rule: if one expression does not match, those behind it are not looked at.
type rule []expr.Any

// all joins parts of a rule.
func all(parts ...[]expr.Any) rule { return slices.Concat(parts...) }

func one(e ...expr.Any) []expr.Any { return e }

func verdict(kind expr.VerdictKind) []expr.Any { return one(&expr.Verdict{Kind: kind}) }

func accept() []expr.Any  { return verdict(expr.VerdictAccept) }
func drop() []expr.Any    { return verdict(expr.VerdictDrop) }
func returns() []expr.Any { return verdict(expr.VerdictReturn) }

func jump(chain string) []expr.Any { return one(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}) }

// continues with a chain that decides: what is behind the rule is not looked at.
func continues(chain string) []expr.Any {
	return one(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

func inLink() expr.Any  { return &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: first} }
func outLink() expr.Any { return &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: first} }

// in matches what a set has.
func in(set string) expr.Any {
	return &expr.Lookup{SourceRegister: first, SetName: set}
}

// noLink matches interfaces that are no link of a sandbox.
func noLink() expr.Any {
	return &expr.Lookup{SourceRegister: first, SetName: setLinks, Invert: true}
}

// chainOf goes on with the chain that a map has.
func chainOf(set string) expr.Any {
	return &expr.Lookup{SourceRegister: first, DestRegister: verdictPart, IsDestRegSet: true, SetName: set}
}

func equals(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: data}
}

// masked keeps bits of what was loaded.
func masked(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: first, DestRegister: first, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// family is one of both, with where its headers have addresses.
type family struct {
	name                string // 4 or 6, as names of sets end
	proto               byte
	bytes               uint32
	source, destination uint32 // offsets
	icmp                byte
}

var (
	four = &family{name: "4", proto: unix.NFPROTO_IPV4, bytes: 4, source: 12, destination: 16, icmp: unix.IPPROTO_ICMP}
	six  = &family{name: "6", proto: unix.NFPROTO_IPV6, bytes: 16, source: 8, destination: 24, icmp: unix.IPPROTO_ICMPV6}
)

var families = []*family{four, six}

// of is the family of an address.
func of(a netip.Addr) *family {
	if a.Is4() {
		return four
	}
	return six
}

// is matches packets of the family. The headers of others are never read as if they were.
func (f *family) is() []expr.Any {
	return one(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: first}, equals([]byte{f.proto}))
}

func (f *family) load(offset, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.bytes}
}

// within matches packets with an address of a prefix at an offset.
func within(p netip.Prefix, offset func(*family) uint32) []expr.Any {
	f := of(p.Addr())
	if p.Bits() == 0 {
		return f.is()
	}
	out := append(f.is(), f.load(offset(f), first))
	if p.Bits() < p.Addr().BitLen() {
		out = append(out, masked(maskOf(p)))
	}
	return append(out, equals(p.Addr().AsSlice()))
}

func maskOf(p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

func source(f *family) uint32      { return f.source }
func destination(f *family) uint32 { return f.destination }

// protocol matches a transport protocol.
func protocol(number byte) []expr.Any {
	return one(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first}, equals([]byte{number}))
}

// ported matches TCP and UDP, whose ports are at the same place.
func ported() []expr.Any {
	return one(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first}, in(setPorted))
}

func loadPort(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// toPort matches a port of TCP and UDP; 0 matches all packets.
func toPort(port uint16) []expr.Any {
	if port == 0 {
		return nil
	}
	return append(ported(), loadPort(first), equals(binaryutil.BigEndian.PutUint16(port)))
}

// icmpType matches a type of ICMP of the family.
func (f *family) icmpType(number byte) []expr.Any {
	return append(protocol(f.icmp), &expr.Payload{DestRegister: first, Base: expr.PayloadBaseTransportHeader, Len: 1}, equals([]byte{number}))
}

// Bits of the state and of the status of a connection.
const (
	stateInvalid, stateEstablished, stateRelated = 1, 2, 4
	statusDNAT                                   = 1 << 5
)

func bitsOf(key expr.CtKey, bits uint32) []expr.Any {
	return one(&expr.Ct{Register: first, Key: key}, masked(binaryutil.NativeEndian.PutUint32(bits)),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: first, Data: make([]byte, 4)})
}

func state(bits uint32) []expr.Any { return bitsOf(expr.CtKeySTATE, bits) }

// published matches connections whose destination published replaced, translated(false)
// all others.
func translated(is bool) []expr.Any {
	out := bitsOf(expr.CtKeySTATUS, statusDNAT)
	if !is {
		out[2] = equals(make([]byte, 4))
	}
	return out
}

// localDestination matches packets for an address of this host.
func localDestination() []expr.Any {
	return one(&expr.Fib{Register: first, FlagDADDR: true, ResultADDRTYPE: true}, equals(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)))
}
