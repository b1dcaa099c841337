// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/netns"
)

// namespace makes a namespace, of a host or of a sandbox, that is gone when the test has
// ended.
func namespace(t *testing.T) *netns.Namespace {
	t.Helper()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// on calls fn in the namespace that stands for the host: the test must not change its own.
func on(t *testing.T, n *netns.Namespace, fn func() error) {
	t.Helper()
	if err := n.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func attachment(uid string, i int) *Attachment {
	return &Attachment{
		Sandbox: "web", Link: Name(uid, i), Guest: "eth0", MTU: 1500, Default: true,
		Address4: netip.MustParseAddr("10.210.0.9"), Gateway4: netip.MustParseAddr("10.210.0.1"),
		Address6: netip.MustParseAddr("fd10::9"), Gateway6: netip.MustParseAddr("fd10::1"),
		Routes: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")},
	}
}

func loopback(t *testing.T, n *netns.Namespace) {
	t.Helper()
	on(t, n, func() error {
		h, err := open()
		if err != nil {
			return err
		}
		defer h.Close()
		l, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(l)
	})
}

// reached sends a line from one namespace to an address in another, and says who sent it.
func reached(t *testing.T, from, to *netns.Namespace, at netip.Addr) (netip.Addr, error) {
	t.Helper()
	var l net.Listener
	on(t, to, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(at, 0).String())
		return err
	})
	defer l.Close()
	peer := make(chan netip.Addr, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(peer)
			return
		}
		_, _ = io.WriteString(c, "x")
		_ = c.Close()
		peer <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	}()
	err := from.Do(func() error {
		fd, err := dial(netip.AddrPortFrom(at, uint16(l.Addr().(*net.TCPAddr).Port)))
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return <-peer, nil
}

// dial connects on the thread it is called on: net's dialer uses others.
func dial(to netip.AddrPort) (int, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	timeout := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if err := unix.Connect(fd, sa); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// settle has the kernel be the network stack of a sandbox: with what Config says of its link.
func settle(ns *netns.Namespace, a *Attachment) error {
	return inside(ns, func(h *netlink.Handle) error {
		l, err := h.LinkByName(a.Guest)
		if err != nil {
			return fmt.Errorf("look at %s of the sandbox: %w", a.Guest, err)
		}
		if a.Address6.IsValid() {
			if err := errors.Join(setSysctl("ipv6", a.Guest, "addr_gen_mode", noAddress), setSysctl("ipv6", a.Guest, "disable_ipv6", "0")); err != nil {
				return err
			}
		}
		for _, f := range a.families() {
			if err := h.AddrReplace(l, &netlink.Addr{IPNet: single(f.sandbox), Flags: unix.IFA_F_NODAD}); err != nil {
				return fmt.Errorf("give the sandbox address %s: %w", f.sandbox, err)
			}
			neigh := &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: f.number, State: netlink.NUD_PERMANENT, IP: f.gateway.AsSlice(), HardwareAddr: a.hostAddr()}
			if err := h.NeighSet(neigh); err != nil {
				return fmt.Errorf("set neighbor %s of the sandbox: %w", f.gateway, err)
			}
			to := a.Routes
			if a.Default {
				to = append(slices.Clip(to), f.everything())
			}
			for _, p := range to {
				if p.Addr().Is4() != f.sandbox.Is4() {
					continue
				}
				if err := h.RouteReplace(&netlink.Route{
					LinkIndex: l.Attrs().Index, Family: f.number, Dst: ipNet(p), Gw: f.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
				}); err != nil {
					return fmt.Errorf("route %s of the sandbox: %w", p, err)
				}
			}
		}
		return nil
	})
}

// interfaces says which interfaces there are in a namespace, but loopback.
func interfaces(t *testing.T, ns *netns.Namespace) (out map[string]int) {
	t.Helper()
	if err := inside(ns, func(h *netlink.Handle) error {
		list, err := netns.List(h.LinkList)
		out = map[string]int{}
		for _, l := range list {
			if l.Attrs().Flags&net.FlagLoopback == 0 {
				out[l.Attrs().Name] = l.Attrs().Index
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// A sandbox and its host reach each other, two sandboxes reach each other through the
// host, and each is who it says it is.
func TestAttach(t *testing.T) {
	t.Parallel()
	host, web, db := namespace(t), namespace(t), namespace(t)
	a := attachment("uid of web", 0)
	b := attachment("uid of db", 0)
	b.Sandbox, b.Address4, b.Address6 = "db", netip.MustParseAddr("10.210.0.10"), netip.MustParseAddr("fd10::a")
	loopback(t, host)
	on(t, host, func() error {
		changes, err := Forwarding(true, true)
		return errors.Join(err, Apply(changes), Attach(web, a), Attach(db, b))
	})
	// The kernel has nothing of the addresses, and would not answer for them.
	if has := scrape(t, web); has.HasInterfaces() || len(interfaces(t, web)) != 1 {
		t.Errorf("%+v, %v", has, interfaces(t, web))
	}
	on(t, host, func() error { return errors.Join(settle(web, a), settle(db, b)) })
	for _, c := range []struct {
		what     string
		from, to *netns.Namespace
		at, as   netip.Addr
	}{
		{"host to sandbox", host, web, a.Address4, a.Gateway4},
		{"host to sandbox, IPv6", host, web, a.Address6, a.Gateway6},
		{"sandbox to host", web, host, a.Gateway4, a.Address4},
		{"sandbox to host, IPv6", web, host, a.Gateway6, a.Address6},
		{"sandbox to sandbox", web, db, b.Address4, a.Address4},
		{"sandbox to sandbox, IPv6", db, web, a.Address6, b.Address6},
	} {
		if as, err := reached(t, c.from, c.to, c.at); err != nil || as != c.as {
			t.Errorf("%s: from %s, expected %s: %v", c.what, as, c.as, err)
		}
	}
	on(t, host, func() error {
		for _, x := range []*Attachment{a, b} {
			if missing, err := Missing(x); err != nil || missing != nil {
				t.Errorf("%s: %v %v", x.Sandbox, missing, err)
			}
		}
		have, err := Look()
		if err != nil {
			return err
		}
		if len(have.Links) != 2 || len(have.Routes) != 0 {
			t.Errorf("%+v", have)
		}
		for _, l := range have.Links {
			if !l.Up || len(l.Addresses) != 2 || l.Sandbox != "web" && l.Sandbox != "db" {
				t.Errorf("%+v", l)
			}
		}
		return nil
	})
	// What its network stack is told is what a kernel in its place has.
	told, has := Config([]*Attachment{a}), scrape(t, web)
	if len(told.Links) != 1 || len(has.Links) != 1 {
		t.Fatalf("told %+v, has %+v", told, has)
	}
	one, other := &told.Links[0], &has.Links[0]
	for _, r := range other.Routes {
		// Of its own address, which a sandbox finds without.
		if i := slices.IndexFunc(one.Routes, func(o netns.Route) bool { return o.Destination == r.Destination }); r.Gateway.IsValid() && (i < 0 || one.Routes[i].Gateway != r.Gateway) {
			t.Errorf("it is not told of %+v, but of %+v", r, one.Routes)
		}
	}
	if len(one.Routes) != 3 {
		t.Errorf("routes %+v", one.Routes)
	}
	one.Routes, one.Index = other.Routes, other.Index
	byAddress := func(x, y netns.Neighbor) int { return x.Address.Compare(y.Address) }
	slices.SortFunc(one.Neighbors, byAddress)
	slices.SortFunc(other.Neighbors, byAddress)
	if !reflect.DeepEqual(one, other) {
		t.Errorf("told %+v, has %+v", one, other)
	}
	args, err := Config([]*Attachment{a}).Args()
	if err != nil || args.Defaultv4Gateway.Route.Gateway.String() != "10.210.0.1" || args.Defaultv6Gateway.Route.Gateway.String() != "fd10::1" {
		t.Errorf("%+v %v", args, err)
	}
}

// Without IPv6 neither end speaks it, and with it the host's end believes no router and no
// redirect. What somebody has changed of that is found and put right.
func TestSettings(t *testing.T) {
	t.Parallel()
	for _, six := range []bool{false, true} {
		host, web := namespace(t), namespace(t)
		a := attachment("uid", 0)
		want := map[string]string{"ipv6/accept_ra": "0", "ipv6/accept_redirects": "0", "ipv6/autoconf": "0", "ipv6/addr_gen_mode": "1", "ipv6/disable_ipv6": "0"}
		if !six {
			a.Address6, a.Gateway6 = netip.Addr{}, netip.Addr{}
			want = map[string]string{"ipv6/disable_ipv6": "1"}
		}
		want["ipv4/accept_redirects"], want["ipv4/send_redirects"] = "0", "0"
		on(t, host, func() error {
			if err := Attach(web, a); err != nil {
				return err
			}
			for path, v := range want {
				family, name, _ := strings.Cut(path, "/")
				at := filepath.Join(root, family, "conf", a.Link, name)
				if got, err := read(at); err != nil || got != v {
					t.Errorf("IPv6 %t: %s is %s, expected %s: %v", six, at, got, v, err)
				}
				if path == "ipv6/addr_gen_mode" || path == "ipv6/disable_ipv6" && six {
					continue // the kernel gives and takes away addresses at once
				}
				if err := write(at, map[string]string{"0": "1", "1": "0"}[v]); err != nil {
					return err
				}
				if missing, err := Missing(a); err != nil || len(missing) != 1 || !strings.Contains(missing[0], at) {
					t.Errorf("IPv6 %t: %s is changed: missing %q, %v", six, at, missing, err)
				}
				if err := Restore(a); err != nil {
					return err
				}
				if missing, err := Missing(a); err != nil || missing != nil {
					t.Errorf("IPv6 %t: %s is restored: missing %q, %v", six, at, missing, err)
				}
			}
			return linkLocal(t, a.Link, six)
		})
		on(t, web, func() error { return linkLocal(t, a.Guest, six) })
	}
}

// linkLocal expects no address of the kernel's own choice on an interface.
func linkLocal(t *testing.T, name string, six bool) error {
	t.Helper()
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	addrs, err := h.AddrList(l, netlink.FAMILY_V6)
	if n := len(addrs); n > 1 || n == 1 && !six {
		t.Errorf("IPv6 %t: %s has %v", six, name, addrs)
	}
	return err
}

// To attach again changes nothing, not even the interface; a link of a namespace that is
// another one by now is replaced.
func TestAttachAgain(t *testing.T) {
	t.Parallel()
	host, first, second := namespace(t), namespace(t), namespace(t)
	a := attachment("uid", 0)
	index := func() (i int) {
		on(t, host, func() error {
			h, err := open()
			if err != nil {
				return err
			}
			defer h.Close()
			l, err := h.LinkByName(a.Link)
			if err == nil {
				i = l.Attrs().Index
			}
			return err
		})
		return i
	}
	on(t, host, func() error { return Attach(first, a) })
	was, before := index(), interfaces(t, first)
	on(t, host, func() error { return Attach(first, a) })
	if again := index(); again != was || !reflect.DeepEqual(before, interfaces(t, first)) || before[a.Guest] == 0 {
		t.Errorf("link %d is %d: %+v, then %+v", was, again, before, interfaces(t, first))
	}
	on(t, host, func() error { return Attach(second, a) })
	if index() == was || len(interfaces(t, first)) > 0 || len(interfaces(t, second)) != 1 {
		t.Errorf("still attached: %+v; %+v", interfaces(t, first), interfaces(t, second))
	}
	on(t, host, func() error { return errors.Join(Remove(a.Link), Remove(a.Link)) })
	if len(interfaces(t, second)) > 0 {
		t.Error("removed, and still there")
	}
}

func scrape(t *testing.T, n *netns.Namespace) *netns.Config {
	t.Helper()
	c, err := n.Scrape()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An attachment that can't be made leaves nothing.
func TestAttachUndone(t *testing.T) {
	t.Parallel()
	host, sandbox := namespace(t), namespace(t)
	for what, spoil := range map[string]func(*Attachment){
		"an MTU too small for IPv6":      func(a *Attachment) { a.MTU = 600 },
		"a route over another interface": func(a *Attachment) { a.Gateway6 = netip.MustParseAddr("ff02::1") },
		"a name that is too long":        func(a *Attachment) { a.Guest = strings.Repeat("x", 16) },
	} {
		a := attachment("uid "+what, 0)
		spoil(a)
		on(t, host, func() error {
			if err := Attach(sandbox, a); err == nil {
				t.Errorf("%s: attached", what)
			} else {
				t.Logf("%s: %v", what, err)
			}
			have, err := Look()
			if err == nil && len(have.Links) > 0 {
				t.Errorf("%s: left %+v", what, have.Links)
			}
			return err
		})
		if len(interfaces(t, sandbox)) > 0 {
			t.Errorf("%s: left an interface in the sandbox", what)
		}
	}
}

// What somebody removes of the host's end is seen and put back; a link that is gone is an
// error of its own.
func TestRestore(t *testing.T) {
	t.Parallel()
	host, sandbox := namespace(t), namespace(t)
	a := attachment("uid", 0)
	loopback(t, host)
	on(t, host, func() error { return errors.Join(Attach(sandbox, a), settle(sandbox, a)) })
	for what, damage := range map[string]func(*netlink.Handle, netlink.Link) error{
		"down": func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetDown(l) },
		"addresses": func(h *netlink.Handle, l netlink.Link) error {
			return errors.Join(h.AddrDel(l, &netlink.Addr{IPNet: single(a.Gateway4)}), h.AddrDel(l, &netlink.Addr{IPNet: single(a.Gateway6)}))
		},
		"route": func(h *netlink.Handle, l netlink.Link) error {
			return h.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: single(a.Address4), Scope: netlink.SCOPE_LINK})
		},
		"neighbor": func(h *netlink.Handle, l netlink.Link) error {
			return h.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, Family: netlink.FAMILY_V4, IP: a.Address4.AsSlice()})
		},
		"another neighbor": func(h *netlink.Handle, l netlink.Link) error {
			return h.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT, IP: a.Address4.AsSlice(), HardwareAddr: a.hostAddr()})
		},
	} {
		on(t, host, func() error {
			h, err := open()
			if err != nil {
				return err
			}
			defer h.Close()
			l, err := h.LinkByName(a.Link)
			if err != nil {
				return err
			}
			if err := damage(h, l); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if missing, err := Missing(a); err != nil || len(missing) == 0 {
				t.Errorf("%s: nothing is missing, %v", what, err)
			}
			if err := Restore(a); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if missing, err := Missing(a); err != nil || len(missing) > 0 {
				t.Errorf("%s: still missing %v, %v", what, missing, err)
			}
			return nil
		})
		if as, err := reached(t, host, sandbox, a.Address4); err != nil || as != a.Gateway4 {
			t.Errorf("%s: from %s, %v", what, as, err)
		}
	}
	on(t, host, func() error {
		if err := Remove(a.Link); err != nil {
			return err
		}
		if err := Restore(a); !errors.Is(err, ErrGone) {
			t.Errorf("%v", err)
		}
		if missing, err := Missing(a); err != nil || len(missing) != 1 {
			t.Errorf("%v %v", missing, err)
		}
		return nil
	})
}

