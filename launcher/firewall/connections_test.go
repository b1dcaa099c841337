// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/firewall/objects"
	"sandboxctl.dev/launcher/flows"
)

// connectionsOf counts the connections of addresses that the kernel of the host knows.
func (w *world) connectionsOf(addrs ...netip.Addr) (n int) {
	w.t.Helper()
	w.host.must(w.t, func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			all, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return err
			}
			for _, f := range all {
				for _, ip := range []net.IP{f.Forward.SrcIP, f.Reverse.SrcIP} {
					if a, ok := netip.AddrFromSlice(ip); ok && slices.Contains(addrs, a.Unmap()) {
						n++
						break
					}
				}
			}
		}
		return nil
	})
	return n
}

// datagrams sends one from each of n ports, and says how many are answered: those expected,
// which it waits for, and others that come soon after them.
func (w *world) datagrams(from *testNS, to string, n, expected int) int {
	w.t.Helper()
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for range n {
		c, err := dialFrom(from, "udp", to, answerTime)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, c)
		if _, err := c.Write([]byte("?")); err != nil {
			w.t.Fatal(err)
		}
	}
	until := func(patience time.Duration) {
		end := time.Now().Add(patience)
		for _, c := range all {
			_ = c.SetReadDeadline(end)
		}
	}
	if until(answerTime); expected == 0 {
		until(silenceTime)
	}
	var came atomic.Int64
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			if _, err := c.Read(make([]byte, 100)); err == nil && came.Add(1) == int64(expected) {
				until(silenceTime)
			}
		})
	}
	wg.Wait()
	return int(came.Load())
}

// syn is the first packet of a connection of TCP.
func syn(from, to netip.Addr, port uint16) []byte {
	body := slices.Concat(be16(int(port)), be16(81), []byte{0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0})
	sum := checksum(from.AsSlice(), to.AsSlice(), be16(unix.IPPROTO_TCP), be16(len(body)), body)
	copy(body[16:], be16(int(sum)))
	head := slices.Concat([]byte{0x45, 0}, be16(20+len(body)), be16(1), be16(0), []byte{64, unix.IPPROTO_TCP, 0, 0}, from.AsSlice(), to.AsSlice())
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return append(head, body...)
}

// drops has a namespace say nothing to TCP.
func drops(t testing.TB, n *testNS) {
	t.Helper()
	n.must(t, func() error {
		c, err := connection()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: "silent", Family: nftables.TableFamilyINet})
		chain := c.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: all(protocol(unix.IPPROTO_TCP), drop())})
		return c.Flush()
	})
}

// However a sandbox begins connections, the kernel keeps no more of them than it may have;
// others have theirs. What is refused is counted.
func TestConnections(t *testing.T) {
	t.Parallel()
	const most = 20
	w := newWorld(t)
	bounded := func(s *Sandbox) { s.Connections = most }
	evil, web := w.sandbox("evil", "front", bounded), w.sandbox("web", "front", bounded)
	w.edit("evil", func(s *Sandbox) { s.Ports = []Port{{Protocol: "udp", HostPort: 8000, To: 80, Count: 1}} })
	serve(t, evil.testNS, "evil", at("", 80))
	serve(t, web.testNS, "web", at("", 80))
	serve(t, w.outside, "outside", at("", 80))
	serve(t, w.host, "host", at("", 53))
	w.install()
	again := func() {
		t.Helper()
		if _, err := flows.Forget(w.host, evil.four, evil.six, web.four, web.six); err != nil {
			t.Fatal(err)
		}
		if err := w.table.Recount(false, flows.IDs); err != nil {
			t.Fatal(err)
		}
	}
	bound := func(what string, g *guest) {
		t.Helper()
		if n := w.connectionsOf(g.four, g.six); n == 0 || n > most {
			t.Errorf("%s: the kernel keeps %d connections, expected at most %d", what, n, most)
		}
	}
	outside := netip.MustParseAddr("1.1.1.1")
	for what, begin := range map[string]func() int{
		"datagrams":     func() int { return w.datagrams(evil.testNS, "1.1.1.1:80", 3*most, most) },
		"over IPv6":     func() int { return w.datagrams(evil.testNS, "[2606::1]:80", 3*most, most) },
		"to names":      func() int { return w.datagrams(evil.testNS, at(gateway4, 53), 3*most, most) },
		"from outside":  func() int { return w.datagrams(w.outside, at(lanHost4, 8000), 3*most, most) },
		"to a sibling":  func() int { return w.datagrams(evil.testNS, at(web.four, 80), 3*most, most) },
		"its own ports": func() int { return w.datagrams(evil.testNS, at(lanHost4, 8000), 3*most, most) },
	} {
		if n := begin(); n != most {
			t.Errorf("%s: %d of %d answered, expected %d", what, n, 3*most, most)
		}
		bound(what, evil)
		// The one that they lead to has all of its own.
		if n := w.datagrams(web.testNS, "1.1.1.2:80", most, most); n != most {
			t.Errorf("%s: %d of a sibling answered, expected %d", what, n, most)
		}
		again()
	}
	if all, err := w.table.Counters(); err != nil || all["evil"].DeniedPackets+all["evil"].BarredPackets < 6*2*most || all["evil"].BarredPackets < 2*most {
		t.Errorf("%+v, expected at least %d denied: %v", all["evil"], 6*2*most, err)
	}

	// Half-open ones.
	drops(t, w.outside)
	var packets [][]byte
	for i := range uint16(3 * most) {
		packets = append(packets, syn(evil.four, outside, 1000+i))
	}
	evil.send(t, packets...)
	if n := w.datagrams(evil.testNS, "1.1.1.1:80", 5, 0); n != 0 {
		t.Errorf("%d datagrams answered beside as many half-open connections as there may be", n)
	}
	bound("half-open", evil)
	// They count also when rules are installed again, and with another bound.
	w.install()
	w.intact(true)
	if n := w.datagrams(evil.testNS, "1.1.1.1:80", 5, 0); n != 0 {
		t.Errorf("%d datagrams answered after an install", n)
	}
	if err := w.table.Recount(true, flows.IDs); err != nil {
		t.Fatal(err)
	}
	if n := w.datagrams(evil.testNS, "1.1.1.1:80", 5, 0); n != 0 {
		t.Errorf("%d datagrams answered after connections were counted", n)
	}
	for _, anew := range []bool{false, true} {
		if anew {
			w.table.print = fingerprint{} // nobody knows what the table is like
		}
		for _, next := range []struct{ bound, room int }{{most - 1, 0}, {most, 1}, {most + 1, 1}, {most, 0}} {
			w.edit("evil", func(s *Sandbox) { s.Connections = next.bound })
			w.install()
			if n := w.datagrams(evil.testNS, "1.1.1.1:80", 5, next.room); n != next.room {
				t.Errorf("%d datagrams answered with a bound of %d, expected %d; anew: %t", n, next.bound, next.room, anew)
			}
		}
	}
	w.edit("evil", func(s *Sandbox) { s.Connections = 2 * most })
	w.install()
	if n := w.datagrams(evil.testNS, "1.1.1.1:80", 3*most, most); n < most || n > most+2 {
		t.Errorf("%d datagrams answered with a larger bound, expected about %d", n, most)
	}
}

