// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// testNS is a network namespace of a test, gone when the test has ended.
type testNS struct{ f *os.File }

// Do runs fn on a thread of its own in the namespace. The thread ends afterwards.
func (n *testNS) Do(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = fn()
		}
		result <- err
	}()
	return <-result
}

func newNS(t testing.TB) *testNS {
	t.Helper()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	result := make(chan error)
	n := &testNS{}
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.f, err = os.Open("/proc/thread-self/ns/net")
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.f.Close() })
	n.must(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return n
}

func (n *testNS) must(t testing.TB, fn func() error) {
	t.Helper()
	if err := n.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func sysctl(values map[string]string) error {
	for path, value := range values {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// world is a host, with sandboxes behind links of their own, and one namespace for all that
// is outside: it answers for every address.
type world struct {
	t       testing.TB
	host    *testNS
	outside *testNS
	table   *Table
	guests  map[string]*guest
	rules   Ruleset
}

// guest is a sandbox of the test.
type guest struct {
	*testNS
	name string
	// gatewayMAC is that of the host's end.
	index      int
	gatewayMAC net.HardwareAddr
	four, six  netip.Addr
}

const (
	lanHost4, lanOutside4 = "192.168.77.1", "192.168.77.2"
	lanHost6, lanOutside6 = "2a00:77::1", "2a00:77::2"
	otherHost4            = "172.20.0.1" // an address of the host on another interface
	otherHost6            = "2a00:78::1"
	gateway4, gateway6    = "10.210.0.1", "fd10:210::1"
)

func addr(text string) *netlink.Addr {
	a, err := netlink.ParseAddr(text)
	if err != nil {
		panic(err)
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
	}
	return a
}

// network is a prefix with its host bits.
func prefix(text string) *net.IPNet {
	_, n, err := net.ParseCIDR(text)
	if err != nil {
		panic(err)
	}
	return n
}

// pair makes a veth pair from one namespace to another.
func pair(from *testNS, name string, to *testNS, peer string) error {
	return from.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, Flags: net.FlagUp}, PeerName: peer, PeerNamespace: netlink.NsFd(int(to.f.Fd()))})
	})
}

// up gives a link addresses, and routes of "prefix" or "prefix via".
func up(name string, addrs []string, routes ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range addrs {
		if err := netlink.AddrAdd(link, addr(a)); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	for _, r := range routes {
		to, via, _ := strings.Cut(r, " ")
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: prefix(to), Scope: netlink.SCOPE_LINK}
		if via != "" {
			route.Gw, route.Scope = net.ParseIP(via), netlink.SCOPE_UNIVERSE
			route.SetFlag(netlink.FLAG_ONLINK)
		}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route %s: %w", r, err)
		}
	}
	return nil
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, host: newNS(t), outside: newNS(t), guests: map[string]*guest{}}
	if err := errors.Join(pair(w.host, "lan0", w.outside, "eth0"), pair(w.host, "other0", w.outside, "eth1")); err != nil {
		t.Fatal(err)
	}
	w.host.must(t, func() error {
		if err := up("lan0", []string{lanHost4 + "/24", lanHost6 + "/64"}, "2a00:77::/64", "0.0.0.0/0 "+lanOutside4, "::/0 "+lanOutside6); err != nil {
			return err
		}
		if err := up("other0", []string{otherHost4 + "/24", otherHost6 + "/64"}); err != nil {
			return err
		}
		return sysctl(map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"})
	})
	w.outside.must(t, func() error {
		if err := up("eth0", []string{lanOutside4 + "/24", lanOutside6 + "/64"}, "2a00:77::/64", "10.210.0.0/16 "+lanHost4, "fd10:210::/64 "+lanHost6); err != nil {
			return err
		}
		if err := up("eth1", nil); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, all := range []string{"0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"} {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: prefix(all), Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}); err != nil {
				return fmt.Errorf("all addresses: %w", err)
			}
		}
		return nil
	})
	var err error
	if w.table, err = Open(w.host, "sandboxctl-test"); err != nil {
		t.Fatal(err)
	}
	return w
}

