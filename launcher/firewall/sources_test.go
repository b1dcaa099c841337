// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Packets with an address that is not the one of their link reach nobody: neither what is
// outside, nor the host, nor a sibling.
func TestForged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil := w.sandbox("evil", "front", nil)
	sibling := w.sandbox("sibling", "front", nil)
	// It allows what its neighbor's address comes from.
	w.sandbox("other", "front", func(s *Sandbox) { s.Ingress = Reach{Default: Deny, Allow: []Rule{{Sandbox: "sibling"}}} })
	other := w.guests["other"]
	ears := map[string]*heard{"outside": listen(t, w.outside, 999), "host": listen(t, w.host, 53), "sibling": listen(t, sibling.testNS, 999), "other": listen(t, other.testNS, 999)}
	w.install()
	for _, f := range families {
		own := map[*family]netip.Addr{four: evil.four, six: evil.six}[f]
		for _, at := range []struct {
			who  string
			to   string
			port uint16
		}{
			{"outside", map[*family]string{four: "1.1.1.1", six: "2606::1"}[f], 999},
			{"host", map[*family]string{four: gateway4, six: gateway6}[f], 53},
			{"sibling", map[*family]string{four: sibling.four.String(), six: sibling.six.String()}[f], 999},
			{"other", map[*family]string{four: other.four.String(), six: other.six.String()}[f], 999},
		} {
			to := netip.MustParseAddr(at.to)
			for _, source := range map[*family][]string{
				four: {sibling.four.String(), lanHost4, gateway4, lanOutside4, "1.2.3.4", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "169.254.1.1", at.to},
				six:  {sibling.six.String(), lanHost6, gateway6, lanOutside6, "2606::9", "::1", "::", "fe80::1", "::ffff:10.210.0.3", "2002:ad2:3::1", "ff02::1", at.to},
			}[f] {
				evil.send(t, (&packet{from: netip.MustParseAddr(source), to: to, port: at.port, text: "forged " + source}).bytes())
			}
			if at.who == "other" {
				continue // not even with its own address
			}
			evil.send(t, (&packet{from: own, to: to, port: at.port, text: "own"}).bytes())
			if got := ears[at.who].next(t); !strings.HasPrefix(got, "own from ") {
				t.Errorf("%s heard %s", at.who, got)
			}
		}
	}
	sibling.send(t, (&packet{from: sibling.four, to: other.four, port: 999, text: "own"}).bytes())
	if got := ears["other"].next(t); got != "own from "+sibling.four.String() {
		t.Errorf("other heard %s", got)
	}
	// 11 and 12 sources for each of four are counted, but for two of IPv6 that the kernel
	// itself drops: ::1 and a group.
	if all, err := w.table.Counters(); err != nil || all["evil"].DeniedPackets < 4*(11+10) {
		t.Errorf("%+v %v", all["evil"], err)
	}
}

// A packet that is to take a way of its own, or has an address that stands for the host,
// reaches nobody.
func TestWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil := w.sandbox("evil", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Public, Allow: []Rule{{Host: true, Port: 999}}}
	})
	outside, host := listen(t, w.outside, 999), listen(t, w.host, 999)
	w.install()
	a := netip.MustParseAddr
	way := []byte{0x83, 7, 4, 169, 254, 169, 254, 0} // loose source route by way of the metadata
	evil.send(t,
		(&packet{from: evil.four, to: a("1.1.1.1"), port: 999, text: "a way", options: way}).bytes(),
		(&packet{from: evil.four, to: a("1.1.1.1"), port: 999, text: "no way", options: []byte{1, 1, 1, 0}}).bytes(),
		(&packet{from: evil.six, to: a("2606::1"), port: 999, text: "a way", routing: true}).bytes(),
		(&packet{from: evil.six, to: a("::ffff:1.1.1.1"), port: 999, text: "mapped"}).bytes(),
		(&packet{from: evil.four, to: a("1.1.1.1"), port: 999, text: "own"}).bytes())
	if got := outside.next(t); got != "own from "+lanHost4 {
		t.Errorf("outside heard %s", got)
	}
	// The rule is about a port of the host, and not about what only listens for the host
	// itself: links route 127.0.0.0/8.
	evil.send(t, (&packet{from: evil.four, to: a("127.0.0.1"), port: 999, text: "loopback"}).bytes(),
		(&packet{from: evil.four, to: a("127.3.2.1"), port: 999, text: "loopback"}).bytes(),
		(&packet{from: evil.six, to: a("::1"), port: 999, text: "loopback"}).bytes(),
		(&packet{from: evil.four, to: a(lanHost4), port: 999, text: "own"}).bytes())
	if got := host.next(t); got != "own from "+evil.four.String() {
		t.Errorf("the host heard %s", got)
	}
}