// Connections that are there go on when no new one may begin, and their ends make room.
func TestConnectionsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) { s.Connections = 2 })
	serve(t, w.outside, "outside", at("", 80))
	// Elements that are not renewed end soon.
	w.rules.Kept = Kept{Datagrams: time.Second, TCP: time.Second, States: objects.Times{expr.CtStateTCPCLOSE: time.Second}}
	w.install()
	var open []net.Conn
	for range 2 {
		c, err := dialFrom(web.testNS, "tcp", "1.1.1.1:80", answerTime)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	// They are established, and kept as such.
	time.Sleep(3 * time.Second)
	answers(t, web.testNS, "tcp", "1.1.1.1:80", "")
	for _, c := range open {
		if got, err := say(c, answerTime); err != nil || got != "outside "+lanHost4 {
			t.Errorf("%q %v", got, err)
		}
	}
	// A reset ends one, which the kernel keeps for a second here.
	_ = open[0].(*net.TCPConn).SetLinger(0)
	open[0].Close()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if got, err := ask(web.testNS, "tcp", "1.1.1.1:80", answerTime); err == nil {
			t.Log(got)
			break
		}
		if time.Now().After(until) {
			t.Fatal("no room after the end of a connection")
		}
	}
}

// seconds are how long the kernel still keeps the connections of TCP of an address.
func (w *world) seconds(of netip.Addr) (out []int) {
	w.t.Helper()
	w.host.must(w.t, func() error {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range all {
			if f.Forward.Protocol == unix.IPPROTO_TCP && f.Reverse.SrcIP.Equal(of.AsSlice()) {
				out = append(out, int(f.TimeOut))
			}
		}
		return err
	})
	return out
}