// The pair is gone with the namespace of the sandbox.
func TestGoneWithNamespace(t *testing.T) {
	t.Parallel()
	host, sandbox := namespace(t), namespace(t)
	a := attachment("uid", 0)
	on(t, host, func() error { return Attach(sandbox, a) })
	sandbox.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var have *Host
		on(t, host, func() (err error) { have, err = Look(); return err })
		if len(have.Links) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %+v", have.Links)
		}
	}
}

// The address of a sandbox that has just ended is free when AwaitEnding returns, although the
// kernel removes its link later. That of one that goes on is not waited for without end.
func TestAwaitEnding(t *testing.T) {
	t.Parallel()
	host := namespace(t)
	for i := range 20 {
		sandbox := namespace(t)
		a := attachment("ended"+strconv.Itoa(i), 0)
		a.Address6, a.Gateway6 = netip.Addr{}, netip.Addr{}
		on(t, host, func() error { return Attach(sandbox, a) })
		sandbox.Close()
		on(t, host, func() error { return AwaitEnding("next", []netip.Addr{a.Address4}) })
		var have *Host
		on(t, host, func() (err error) { have, err = Look(); return err })
		if len(have.Links) > 0 {
			t.Fatalf("still %+v", have.Links)
		}
	}
	a := attachment("goes on", 0)
	on(t, host, func() error { return Attach(namespace(t), a) })
	for _, uid := range []string{"next", "goes on"} {
		on(t, host, func() error { return AwaitEnding(uid, []netip.Addr{a.Address4, a.Address6}) })
	}
	on(t, host, func() error { return AwaitEnding("next", nil) })
}