// Fragments are judged by what they are when put together; the port is in the first one
// alone, and a second one that overlaps it changes nothing.
func TestFragments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil := w.sandbox("evil", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Deny, Allow: []Rule{{Prefix: netip.MustParsePrefix("1.1.1.1/32"), Port: 999}, {Prefix: netip.MustParsePrefix("2606::1/128"), Port: 999}}}
	})
	good, bad := listen(t, w.outside, 999), listen(t, w.outside, 998)
	w.install()
	for _, c := range []struct{ from, to netip.Addr }{{evil.four, netip.MustParseAddr("1.1.1.1")}, {evil.six, netip.MustParseAddr("2606::1")}} {
		cut := func(port uint16, text string) [][]byte {
			p := &packet{from: c.from, to: c.to, port: port, text: text + strings.Repeat(".", 40)}
			b := p.udp()
			return [][]byte{p.fragment(b[:16], 0, true), p.fragment(b[16:], 16, false)}
		}
		evil.send(t, cut(998, "bad")...)
		// The second one first, and alone.
		evil.send(t, cut(998, "bad")[1])
		reversed := cut(998, "bad")
		slices.Reverse(reversed)
		evil.send(t, reversed...)
		// Two first parts, of which one has the port that is allowed.
		evil.send(t, cut(999, "bad")[0], cut(998, "bad")[0], cut(998, "bad")[1])
		// What is left of these is not put together with what follows: it has another
		// length, or is dropped.
		evil.send(t, (&packet{from: c.from, to: c.to, port: 999, text: "whole"}).bytes())
		for {
			got := good.next(t)
			if strings.HasPrefix(got, "whole") {
				break
			}
			if !strings.HasPrefix(got, "bad") {
				t.Errorf("heard %q", got)
			}
		}
	}
	_ = bad.p.SetReadDeadline(noWait())
	if n, _, err := bad.p.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes by fragments to a port that is not allowed", n)
	}
}