// A server may have many times as many connections one after the other as it may have at a time:
// the kernel forgets closed ones soon, and no other ones. At no time does it keep more.
func TestConnectionsClosed(t *testing.T) {
	t.Parallel()
	const most = 30
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Connections, s.Ports = most, []Port{{Protocol: "tcp", HostPort: 8000, To: 80, Count: 1}}
	})
	serve(t, web.testNS, "web", at("", 80))
	w.host.must(t, func() error {
		if err := sysctl(map[string]string{"netfilter/nf_conntrack_tcp_timeout_established": "7777"}); err != nil {
			return err
		}
		kernel := flows.Look()
		w.rules.Kept = Kept{Datagrams: kernel.Datagrams, TCP: kernel.TCP, Other: kernel.Other, Established: kernel.Established, States: kernel.States}
		return nil
	})
	w.install()
	open, err := dialFrom(w.outside, "tcp", at(lanHost4, 8000), answerTime)
	if err != nil {
		t.Fatal(err)
	}
	_, err = say(open, answerTime)
	kept := w.seconds(web.four)
	if open.Close(); err != nil {
		t.Fatal(err)
	}
	if len(kept) != 1 || kept[0] < 7700 || kept[0] > 7777 {
		t.Fatalf("an open connection is kept for %d s, expected what the host says", kept)
	}
	began := time.Now()
	for served := 0; served < 2*most; {
		got, err := ask(w.outside, "tcp", at(lanHost4, 8000), answerTime)
		if n := len(w.seconds(web.four)); n > most {
			t.Fatalf("the kernel keeps %d connections, expected at most %d", n, most)
		}
		if err == nil && got == "web "+lanOutside4 {
			served++
			continue
		}
		if time.Since(began) > 90*time.Second {
			t.Fatalf("%d of %d connections served in %s: %q %v", served, 2*most, time.Since(began), got, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	if spent := time.Since(began); spent < objects.Closed {
		t.Errorf("%d connections within %s: this test sees no bound", 2*most, spent)
	}
	// The end of the last one may be still on its way.
	for until := time.Now().Add(answerTime); ; time.Sleep(50 * time.Millisecond) {
		kept := w.seconds(web.four)
		if n := len(kept); n > 0 && slices.Max(kept) <= int(objects.Closed/time.Second) {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("closed connections are kept for %d s, expected at most %s", kept, objects.Closed)
		}
	}
}

// Timeouts that somebody has made others of are put right with the rules.
func TestConnectionsTimeouts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sandbox("web", "front", func(s *Sandbox) { s.Connections = 20 })
	has := func(want objects.Timeouts) {
		t.Helper()
		var all map[string]bool
		w.host.must(t, func() (err error) {
			_, all, err = objects.Read(w.table.Name())
			return err
		})
		if len(all) != 1 || !all[want.Name] {
			t.Errorf("timeouts %v, expected %s", all, want.Name)
		}
		w.intact(true)
	}
	usual := objects.TimeoutsOf(objects.Times{}, objects.Kind)
	w.install()
	has(usual)
	// Of a host with others: by a step.
	w.rules.Kept.States = objects.Times{expr.CtStateTCPESTABLISHED: time.Hour}
	looks := w.table.looks
	w.install()
	if has(objects.TimeoutsOf(w.rules.Kept.States, objects.Kind)); w.table.looks != looks {
		t.Error("the table was read for another policy")
	}
	w.rules.Kept.States = objects.Times{}
	w.install()
	wrong := objects.TimeoutsOf(objects.Times{expr.CtStateTCPESTABLISHED: time.Second}, objects.Kind)
	wrong.Name = usual.Name
	w.nft(func(c *nftables.Conn) {
		c.FlushTable(w.table.table)
		objects.RemoveTimeouts(c, w.table.table, usual.Name)
		wrong.Add(c, w.table.table)
	})
	w.intact(false)
	w.install()
	has(usual)
	// The next daemon takes them as they are.
	next, err := Open(w.host, w.table.Name())
	if err != nil {
		t.Fatal(err)
	}
	w.table = next
	w.install()
	has(usual)
	// With the last sandbox that is counted they end.
	w.edit("web", func(s *Sandbox) { s.Connections = 0 })
	w.install()
	w.host.must(t, func() error {
		if _, all, err := objects.Read(w.table.Name()); err != nil || len(all) != 0 {
			t.Errorf("timeouts %v of nobody: %v", all, err)
		}
		return nil
	})
}

// A kernel without timeouts of connections has all the rest.
func TestConnectionsLacking(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) { s.Connections = 2 })
	serve(t, w.outside, "outside", at("", 80))
	w.table.timeouts = 99 // no kernel has such objects
	w.install()
	if w.table.timeouts != 0 {
		t.Error("it is not known that they are lacking")
	}
	w.intact(true)
	for i, who := range []string{"outside", "outside", ""} {
		if answers(t, web.testNS, "tcp", "1.1.1.1:80", who); t.Failed() {
			t.Fatalf("connection %d", i)
		}
	}
	w.install()
	w.intact(true)
}

// Somebody removes the table between a look at it and the next one: what is gone has no elements,
// and that is no error.
func TestElementsOfRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sandbox("web", "front", func(s *Sandbox) { s.Connections = 20 })
	w.install()
	there := openSet(&Sandbox{Name: "web", Connections: 20})
	look := func(what string) {
		t.Helper()
		w.host.must(t, func() error {
			if w.table.removed(there) != (what != "there") {
				t.Errorf("%s: whether %s is removed is not seen", what, there)
			}
			_, err := w.table.elementsOf(there, nftables.TypeInteger)
			return err
		})
		if err := w.table.Recount(false, flows.IDs); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	look("there")
	w.host.must(t, func() error {
		c, err := connection()
		if err != nil {
			return err
		}
		c.DelTable(w.table.table)
		return c.Flush()
	})
	look("removed")
	w.host.must(t, func() error {
		if _, err := w.table.counted(&set{Set: nftables.Set{Name: openSet(&Sandbox{Name: "web", Connections: 21}), Size: 21, KeyType: nftables.TypeInteger}}, map[string]bool{there: true}); err != nil {
			t.Errorf("a set that was removed meanwhile: %v", err)
		}
		return nil
	})
}