// sandbox makes the namespace and the link of a sandbox, and its entry in the rules.
func (w *world) sandbox(name, network string, change func(*Sandbox)) *guest {
	w.t.Helper()
	i := len(w.guests) + 2
	link := fmt.Sprintf("sb%02d", i)
	g := &guest{testNS: newNS(w.t), name: name, four: netip.MustParseAddr(fmt.Sprintf("10.210.0.%d", i)), six: netip.MustParseAddr(fmt.Sprintf("fd10:210::%d", i))}
	w.guests[name] = g
	if err := pair(w.host, link, g.testNS, "eth0"); err != nil {
		w.t.Fatal(err)
	}
	var mac net.HardwareAddr
	g.must(w.t, func() error {
		if err := up("eth0", []string{g.four.String() + "/32", g.six.String() + "/128"}, "0.0.0.0/0 "+gateway4, "::/0 "+gateway6); err != nil {
			return err
		}
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		mac, g.index = eth.Attrs().HardwareAddr, eth.Attrs().Index
		return sysctl(map[string]string{"ipv4/ip_unprivileged_port_start": "0"})
	})
	w.host.must(w.t, func() error {
		if err := sysctl(map[string]string{"ipv4/conf/" + link + "/route_localnet": "1", "ipv6/conf/" + link + "/accept_ra": "0"}); err != nil {
			return err
		}
		if err := up(link, []string{gateway4 + "/32", gateway6 + "/128"}, g.four.String()+"/32", g.six.String()+"/128"); err != nil {
			return err
		}
		host, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		g.gatewayMAC = host.Attrs().HardwareAddr
		for _, a := range []netip.Addr{g.four, g.six} {
			if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: host.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}); err != nil {
				return err
			}
		}
		return nil
	})
	// As the launcher does. TestNeighbors is about those that are asked for.
	g.must(w.t, func() error {
		for _, ip := range []string{gateway4, gateway6} {
			if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: g.index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(ip), HardwareAddr: g.gatewayMAC}); err != nil {
				return err
			}
		}
		return nil
	})
	s := Sandbox{Name: name, Attachments: []Attachment{{
		Sandbox: name, Network: network, Link: link, Address4: g.four, Address6: g.six,
		Gateway4: netip.MustParseAddr(gateway4), Gateway6: netip.MustParseAddr(gateway6),
	}}}
	if change != nil {
		change(&s)
	}
	w.rules.Sandboxes = append(w.rules.Sandboxes, s)
	return g
}

// edit changes a sandbox of the rules, without installing them.
func (w *world) edit(name string, change func(*Sandbox)) {
	for i := range w.rules.Sandboxes {
		if w.rules.Sandboxes[i].Name == name {
			change(&w.rules.Sandboxes[i])
		}
	}
}

func (w *world) install() {
	w.t.Helper()
	if err := w.table.Install(w.t.Context(), &w.rules); err != nil {
		w.t.Fatal(err)
	}
}

// serve answers on a port of a namespace, TCP and UDP, with a name and the address that
// asked.
func serve(t testing.TB, n *testNS, name, address string) {
	t.Helper()
	var l net.Listener
	var p *net.UDPConn
	n.must(t, func() (err error) {
		if l, err = net.Listen("tcp", address); err != nil {
			return err
		}
		if p, err = listenUDP(address); err != nil {
			return err
		}
		return nil
	})
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); p.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				b := make([]byte, 64)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					fmt.Fprintf(c, "%s %s\n", name, host)
				}
			})
		}
	})
	all.Go(func() {
		b, oob := make([]byte, 2048), make([]byte, 256)
		for {
			_, k, _, from, err := p.ReadMsgUDP(b, oob)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _, _ = p.WriteMsgUDP(fmt.Appendf(nil, "%s %s\n", name, host), oob[:k], from)
		}
	})
}

// listenUDP has a socket that answers from the address that was asked: what it is told of
// that with a packet is given back with the answer.
func listenUDP(address string) (*net.UDPConn, error) {
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	u := p.(*net.UDPConn)
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	return u, raw.Control(func(fd uintptr) {
		if domain, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); domain == unix.AF_INET6 {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		} else {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
}

const (
	// answerTime is how long an answer is waited for that must come. Packets in one kernel take
	// microseconds, but the machine may have other work.
	answerTime = 10 * time.Second
	// silenceTime is how long one is waited for that must not come: what is refused is told at once,
	// as a rule, and what is dropped never is.
	silenceTime = 400 * time.Millisecond
)

// ask is what answers a question from a namespace: "NAME ADDRESS", or an error.
func ask(n *testNS, network, to string, patience time.Duration) (string, error) {
	c, err := dialFrom(n, network, to, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return say(c, patience)
}

func dialFrom(n *testNS, network, to string, patience time.Duration) (c net.Conn, err error) {
	err = n.Do(func() (err error) {
		c, err = net.DialTimeout(network, to, patience)
		return err
	})
	return c, err
}

// say asks on a connection.
func say(c net.Conn, patience time.Duration) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "?"); err != nil {
		return "", err
	}
	b := make([]byte, 256)
	k, err := c.Read(b)
	return string(bytes.TrimSpace(b[:k])), err
}

// answers checks who answers; "" stands for nobody, "NAME" for anybody's address.
func answers(t testing.TB, n *testNS, network, to, want string) {
	t.Helper()
	patience := answerTime
	if want == "" {
		patience = silenceTime
	}
	got, err := ask(n, network, to, patience)
	who, _, _ := strings.Cut(got, " ")
	switch {
	case want == "" && err == nil:
		t.Errorf("%s %s: %s answers, expected nobody", network, to, got)
	case want != "" && err != nil:
		t.Errorf("%s %s: %v, expected %s", network, to, err, want)
	case want != "" && got != want && who != want:
		t.Errorf("%s %s: %s, expected %s", network, to, got, want)
	}
}

// both checks TCP and UDP.
func both(t testing.TB, n *testNS, to, want string) {
	t.Helper()
	answers(t, n, "tcp", to, want)
	answers(t, n, "udp", to, want)
}

// at is an address with a port.
func at(host any, port int) string { return net.JoinHostPort(fmt.Sprint(host), fmt.Sprint(port)) }

// noWait is a deadline for what has come already.
func noWait() time.Time { return time.Now().Add(10 * time.Millisecond) }
