// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Two interfaces have a default route each, as networks of CNI give them: both are there again, in
// their order, whatever of them has gone meanwhile, and as often as it is done.
func TestReturnTwoDefaults(t *testing.T) {
	t.Parallel()
	n := testNamespace(t)
	n.must(t, func(h *netlink.Handle) error {
		for i, name := range []string{"eth0", "eth1"} {
			if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: fmt.Sprint("peer", i)}); err != nil {
				return err
			}
			l, err := h.LinkByName(name)
			if err != nil {
				return err
			}
			if err := errors.Join(h.AddrAdd(l, addr(t, fmt.Sprintf("10.%d.0.2/24", i))), h.LinkSetUp(l)); err != nil {
				return err
			}
		}
		for i := range 2 {
			l, err := h.LinkByName(fmt.Sprint("eth", i))
			if err != nil {
				return err
			}
			if err := h.RouteAppend(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IPv4(10, byte(i), 0, 1)}); err != nil {
				return err
			}
		}
		return nil
	})
	defaults := func() (out []string) {
		n.must(t, func(h *netlink.Handle) error {
			list, err := h.RouteListFiltered(unix.AF_INET, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
			for _, r := range list {
				out = append(out, r.Gw.String())
			}
			return err
		})
		return out
	}
	both := []string{"10.0.0.1", "10.1.0.1"}
	if got := defaults(); !slices.Equal(got, both) {
		t.Fatalf("default routes by %v", got)
	}
	cfg, err := n.Scrape()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Detach(cfg); err != nil {
		t.Fatal(err)
	}
	for _, gone := range [][]string{nil, {"10.1.0.1"}, {"10.0.0.1", "10.1.0.1"}} {
		n.must(t, func(h *netlink.Handle) error {
			for _, gw := range gone {
				if err := h.RouteDel(&netlink.Route{Gw: net.ParseIP(gw), Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}); err != nil {
					return err
				}
			}
			return nil
		})
		for range 2 {
			if err := n.Restore(cfg); err != nil {
				t.Errorf("without %v: %v", gone, err)
			}
			if got := defaults(); !slices.Equal(got, both) {
				t.Errorf("without %v: default routes by %v", gone, got)
			}
		}
	}
}