// A guest that claims the addresses of others, by ARP and neighbor discovery, gets nothing
// that is theirs.
func TestNeighbors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil, web := w.sandbox("evil", "front", nil), w.sandbox("web", "front", func(s *Sandbox) { s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 1}} })
	serve(t, web.testNS, "web", at("", 80))
	serve(t, w.outside, "outside", at("", 80))
	w.install()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	for _, claimed := range []netip.Addr{web.four, evil.four, netip.MustParseAddr(lanOutside4), netip.MustParseAddr(gateway4)} {
		for _, operation := range []int{1, 2} {
			arp := slices.Concat(be16(1), be16(unix.ETH_P_IP), []byte{6, 4}, be16(operation), mac, claimed.AsSlice(), mac, claimed.AsSlice())
			evil.frames(t, unix.ETH_P_ARP, broadcast, arp)
			evil.frames(t, unix.ETH_P_ARP, evil.gatewayMAC, arp)
		}
	}
	for _, claimed := range []netip.Addr{web.six, evil.six, netip.MustParseAddr(lanOutside6)} {
		for _, source := range []netip.Addr{claimed, evil.six, netip.MustParseAddr("fe80::9")} {
			evil.send(t, advertisement(source, claimed, netip.MustParseAddr(gateway6), mac))
		}
	}
	var found int
	w.host.must(t, func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			list, err := netlink.NeighList(0, family)
			if err != nil {
				return err
			}
			for _, n := range list {
				if n.HardwareAddr.String() == mac.String() {
					link, err := netlink.LinkByIndex(n.LinkIndex)
					if err != nil {
						return err
					}
					// An entry on its own link, for an address that the host has no way to by
					// that link, means nothing.
					t.Logf("%s has %s", link.Attrs().Name, n.IP)
					if link.Attrs().Name != "sb02" || n.IP.String() == evil.four.String() || n.IP.String() == evil.six.String() {
						t.Errorf("%s is believed to be at the claimed place on %s", n.IP, link.Attrs().Name)
					}
				}
				if n.State == netlink.NUD_PERMANENT && n.IP.To4() != nil {
					found++
				}
			}
		}
		return nil
	})
	if found < 2 {
		t.Errorf("%d neighbors: this test sees nothing", found)
	}
	answers(t, w.outside, "tcp", at(lanHost4, 8080), "web")
	both(t, w.host, at(web.six, 80), "web")
	both(t, evil.testNS, at(lanOutside4, 80), "outside")
	both(t, evil.testNS, at(lanOutside6, 80), "outside")
	// A guest that does not know where its gateway is asks with its own address.
	evil.must(t, func() error {
		for _, ip := range []string{gateway4, gateway6} {
			if err := netlink.NeighDel(&netlink.Neigh{LinkIndex: evil.index, IP: net.ParseIP(ip)}); err != nil {
				return err
			}
		}
		return nil
	})
	both(t, evil.testNS, at(lanOutside4, 80), "outside")
	both(t, evil.testNS, at(lanOutside6, 80), "outside")
}

// advertisement is an answer of neighbor discovery that overrides what is known.
func advertisement(source, claimed, to netip.Addr, mac net.HardwareAddr) []byte {
	body := slices.Concat([]byte{neighborTell, 0, 0, 0, 0x60, 0, 0, 0}, claimed.AsSlice(), []byte{2, 1}, mac)
	sum := checksum(source.AsSlice(), to.AsSlice(), be16(0), be16(len(body)), be16(0), be16(unix.IPPROTO_ICMPV6), body)
	copy(body[2:], be16(int(sum)))
	return slices.Concat([]byte{0x60, 0, 0, 0}, be16(len(body)), []byte{unix.IPPROTO_ICMPV6, 255}, source.AsSlice(), to.AsSlice(), body)
}

// Who says that another router is better leads the packets of others elsewhere: what a guest
// says of it reaches nobody, also about a connection that there is, which the kernel takes for
// an error about it.
func TestRedirects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil := w.sandbox("evil", "front", nil)
	ear := listen(t, w.outside, 999)
	w.install()
	to := netip.MustParseAddr("1.1.1.1")
	evil.send(t, (&packet{from: evil.four, to: to, port: 999, text: "begun"}).bytes())
	if got := ear.next(t); got != "begun from "+lanHost4 {
		t.Fatal(got)
	}
	var errs net.PacketConn
	w.outside.must(t, func() (err error) {
		errs, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	defer errs.Close()
	// An answer as the guest would have got it, which nobody listens to there.
	answer := slices.Concat(be16(999), be16(4000), be16(8), be16(0))
	about := func(kind, code byte) []byte {
		inner := (&packet{from: to, to: evil.four}).fragment(answer, 0, false)
		body := slices.Concat([]byte{kind, code, 0, 0}, evil.four.AsSlice(), inner)
		copy(body[2:], be16(int(checksum(body))))
		b := (&packet{from: evil.four, to: to}).fragment(body, 0, false)
		b[9], b[10], b[11] = unix.IPPROTO_ICMP, 0, 0
		copy(b[10:], be16(int(checksum(b[:20]))))
		return b
	}
	evil.send(t, about(redirect4, 1), about(3, 3))
	b := make([]byte, 500)
	_ = errs.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := errs.ReadFrom(b)
	if err != nil || n < 8 || b[0] != 3 {
		t.Errorf("outside heard type %d of %d bytes, expected an error about the port: %v", b[0], n, err)
	}
}
