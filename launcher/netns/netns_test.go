// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// testNamespace makes a namespace that is gone when the test has ended.
func testNamespace(t *testing.T) *Namespace {
	t.Helper()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func (n *Namespace) must(t *testing.T, fn func(h *netlink.Handle) error) {
	t.Helper()
	if err := n.netlink(fn); err != nil {
		t.Fatal(err)
	}
}

func addr(t *testing.T, s string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// furnish gives the namespace an interface with addresses, routes and a
// neighbor, and one that is down.
func furnish(t *testing.T, n *Namespace) {
	t.Helper()
	n.must(t, func(h *netlink.Handle) error {
		mac, _ := net.ParseMAC("02:00:00:00:00:01")
		eth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1400, HardwareAddr: mac}, PeerName: "eth1"}
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := errors.Join(h.LinkAdd(eth), h.LinkSetUp(lo)); err != nil {
			return err
		}
		down, err := h.LinkByName("eth1")
		if err != nil {
			return err
		}
		if err := errors.Join(h.AddrAdd(eth, addr(t, "10.9.0.2/24")), h.AddrAdd(eth, addr(t, "fd00:9::2/64")), h.AddrAdd(down, addr(t, "10.8.0.2/24")), h.LinkSetUp(eth)); err != nil {
			return err
		}
		_, far, _ := net.ParseCIDR("10.77.0.0/16")
		gw := net.ParseIP("10.9.0.1")
		return errors.Join(
			h.RouteAdd(&netlink.Route{LinkIndex: eth.Index, Gw: gw}),
			h.RouteAdd(&netlink.Route{LinkIndex: eth.Index, Dst: far, Gw: net.ParseIP("10.9.0.7"), MTU: 1300}),
			h.NeighAdd(&netlink.Neigh{LinkIndex: eth.Index, State: netlink.NUD_PERMANENT, IP: gw, HardwareAddr: mac}),
		)
	})
}

// What is detached is read whole, taken away, told to the sentry, and put back as
// it was.
func TestLend(t *testing.T) {
	t.Parallel()
	n := testNamespace(t)
	furnish(t, n)
	cfg, err := n.Scrape()
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Links) != 2 || !cfg.HasInterfaces() || !cfg.Links[0].Loopback || cfg.Links[1].Name != "eth0" || cfg.Links[1].MTU != 1400 {
		t.Fatalf("%+v", cfg)
	}
	if !slices.Contains(cfg.Links[1].Addresses, netip.MustParsePrefix("10.9.0.2/24")) || !slices.Contains(cfg.Links[1].Addresses, netip.MustParsePrefix("fd00:9::2/64")) {
		t.Errorf("addresses %v", cfg.Links[1].Addresses)
	}
	args, err := cfg.Args()
	if err != nil {
		t.Fatal(err)
	}
	if len(args.LoopbackLinks) != 1 || len(args.FDBasedLinks) != 1 || args.Defaultv4Gateway.Name != "eth0" ||
		args.Defaultv4Gateway.Route.Gateway.String() != "10.9.0.1" || len(args.FDBasedLinks[0].Neighbors) != 1 {
		t.Errorf("%+v", args)
	}
	if far := slices.IndexFunc(cfg.Links[1].Routes, func(r Route) bool { return r.Destination.String() == "10.77.0.0/16" }); far < 0 || cfg.Links[1].Routes[far].MTU != 1300 {
		t.Errorf("routes %+v", cfg.Links[1].Routes)
	}
	// As it is read back from a record.
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	recorded := &Config{}
	if err := json.Unmarshal(b, recorded); err != nil || !reflect.DeepEqual(cfg, recorded) {
		t.Fatalf("recorded as %s: %+v %v", b, recorded, err)
	}

	for range 2 { // both are safe to repeat
		if err := n.Detach(recorded); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := n.Scrape(); err != nil || left.HasInterfaces() {
		t.Errorf("left behind: %+v %v", left, err)
	}
	files, err := n.Sockets(recorded, &args)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d sockets: %v", len(files), err)
	}
	name, err := unix.Getsockname(int(files[0].Fd()))
	if ll, ok := name.(*unix.SockaddrLinklayer); err != nil || !ok || ll.Ifindex != cfg.Links[1].Index {
		t.Errorf("socket on %+v: %v", name, err)
	}
	files[0].Close()

	for range 2 {
		if err := n.Restore(recorded); err != nil {
			t.Fatal(err)
		}
	}
	again, err := n.Scrape()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Config{cfg, again} {
		for i := range c.Links {
			// The order of what the kernel lists is not a promise.
			slices.SortFunc(c.Links[i].Routes, func(a, b Route) int { return a.Destination.Compare(b.Destination) })
			slices.SortFunc(c.Links[i].Addresses, netip.Prefix.Compare)
		}
	}
	if !reflect.DeepEqual(cfg, again) {
		t.Errorf("was\n%+v\nis\n%+v", cfg, again)
	}
}

