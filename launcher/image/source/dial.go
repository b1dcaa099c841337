// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// local says whether a registry may have an address of this host.
func (h Host) local() bool { return h.AllowLocal || h.PlainHTTP }

// dial connects to a registry. What its name means is judged when it is known, at each
// attempt: whoever has a domain decides what its names mean, and to whom services of this
// host or its cloud would then answer.
func (h Hosts) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTime, KeepAlive: 30 * time.Second}
	if host := hostname(addr); !literal(host) && !h.named(addr).local() && !slices.Contains(proxies(), addr) {
		d.ControlContext = func(_ context.Context, _, addr string, _ syscall.RawConn) error {
			if isInside(hostname(addr)) {
				return fmt.Errorf("%s is %s: %w", host, hostname(addr), errInside)
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, addr)
}

// named is how a registry is spoken to whose address has a port.
func (h Hosts) named(addr string) Host {
	if of, ok := h[addr]; ok {
		return of
	}
	return h.of(hostname(addr))
}

// literal says whether a host is an address, or a name that always means this host. Who
// wrote it meant it; where registries lead to is judged before (guarded).
func literal(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}

// metadata are addresses at which clouds serve credentials of the host, beside those of
// its link.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16"),
}

// isInside says whether an address is of this host or its link.
func isInside(host string) bool {
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return host == "localhost"
	}
	ip = ip.Unmap().WithZone("")
	return ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || slices.Contains(metadata, ip) ||
		ip.Is4() && ip.As4()[0] == 0 // of which Linux makes this host
}

// proxies are the addresses of the proxies that the environment names: whoever set them
// meant them.
func proxies() (out []string) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		v := os.Getenv(name)
		if v != "" && !strings.Contains(v, "://") {
			v = "http://" + v
		}
		u, err := url.Parse(v)
		if err != nil || u.Host == "" {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		if port == "" {
			port = "80"
		}
		out = append(out, net.JoinHostPort(u.Hostname(), port))
	}
	return out
}
