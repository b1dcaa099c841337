// SPDX-License-Identifier: Apache-2.0

package packetlog

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// four is a packet of IPv4 with what is behind its header.
func four(protocol byte, fragment uint16, options int, rest ...byte) []byte {
	b := make([]byte, 20+options)
	b[0], b[9] = 0x40|byte(5+options/4), protocol
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], []byte{10, 208, 0, 9, 192, 0, 2, 1})
	return append(b, rest...)
}

func six(next byte, rest ...byte) []byte {
	b := make([]byte, 40)
	b[0], b[6] = 0x60, next
	copy(b[8:], netip.MustParseAddr("fd00::9").AsSlice())
	copy(b[24:], netip.MustParseAddr("2001:db8::1").AsSlice())
	return append(b, rest...)
}

// ports are 4660 and 80.
var ports = []byte{0x12, 0x34, 0, 80, 1, 2, 3, 4}

func TestParse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		packet                   []byte
		protocol, source, target string
	}{
		"TCP":                            {four(unix.IPPROTO_TCP, 0, 0, ports...), "TCP", "10.208.0.9:4660", "192.0.2.1:80"},
		"UDP with options":               {four(unix.IPPROTO_UDP, 0, 8, ports...), "UDP", "10.208.0.9:4660", "192.0.2.1:80"},
		"first fragment":                 {four(unix.IPPROTO_UDP, 0x2000, 0, ports...), "UDP", "10.208.0.9:4660", "192.0.2.1:80"},
		"later fragment":                 {four(unix.IPPROTO_UDP, 5, 0, ports...), "UDP", "10.208.0.9", "192.0.2.1"},
		"ICMP":                           {four(unix.IPPROTO_ICMP, 0, 0, ports...), "ICMP", "10.208.0.9", "192.0.2.1"},
		"of another protocol":            {four(250, 0, 0, ports...), "250", "10.208.0.9", "192.0.2.1"},
		"cut off before the ports":       {four(unix.IPPROTO_TCP, 0, 0, 1, 2), "TCP", "10.208.0.9", "192.0.2.1"},
		"cut off in the options":         {four(unix.IPPROTO_TCP, 0, 8)[:24], "TCP", "10.208.0.9", "192.0.2.1"},
		"TCP and IPv6":                   {six(unix.IPPROTO_TCP, ports...), "TCP", "[fd00::9]:4660", "[2001:db8::1]:80"},
		"ICMPv6":                         {six(unix.IPPROTO_ICMPV6, ports...), "ICMPv6", "fd00::9", "2001:db8::1"},
		"options of IPv6":                {six(unix.IPPROTO_HOPOPTS, append([]byte{unix.IPPROTO_UDP, 0, 0, 0, 0, 0, 0, 0}, ports...)...), "UDP", "[fd00::9]:4660", "[2001:db8::1]:80"},
		"long options of IPv6":           {six(unix.IPPROTO_DSTOPTS, append(append([]byte{unix.IPPROTO_UDP, 1}, make([]byte, 14)...), ports...)...), "UDP", "[fd00::9]:4660", "[2001:db8::1]:80"},
		"first fragment of IPv6":         {six(unix.IPPROTO_FRAGMENT, append([]byte{unix.IPPROTO_UDP, 0, 0, 1, 0, 0, 0, 7}, ports...)...), "UDP", "[fd00::9]:4660", "[2001:db8::1]:80"},
		"later fragment of IPv6":         {six(unix.IPPROTO_FRAGMENT, append([]byte{unix.IPPROTO_UDP, 0, 0, 0x19, 0, 0, 0, 7}, ports...)...), "UDP", "fd00::9", "2001:db8::1"},
		"cut off in the options of IPv6": {six(unix.IPPROTO_HOPOPTS, unix.IPPROTO_UDP, 9, 0, 0), "0", "fd00::9", "2001:db8::1"},
	} {
		f, ok := parse(c.packet)
		if source, target := f.text(f.from, f.source), f.text(f.to, f.dest); !ok || f.protocol != c.protocol || source != c.source || target != c.target {
			t.Errorf("%s: %v %s %s %s, expected %s %s %s", name, ok, f.protocol, source, target, c.protocol, c.source, c.target)
		}
	}
	for _, bad := range [][]byte{nil, {0x45}, four(6, 0, 0)[:19], six(6)[:39], slices.Repeat([]byte{0xff}, 64), append([]byte{0x41}, make([]byte, 40)...)} {
		if f, ok := parse(bad); ok {
			t.Errorf("%x is %+v", bad, f)
		}
	}
}

// A guest makes the packet: whatever it is, the line has printable words alone.
func FuzzParse(f *testing.F) {
	f.Add(four(unix.IPPROTO_TCP, 0, 0, ports...))
	f.Add(six(unix.IPPROTO_HOPOPTS, unix.IPPROTO_HOPOPTS, 0, 0, 0, 0, 0, 0, 0, unix.IPPROTO_FRAGMENT))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := parse(b)
		if !ok {
			return
		}
		for _, text := range []string{got.protocol, got.text(got.from, got.source), got.text(got.to, got.dest)} {
			if text == "" || len(text) > 64 {
				t.Errorf("%x: %q", b, text)
			}
			for _, c := range []byte(text) {
				if c <= ' ' || c > '~' {
					t.Errorf("%x: %q", b, text)
				}
			}
		}
	})
}