// Another interface of the same number or none is left alone, and gets an address
// that was passed through like any other.
func TestReturnElsewhere(t *testing.T) {
	t.Parallel()
	n := testNamespace(t)
	furnish(t, n)
	cfg, err := n.Scrape()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Detach(cfg); err != nil {
		t.Fatal(err)
	}
	// As the plugin of CNI does that ends it.
	n.must(t, func(h *netlink.Handle) error {
		l, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := h.LinkDel(l); err != nil {
			return err
		}
		mac, _ := net.ParseMAC("02:00:00:00:00:99")
		other := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: cfg.Links[1].Index, HardwareAddr: mac}, PeerName: "eth1"}
		return errors.Join(h.LinkAdd(other), h.LinkSetUp(other))
	})
	cfg.Links = append(cfg.Links, Link{Name: "gone", Index: 4000, Addresses: cfg.Links[1].Addresses})
	for range 2 {
		if err := n.Restore(cfg); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := n.Scrape(); err != nil || left.HasInterfaces() && slices.ContainsFunc(left.Links[1].Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		t.Errorf("given to another interface: %+v %v", left, err)
	}
	n.must(t, func(h *netlink.Handle) error {
		l, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return h.AddrAdd(l, addr(t, "10.9.0.2/24"))
	})
	if again, err := n.Scrape(); err != nil || !again.HasInterfaces() || !slices.Contains(again.Links[1].Addresses, netip.MustParsePrefix("10.9.0.2/24")) {
		t.Errorf("the address can't be detached again: %+v %v", again, err)
	}
}

// localTable is what the kernel serves, as text.
func localTable(t *testing.T, n *Namespace) (out []string) {
	t.Helper()
	n.must(t, func(h *netlink.Handle) error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				out = append(out, fmt.Sprintf("%s type %d proto %d scope %d src %s link %d metric %d", r.Dst, r.Type, r.Protocol, r.Scope, r.Src, r.LinkIndex, r.Priority))
			}
		}
		return nil
	})
	slices.Sort(out)
	return out
}

// echoes says whether something answers at an address, as seen from a namespace.
func echoes(t *testing.T, from *Namespace, to string) bool {
	t.Helper()
	var err error
	if derr := from.Do(func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", net.JoinHostPort(to, "9"), time.Second); err == nil {
			c.Close()
		}
		return nil
	}); derr != nil {
		t.Fatal(derr)
	}
	// Nobody listens: the kernel that has the address refuses.
	return errors.Is(err, unix.ECONNREFUSED)
}

// soon waits for something that an interface which is coming up will do.
func soon(what func() bool) bool {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if what() {
			return true
		}
	}
	return false
}

// pair is two namespaces with an interface between them: eth0 of the inner one has
// the addresses given.
func pair(t *testing.T, gateway string, addresses ...string) (inner, outer *Namespace) {
	t.Helper()
	inner, outer = testNamespace(t), testNamespace(t)
	outer.must(t, func(h *netlink.Handle) error {
		eth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(inner.f.Fd())}
		if err := h.LinkAdd(eth); err != nil {
			return err
		}
		return errors.Join(h.AddrAdd(eth, addr(t, gateway)), h.LinkSetUp(eth))
	})
	inner.must(t, func(h *netlink.Handle) error {
		l, err := h.LinkByName("eth0")
		for _, a := range addresses {
			err = errors.Join(err, h.AddrAdd(l, addr(t, a)))
		}
		return errors.Join(err, h.LinkSetUp(l))
	})
	return inner, outer
}

// onEth0 are the addresses of an interface that are not link-local, as its client's
// programs see them.
func onEth0(t *testing.T, n *Namespace) (out []string) {
	t.Helper()
	n.must(t, func(h *netlink.Handle) error {
		l, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := h.AddrList(l, netlink.FAMILY_ALL)
		for _, a := range addrs {
			if !a.IP.IsLinkLocalUnicast() {
				out = append(out, a.IPNet.String())
			}
		}
		return err
	})
	slices.Sort(out)
	return out
}

