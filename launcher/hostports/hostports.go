// SPDX-License-Identifier: Apache-2.0

// Package hostports finds out which ports programs of the host have, in the network namespace of
// the calling thread.
package hostports

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Held says whether a socket has a port of a protocol, "tcp" or "udp", at an address, or at any if
// that is not valid. ours says that at [::1] it is this program's.
func Held(protocol string, address netip.Addr, port uint16, ours bool) bool {
	var at []unix.Sockaddr
	if !address.IsValid() || address.Is4() {
		a := &unix.SockaddrInet4{Port: int(port)}
		if address.IsValid() {
			a.Addr = address.As4()
		}
		at = append(at, a)
	}
	if (!address.IsValid() || address.Is6()) && !ours {
		a := &unix.SockaddrInet6{Port: int(port)}
		if address.IsValid() {
			a.Addr = address.As16()
		}
		at = append(at, a)
	}
	return slices.ContainsFunc(at, func(a unix.Sockaddr) bool { return errors.Is(tryBind(protocol, a), unix.EADDRINUSE) })
}

// tryBind has a socket have an address for a moment. It listens to nobody.
func tryBind(protocol string, at unix.Sockaddr) error {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if _, six := at.(*unix.SockaddrInet6); six {
		family = unix.AF_INET6
	}
	if protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && protocol == "tcp" {
		// As servers do: connections that have ended keep nobody from it.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, at)
	}
	return err
}