// Routes and addresses of other interfaces are the host's, in every table; those of links
// of sandboxes are not, and a default route is nobody's.
func TestLook(t *testing.T) {
	t.Parallel()
	host, sandbox := namespace(t), namespace(t)
	loopback(t, host)
	a := attachment("uid", 3)
	on(t, host, func() error {
		h, err := open()
		if err != nil {
			return err
		}
		defer h.Close()
		d := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "far"}
		addr, err := netlink.ParseAddr("192.0.2.7/24")
		if err != nil {
			return err
		}
		vpn := ipNet(netip.MustParsePrefix("172.20.0.0/16"))
		if err := errors.Join(h.LinkAdd(d), h.LinkSetUp(d), h.AddrAdd(d, addr),
			h.RouteAdd(&netlink.Route{LinkIndex: d.Index, Dst: vpn, Table: 77}),
			h.RouteAdd(&netlink.Route{LinkIndex: d.Index, Gw: net.ParseIP("192.0.2.1")}),
			Attach(sandbox, a)); err != nil {
			return err
		}
		have, err := Look()
		if err != nil {
			return err
		}
		for _, p := range []string{"192.0.2.0/24", "192.0.2.7/32", "172.20.0.0/16"} {
			if !slices.Contains(have.Routes, netip.MustParsePrefix(p)) {
				t.Errorf("%s is not among %v", p, have.Routes)
			}
		}
		for _, p := range have.Routes {
			if p.Bits() == 0 || p.Overlaps(netip.MustParsePrefix("10.210.0.0/16")) {
				t.Errorf("%s is among %v", p, have.Routes)
			}
		}
		if len(have.Links) != 1 || have.Links[0].Name != a.Link || !slices.Equal(have.Links[0].Addresses, []netip.Addr{a.Address4, a.Address6}) {
			t.Errorf("%+v", have.Links)
		}
		return nil
	})
}