// While an address is detached it is on its interface, where the client's programs
// look for it, and the kernel answers for it in no way: also where it forwards, and
// also not to who asks for its hardware address by IPv6. Then all is as it was.
func TestLentAddressStays(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		gateway   string
		addresses []string // sorted; the first can be reached
	}{
		"v4":        {"10.9.1.1/24", []string{"10.9.1.2/24", "10.9.1.3/32"}},
		"v6":        {"fd00:9:1::1/64", []string{"fd00:9:1::2/64", "fd00:9:1::3/128"}},
		"global v6": {"2001:db8:9::1/48", []string{"2001:db8:9::2/48"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			inner, outer := pair(t, c.gateway, c.addresses...)
			if err := inner.Do(func() error {
				return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0), os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
			}); err != nil {
				t.Fatal(err)
			}
			first := netip.MustParsePrefix(c.addresses[0]).Addr().String()
			if !soon(func() bool { return echoes(t, outer, first) }) {
				t.Fatalf("nobody answers at %s before it is detached", first)
			}
			served := func() bool { // all of them, and its own; that takes IPv6 a moment
				lines := strings.Join(localTable(t, inner), "\n")
				if !linkLocal.MatchString(lines) {
					return false
				}
				for _, a := range c.addresses {
					p := netip.MustParsePrefix(a)
					if !strings.Contains(lines, fmt.Sprintf("%s/%d type %d ", p.Addr(), p.Addr().BitLen(), unix.RTN_LOCAL)) {
						return false
					}
				}
				return true
			}
			if !soon(served) {
				t.Fatalf("not served: %v", localTable(t, inner))
			}
			before := localTable(t, inner)
			cfg, err := inner.Scrape()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := inner.Detach(cfg); err != nil {
					t.Fatal(err)
				}
			}
			forget(t, outer)
			for _, a := range c.addresses {
				if ip := netip.MustParsePrefix(a).Addr().String(); echoes(t, outer, ip) {
					t.Errorf("the kernel answers at %s while it is detached", ip)
				}
			}
			if strings.Contains(first, ":") {
				if known := forget(t, outer); slices.Contains(known, first) {
					t.Errorf("the kernel told its hardware address for %s", first)
				}
			}
			if left, err := inner.Scrape(); err != nil || left.HasInterfaces() {
				t.Errorf("it can be detached twice: %+v %v", left, err)
			}
			if got := onEth0(t, inner); !slices.Equal(got, c.addresses) {
				t.Errorf("the interface has %v, expected what it had, %v", got, c.addresses)
			}
			for range 2 {
				if err := inner.Restore(cfg); err != nil {
					t.Fatal(err)
				}
			}
			if !soon(func() bool { return slices.Equal(before, localTable(t, inner)) }) {
				t.Errorf("the kernel serves\n%s,\nbefore it was\n%s", strings.Join(localTable(t, inner), "\n"), strings.Join(before, "\n"))
			}
			if !soon(func() bool { return echoes(t, outer, first) }) {
				t.Error("nobody answers after the end")
			}
		})
	}
}

var linkLocal = regexp.MustCompile(`fe80::[0-9a-f:]+/128 type 2 `)

// forget removes all neighbors that a namespace has found, and returns them.
func forget(t *testing.T, n *Namespace) (known []string) {
	t.Helper()
	n.must(t, func(h *netlink.Handle) error {
		l, err := h.LinkByName("out")
		if err != nil {
			return err
		}
		neighbors, err := h.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
		for _, n := range neighbors {
			if len(n.HardwareAddr) > 0 {
				known = append(known, n.IP.String())
			}
			if derr := h.NeighDel(&n); derr != nil && !errors.Is(derr, unix.ENOENT) {
				err = errors.Join(err, derr)
			}
		}
		return err
	})
	return known
}

