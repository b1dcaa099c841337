// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
)

// pair is a local port and the one in the sandbox that it leads to.
type pair struct {
	local uint16 // 0: the kernel chooses one
	to    uint16
}

// mostPorts bounds how many ports one call forwards.
const mostPorts = 100

// parsePorts reads PORT, LOCAL:REMOTE and :REMOTE.
func parsePorts(args []string) ([]pair, error) {
	if len(args) > mostPorts {
		return nil, exit.Usagef("expected at most %d ports, got %d", mostPorts, len(args))
	}
	var out []pair
	for _, a := range args {
		local, remote, both := strings.Cut(a, ":")
		if !both {
			remote = local
		}
		to, err := strconv.ParseUint(remote, 10, 16)
		if err != nil || to == 0 {
			return nil, exit.Usagef("expected a port of the sandbox between 1 and 65535, as in 8080 or 8080:80, got %q", a)
		}
		p := pair{to: uint16(to)}
		if local != "" {
			n, err := strconv.ParseUint(local, 10, 16)
			if err != nil {
				return nil, exit.Usagef("expected a local port between 0 and 65535, as in 8080:80, got %q", a)
			}
			p.local = uint16(n)
		}
		if p.local != 0 && slices.ContainsFunc(out, func(o pair) bool { return o.local == p.local }) {
			return nil, exit.Usagef("the local port %d is given twice", p.local)
		}
		out = append(out, p)
	}
	return out, nil
}

// address is what is listened at.
type address struct {
	netip.Addr
	// must says that it was asked for: a host may have no IPv6.
	must bool
}

// parseAddresses reads addresses, and localhost, which is both of the loopback. Names are
// not looked up: what they mean is for somebody else to say.
func parseAddresses(list []string) ([]address, error) {
	var out []address
	for _, s := range list {
		if s == "localhost" {
			out = append(out, address{netip.AddrFrom4([4]byte{127, 0, 0, 1}), true}, address{netip.IPv6Loopback(), false})
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, exit.Usagef("--address: expected an IP address or localhost, got %q", s)
		}
		out = append(out, address{a, true})
	}
	if len(out) == 0 {
		return nil, exit.Usagef("--address: expected an IP address or localhost")
	}
	for i, a := range out {
		if slices.ContainsFunc(out[:i], func(o address) bool { return o.Addr == a.Addr }) {
			return nil, exit.Usagef("--address: %s is given twice", a)
		}
	}
	return out, nil
}

// portTries bounds how often another port is chosen, that is free at all addresses.
const portTries = 20

// listen listens at all addresses, at one and the same port.
func listen(ctx context.Context, addrs []address, p pair) ([]net.Listener, error) {
	for try := 1; ; try++ {
		ls, err := listenOnce(ctx, addrs, p.local)
		switch {
		case err == nil:
			return ls, nil
		case p.local == 0 && errors.Is(err, unix.EADDRINUSE) && try < portTries:
			continue
		case errors.Is(err, unix.EADDRINUSE):
			err = fmt.Errorf("%w; name another one as in %d:%d, or have one chosen with :%d", err, uint32(p.local)+1, p.to, p.to)
		case errors.Is(err, unix.EADDRNOTAVAIL):
			err = fmt.Errorf("%w; `ip address` lists the addresses of this host", err)
		}
		return nil, err
	}
}

func listenOnce(ctx context.Context, addrs []address, port uint16) (ls []net.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(ls)
		}
	}()
	for _, a := range addrs {
		// tcp4 or tcp6: 0.0.0.0 would be all addresses of both.
		network := "tcp4"
		if a.Is6() && !a.Is4In6() {
			network = "tcp6"
		}
		var config net.ListenConfig
		l, err := config.Listen(ctx, network, netip.AddrPortFrom(a.Addr, port).String())
		if err != nil && !a.must && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
			continue
		}
		if err != nil {
			return ls, err
		}
		ls = append(ls, l)
		port = portOf(l)
	}
	return ls, nil
}

func portOf(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

func closeAll(ls []net.Listener) {
	for _, l := range ls {
		_ = l.Close() // nothing was written to it
	}
}
