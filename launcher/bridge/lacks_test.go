// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/hostports"
)

// A port is held by a listener at the address or at all of them; not by one at another
// address, of the other protocol, or by what this program has at [::1].
func TestHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	four, six := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	err := w.ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			return err
		}
		for port, at := range map[int]unix.Sockaddr{80: &unix.SockaddrInet4{Port: 80, Addr: four.As4()}, 81: &unix.SockaddrInet6{Port: 81, Addr: six.As16()}} {
			family := unix.AF_INET
			if port == 81 {
				family = unix.AF_INET6
			}
			fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { unix.Close(fd) })
			if err := unix.Bind(fd, at); err != nil {
				return err
			}
			if err := unix.Listen(fd, 1); err != nil {
				return err
			}
		}
		for _, c := range []struct {
			s          spot
			ours, held bool
		}{
			{s: spot{"tcp", netip.Addr{}, 80}, held: true},
			{s: spot{"tcp", four, 80}, held: true},
			{s: spot{"tcp", netip.MustParseAddr("127.0.0.2"), 80}},
			{s: spot{"tcp", six, 80}},
			{s: spot{"udp", netip.Addr{}, 80}},
			{s: spot{"tcp", netip.Addr{}, 81}, held: true},
			{s: spot{"tcp", netip.Addr{}, 81}, ours: true},
			{s: spot{"tcp", four, 81}},
			{s: spot{"tcp", netip.MustParseAddr("203.0.113.9"), 82}},
		} {
			if got := hostports.Held(c.s.protocol, c.s.at, c.s.port, c.ours); got != c.held {
				t.Errorf("%+v: %t, expected %t", c.s, got, c.held)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