// An address that the kernel still looks for at its neighbors when it is detached is not
// served by it when it has found nobody.
func TestLentTentative(t *testing.T) {
	t.Parallel()
	inner, outer := pair(t, "fd00:9:2::1/64", "fd00:9:2::2/64")
	cfg := &Config{}
	if !soon(func() bool {
		var err error
		if cfg, err = inner.Scrape(); err != nil {
			t.Fatal(err)
		}
		return cfg.HasInterfaces()
	}) {
		t.Fatal("nothing to lend")
	}
	if err := inner.Detach(cfg); err != nil {
		t.Fatal(err)
	}
	// Longer than the kernel looks: the gateway's own address is served by then.
	if !soon(func() bool {
		return strings.Contains(strings.Join(localTable(t, outer), "\n"), "fd00:9:2::1/128 type 2 ")
	}) {
		t.Fatal("the other end does not come up")
	}
	if lines := strings.Join(localTable(t, inner), "\n"); strings.Contains(lines, "fd00:9:2::2/128 type 2 ") {
		t.Errorf("the kernel serves it:\n%s", lines)
	}
	if err := inner.Restore(cfg); err != nil {
		t.Fatal(err)
	}
	if !soon(func() bool { return echoes(t, outer, "fd00:9:2::2") }) {
		t.Error("nobody answers after the end")
	}
}

// A launcher that died at any step of Take or of Return, and another one that returns
// all: what was is there again.
func TestReturnAfterSomeSteps(t *testing.T) {
	t.Parallel()
	inner, _ := pair(t, "fd00:9:3::1/64", "fd00:9:3::2/64", "10.9.3.2/24")
	if !soon(func() bool {
		lines := strings.Join(localTable(t, inner), "\n")
		return linkLocal.MatchString(lines) && strings.Contains(lines, "fd00:9:3::2/128 type 2 ")
	}) {
		t.Fatal("not served")
	}
	before := localTable(t, inner)
	cfg, err := inner.Scrape()
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParsePrefix("fd00:9:3::2/64")
	steps := map[string]func(h *netlink.Handle, l netlink.Link) error{
		"nothing was taken":           func(*netlink.Handle, netlink.Link) error { return nil },
		"the blackhole alone":         func(h *netlink.Handle, _ netlink.Link) error { return h.RouteReplace(blackhole(a.Addr())) },
		"an address, not multicast":   func(h *netlink.Handle, l netlink.Link) error { return silence(h, l, a, false) },
		"multicast alone":             func(h *netlink.Handle, l netlink.Link) error { return deafen(h, l.Attrs().Index) },
		"an address that was removed": func(h *netlink.Handle, l netlink.Link) error { return h.AddrDel(l, &netlink.Addr{IPNet: ipNet(a)}) },
		"the blackhole was put back": func(h *netlink.Handle, _ netlink.Link) error {
			return errors.Join(inner.Detach(cfg), h.RouteDel(blackhole(a.Addr())))
		},
		"the address is gone by then": func(h *netlink.Handle, l netlink.Link) error {
			return errors.Join(inner.Detach(cfg), h.AddrDel(l, &netlink.Addr{IPNet: ipNet(a)}))
		},
	}
	for what, step := range steps {
		inner.must(t, func(h *netlink.Handle) error {
			l, err := h.LinkByName("eth0")
			if err != nil {
				return err
			}
			return step(h, l)
		})
		if err := inner.Restore(cfg); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if !soon(func() bool { return slices.Equal(before, localTable(t, inner)) }) {
			t.Errorf("%s: the kernel serves\n%s,\nbefore it was\n%s", what, strings.Join(localTable(t, inner), "\n"), strings.Join(before, "\n"))
		}
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	n, err := Open(current)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if own, err := n.IsOwn(); err != nil || !own {
		t.Errorf("the own namespace is not the own one: %v", err)
	}
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	file := filepath.Join(dir, "file")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, file, dir, "/dev/null", "/proc/self/ns/mnt", "/proc/self/ns/user"} {
		if n, err := Open(path); !errors.Is(err, ErrNotNamespace) {
			t.Errorf("%s: %v %v", path, n, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// fn runs elsewhere, and its caller does not.
func TestDo(t *testing.T) {
	t.Parallel()
	n := testNamespace(t)
	ino, err := n.Inode()
	if err != nil {
		t.Fatal(err)
	}
	var inside, outside unix.Stat_t
	failed := errors.New("failed")
	if err := n.Do(func() error { return errors.Join(unix.Stat(current, &inside), failed) }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if err := unix.Stat(current, &outside); err != nil || inside.Ino != ino || outside.Ino == ino {
		t.Errorf("inside %d, expected %d; outside %d: %v", inside.Ino, ino, outside.Ino, err)
	}
	if own, err := n.IsOwn(); err != nil || own {
		t.Errorf("a new namespace is the own one: %v", err)
	}
}
