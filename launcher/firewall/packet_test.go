// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// packet is a datagram of UDP, made by hand.
type packet struct {
	from, to netip.Addr
	port     uint16
	text     string
	options  []byte // of IPv4, a multiple of four bytes
	routing  bool   // has a routing header of IPv6
}

func checksum(parts ...[]byte) uint16 {
	b := slices.Concat(parts...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// udp is the datagram without the header of IP.
func (p *packet) udp() []byte {
	b := slices.Concat(be16(4000), be16(int(p.port)), be16(8+len(p.text)), []byte{0, 0}, []byte(p.text))
	sum := checksum(p.from.AsSlice(), p.to.AsSlice(), be16(0), be16(unix.IPPROTO_UDP), be16(0), be16(len(b)), b)
	copy(b[6:], be16(int(sum)))
	return b
}

// bytes is the packet as a whole.
func (p *packet) bytes() []byte { return p.fragment(p.udp(), 0, false) }

// fragment is a part of a datagram.
func (p *packet) fragment(part []byte, offset int, more bool) []byte {
	flags := offset / 8
	if p.from.Is4() {
		if more {
			flags |= 0x2000
		}
		head := slices.Concat([]byte{0x45 + byte(len(p.options)/4), 0}, be16(20+len(p.options)+len(part)), be16(77), be16(flags), []byte{64, unix.IPPROTO_UDP, 0, 0}, p.from.AsSlice(), p.to.AsSlice(), p.options)
		copy(head[10:], be16(int(checksum(head))))
		return append(head, part...)
	}
	next := byte(unix.IPPROTO_UDP)
	if p.routing {
		// One segment that is left, of type 2.
		part = slices.Concat([]byte{next, 2, 2, 1, 0, 0, 0, 0}, netip.MustParseAddr("2606::2").AsSlice(), part)
		next = unix.IPPROTO_ROUTING
	}
	if offset > 0 || more {
		last := byte(1)
		if !more {
			last = 0
		}
		part = slices.Concat([]byte{next, 0}, be16(offset|int(last)), []byte{0, 0, 0, 77}, part)
		next = unix.IPPROTO_FRAGMENT
	}
	return slices.Concat([]byte{0x60, 0, 0, 0}, be16(len(part)), []byte{next, 64}, p.from.AsSlice(), p.to.AsSlice(), part)
}

// send gives packets to the host, past all that the guest's kernel would say.
func (g *guest) send(t testing.TB, packets ...[]byte) {
	t.Helper()
	g.frames(t, 0, g.gatewayMAC, packets...)
}

// frames sends frames of a protocol; 0 stands for IP.
func (g *guest) frames(t testing.TB, protocol uint16, to net.HardwareAddr, packets ...[]byte) {
	t.Helper()
	g.must(t, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, b := range packets {
			kind := protocol
			if kind == 0 {
				kind = map[byte]uint16{4: unix.ETH_P_IP, 6: unix.ETH_P_IPV6}[b[0]>>4]
			}
			addr := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, kind)), Ifindex: g.index, Halen: 6}
			copy(addr.Addr[:], to)
			if err := unix.Sendto(fd, b, 0, addr); err != nil {
				return err
			}
		}
		return nil
	})
}

// heard is a socket that tells what came, as "TEXT from ADDRESS".
type heard struct{ p *net.UDPConn }

func listen(t testing.TB, n *testNS, port int) *heard {
	t.Helper()
	h := &heard{}
	n.must(t, func() (err error) {
		h.p, err = listenUDP(at("", port))
		return err
	})
	t.Cleanup(func() { h.p.Close() })
	return h
}

// next is what comes next; packets of one link come in the order that they were sent.
func (h *heard) next(t testing.TB) string {
	t.Helper()
	b := make([]byte, 4096)
	_ = h.p.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, from, err := h.p.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatalf("nothing came: %v", err)
	}
	return string(b[:n]) + " from " + from.Addr().Unmap().String()
}
