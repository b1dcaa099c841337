// SPDX-License-Identifier: Apache-2.0

package packetlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// flow is what is written of a packet.
type flow struct {
	protocol     string
	from, to     netip.Addr
	source, dest uint16
	ported       bool
}

// text is an address, with a port if the protocol has ports.
func (f *flow) text(a netip.Addr, port uint16) string {
	if f.ported {
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

// parse reads the beginning of a packet of IP. What is cut off or not valid has no more than
// what can be read for certain; ok is false if that is nothing.
func parse(b []byte) (f flow, ok bool) {
	if len(b) == 0 {
		return f, false
	}
	var rest []byte
	var number byte
	var first bool // part of a datagram, which has the ports
	switch b[0] >> 4 {
	case 4:
		head := int(b[0]&0x0f) * 4
		if len(b) < 20 || head < 20 {
			return f, false
		}
		f.from, f.to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		number, first = b[9], binary.BigEndian.Uint16(b[6:])&0x1fff == 0
		rest = b[min(head, len(b)):]
	case 6:
		if len(b) < 40 {
			return f, false
		}
		f.from, f.to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		number, rest, first = transport(b[6], b[40:])
	default:
		return f, false
	}
	f.protocol = protocolName(number)
	f.ported = first && len(rest) >= 4 && (number == unix.IPPROTO_TCP || number == unix.IPPROTO_UDP || number == unix.IPPROTO_SCTP)
	if f.ported {
		f.source, f.dest = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	}
	return f, true
}

// transport is what is behind the extension headers of IPv6, as far as they can be read.
func transport(number byte, b []byte) (protocol byte, rest []byte, first bool) {
	first = true
	for range 8 {
		size := 8
		switch number {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(b) >= 2 {
				size = (int(b[1]) + 1) * 8
			}
		case unix.IPPROTO_FRAGMENT:
			first = first && len(b) >= 4 && binary.BigEndian.Uint16(b[2:])&0xfff8 == 0
		default:
			return number, b, first
		}
		if len(b) < size {
			break
		}
		number, b = b[0], b[size:]
	}
	return number, nil, first
}

func protocolName(number byte) string {
	switch number {
	case unix.IPPROTO_TCP:
		return "TCP"
	case unix.IPPROTO_UDP:
		return "UDP"
	case unix.IPPROTO_SCTP:
		return "SCTP"
	case unix.IPPROTO_ICMP:
		return "ICMP"
	case unix.IPPROTO_ICMPV6:
		return "ICMPv6"
	}
	return strconv.Itoa(int(number))
}

// message is what the kernel says of a packet.
type message struct {
	prefix string
	packet []byte
}

// Of linux/netfilter/nfnetlink_log.h.
const (
	packetMessage = 0
	configMessage = 1

	attributePayload = 9
	attributePrefix  = 10

	configCommand = 1
	configMode    = 2
	commandBind   = 1
	copyPacket    = 2
)

// modeOf has so many bytes of each packet be copied.
func modeOf(size uint32) []byte {
	return append(binary.BigEndian.AppendUint32(nil, size), copyPacket, 0)
}

// busy explains why a group can't be had.
func busy(group uint16, err error) error {
	if errors.Is(err, unix.EPERM) { // as the kernel says of a group that is bound
		return fmt.Errorf("packets can't be logged: another program has group %d of nflog, or CAP_NET_ADMIN is missing: %w", group, err)
	}
	return fmt.Errorf("packets can't be logged: group %d of nflog (CONFIG_NETFILTER_NETLINK_LOG): %w", group, err)
}