// A host that takes its routes from a router keeps them when it begins to forward.
func TestForwarding(t *testing.T) {
	t.Parallel()
	host := namespace(t)
	on(t, host, func() error {
		h, err := open()
		if err != nil {
			return err
		}
		defer h.Close()
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "far"}); err != nil {
			return err
		}
		ra, own := filepath.Join(root, "ipv6/conf/lan/accept_ra"), filepath.Join(root, "ipv6/conf/default/accept_ra")
		// Of the namespace that the test has made.
		if err := errors.Join(write(ra, "1"), write(own, "1"), write(filepath.Join(root, "ipv6/conf/all/forwarding"), "0"), write(filepath.Join(root, "ipv4/ip_forward"), "0")); err != nil {
			return err
		}
		changes, err := Forwarding(true, true)
		if err != nil {
			return err
		}
		if !slices.Contains(changes, Change{ra, "1", "2"}) || changes[len(changes)-1].Path != filepath.Join(root, "ipv6/conf/all/forwarding") {
			t.Errorf("%+v", changes)
		}
		if err := Apply(changes); err != nil {
			return err
		}
		if v, err := read(ra); err != nil || v != "2" {
			t.Errorf("accept_ra %s, %v", v, err)
		}
		if again, err := Forwarding(true, true); err != nil || len(again) > 0 {
			t.Errorf("again %+v, %v", again, err)
		}
		return nil
	})
}

func TestName(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, uid := range []string{"a", "b", strings.Repeat("f", 32)} {
		for i := range MaxLinks {
			n := Name(uid, i)
			if seen[n] || !IsOurs(n) || len(n) > unix.IFNAMSIZ-1 {
				t.Errorf("%s of %s", n, uid)
			}
			seen[n] = true
		}
	}
	for _, other := range []string{"sb0", "eth0", "sandbox0", "sb01234567890x", "sb0123456789ab"} {
		if IsOurs(other) {
			t.Errorf("%s is taken for ours", other)
		}
	}
	a, b := attachment("a", 0), attachment("a", 1)
	if a.hostAddr().String() == a.guestAddr().String() || a.hostAddr().String() == b.hostAddr().String() || a.hostAddr()[0]&3 != 2 {
		t.Errorf("%s %s %s", a.hostAddr(), a.guestAddr(), b.hostAddr())
	}
}
