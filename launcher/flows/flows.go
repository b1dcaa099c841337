// SPDX-License-Identifier: Apache-2.0

// Package flows ends connections of sandboxes in the kernel's table of connections. Rules
// are asked when a connection begins, so one that began before they became stricter would
// go on; and one of a sandbox that is gone would belong to the next one with its address.
package flows

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace, entered to call fn; *netns.Namespace is one.
type Namespace interface {
	Do(fn func() error) error
}

// addresses are those of sandboxes. It matches a connection that any of them is part of:
// before addresses were replaced, and after it.
type addresses map[netip.Addr]bool

// MatchConntrackFlow says whether a connection is one of them.
func (a addresses) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{flow.Forward.SrcIP, flow.Forward.DstIP, flow.Reverse.SrcIP, flow.Reverse.DstIP} {
		if addr, ok := netip.AddrFromSlice(ip); ok && a[addr.Unmap()] {
			return true
		}
	}
	return false
}

// Forget has the kernel forget all connections of addresses, in a namespace or, if that is
// nil, in the one of this process. The next packet of such a connection begins it again,
// and is judged by the rules of then. It returns how many there were.
func Forget(ns Namespace, addrs ...netip.Addr) (int, error) {
	of := addresses{}
	families := map[netlink.InetFamily]bool{}
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			families[unix.AF_INET] = true
		} else if a.IsValid() {
			families[unix.AF_INET6] = true
		}
		of[a] = true
	}
	forgotten := 0
	forget := func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("forget connections of sandboxes: %w", err)
		}
		defer h.Close()
		for family := range families {
			// A connection that ends by itself meanwhile is no error. Those that the
			// kernel did not list, for the table changed, are found by another look.
			for look := 1; ; look++ {
				n, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, of)
				forgotten += int(n)
				if err == nil {
					break
				}
				if !errors.Is(err, netlink.ErrDumpInterrupted) || look == looks {
					return fmt.Errorf("forget connections of sandboxes: %w", err)
				}
			}
		}
		return nil
	}
	if ns == nil {
		err := forget()
		return forgotten, err
	}
	err := ns.Do(forget)
	return forgotten, err
}

// looks are how often a table that changes all the time is looked at.
const looks = 5
