// SPDX-License-Identifier: Apache-2.0

package loopback6

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sandbox answers as one does; of TCP each connection is handled by serve.
func sandbox(t *testing.T, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// free is a port of [::1] that nobody has.
func free(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func started(t *testing.T, ports map[Port]netip.AddrPort) *Forwarder {
	t.Helper()
	f := New()
	t.Cleanup(func() { f.Close() })
	if refused := f.Set(t.Context(), ports); len(refused) > 0 {
		t.Fatal(refused)
	}
	return f
}

func dial(t *testing.T, network string, port uint16) net.Conn {
	t.Helper()
	c, err := net.Dial(network, fmt.Sprintf("[::1]:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// A client that has said all it has to say is answered, and each side learns of the end of
// the other one.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	port := free(t)
	to := sandbox(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		_, _ = c.Write(bytes.ToUpper(b))
	})
	started(t, map[Port]netip.AddrPort{{"tcp", port}: to})
	c := dial(t, "tcp", port).(*net.TCPConn)
	text := strings.Repeat("half a close ", 100_000)
	go func() {
		_, _ = io.WriteString(c, text)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || string(got) != strings.ToUpper(text) {
		t.Errorf("%d bytes of %d: %v", len(got), len(text), err)
	}
}

// A sandbox that refuses, or breaks off, is seen as that: not as an end without a fault.
func TestBroken(t *testing.T) {
	t.Parallel()
	port, refused := free(t), free(t)
	to := sandbox(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})
	nobody, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := nobody.Addr().(*net.TCPAddr).AddrPort()
	nobody.Close()
	started(t, map[Port]netip.AddrPort{{"tcp", port}: to, {"tcp", refused}: gone})
	for _, p := range []uint16{port, refused} {
		c, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", p))
		if err == nil {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = c.Write([]byte("?"))
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, expected a reset", err)
		}
	}
}

// Ports that stay keep their connections; those that go, or have another destination, lose
// them; a port that somebody else has is told, and taken when it is free.
func TestSet(t *testing.T) {
	t.Parallel()
	echo := func(text string) netip.AddrPort {
		return sandbox(t, func(c *net.TCPConn) {
			for {
				if _, err := c.Read(make([]byte, 8)); err != nil {
					return
				}
				_, _ = io.WriteString(c, text)
			}
		})
	}
	ask := func(c net.Conn) (string, error) {
		_, _ = c.Write([]byte("?"))
		b := make([]byte, 8)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	stays, goes, moves, taken := free(t), free(t), free(t), free(t)
	one, two := echo("one"), echo("two")
	f := started(t, map[Port]netip.AddrPort{{"tcp", stays}: one, {"tcp", goes}: one, {"tcp", moves}: one})
	conns := map[uint16]net.Conn{}
	for _, p := range []uint16{stays, goes, moves} {
		conns[p] = dial(t, "tcp", p)
		if got, err := ask(conns[p]); got != "one" {
			t.Fatal(got, err)
		}
	}
	other, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", taken))
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[Port]netip.AddrPort{{"tcp", stays}: one, {"tcp", moves}: two, {"tcp", taken}: two, {"sctp", 1}: two}
	refused := f.Set(t.Context(), wanted)
	if err := refused[Port{"tcp", taken}]; !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprintf("[::1]:%d (tcp)", taken)) {
		t.Errorf("%v", err)
	}
	if err := refused[Port{"sctp", 1}]; len(refused) != 2 || !strings.Contains(fmt.Sprint(err), `protocol "sctp"`) {
		t.Errorf("%v", refused)
	}
	if got, err := ask(conns[stays]); got != "one" {
		t.Errorf("a connection of a port that stays: %q %v", got, err)
	}
	for _, p := range []uint16{goes, moves} {
		if got, err := ask(conns[p]); err == nil {
			t.Errorf("a connection of a port that went says %q", got)
		}
	}
	if got, err := ask(dial(t, "tcp", moves)); got != "two" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", goes)); err == nil {
		t.Error("a port that went answers")
	}
	other.Close()
	delete(wanted, Port{"sctp", 1})
	if refused := f.Set(t.Context(), wanted); len(refused) > 0 {
		t.Fatal(refused)
	}
	if got, err := ask(dial(t, "tcp", taken)); got != "two" {
		t.Errorf("%q %v", got, err)
	}
	// Close waits for nobody's connection.
	done := make(chan struct{})
	go func() { f.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for a connection")
	}
	if _, err := ask(conns[stays]); err == nil {
		t.Error("a connection goes on after Close")
	}
}

// One port has no more connections than its bound; the next ones wait, and are served when
// one ends.
func TestBound(t *testing.T) {
	t.Parallel()
	port := free(t)
	to := sandbox(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	started(t, map[Port]netip.AddrPort{{"tcp", port}: to})
	ask := func(c net.Conn, within time.Duration) error {
		_ = c.SetDeadline(time.Now().Add(within))
		_, _ = c.Write([]byte("?"))
		_, err := c.Read(make([]byte, 1))
		return err
	}
	var all []net.Conn
	for range mostConnections {
		c := dial(t, "tcp", port)
		if err := ask(c, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	next := dial(t, "tcp", port)
	if err := ask(next, 300*time.Millisecond); err == nil {
		t.Error("more connections than the bound")
	}
	all[0].Close()
	if err := ask(next, 20*time.Second); err != nil {
		t.Errorf("a place is free, and the next one is not served: %v", err)
	}
}

// Datagrams find their way there and back, for several clients, of whatever size; a
// client too many is not served, and costs nothing.
func TestDatagrams(t *testing.T) {
	t.Parallel()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		b := make([]byte, largest)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(bytes.ToUpper(b[:n]), from)
		}
	}()
	port := free(t)
	f := started(t, map[Port]netip.AddrPort{{"udp", port}: server.LocalAddr().(*net.UDPAddr).AddrPort()})
	ask := func(c net.Conn, text string, within time.Duration) error {
		_ = c.SetDeadline(time.Now().Add(within))
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		b := make([]byte, largest)
		n, err := c.Read(b)
		if err == nil && string(b[:n]) != strings.ToUpper(text) {
			err = fmt.Errorf("%d bytes of another datagram", n)
		}
		return err
	}
	var clients []net.Conn
	for i := range mostConnections {
		c := dial(t, "udp", port)
		clients = append(clients, c)
		if err := ask(c, fmt.Sprintf("client %d", i), 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range clients[:20] {
		if err := ask(c, strings.Repeat(fmt.Sprint("x", i), 10000), 20*time.Second); err != nil {
			t.Error(err)
		}
	}
	if err := ask(dial(t, "udp", port), "one too many", 300*time.Millisecond); err == nil {
		t.Error("more clients than the bound")
	}
	done := make(chan struct{})
	go func() { f.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for a client")
	}
}

// A sandbox with many ports has no more places than its share; others have few in any case,
// and what is given back can be taken again.
func TestPlaces(t *testing.T) {
	t.Parallel()
	var p places
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	take := func(i, n int) (taken int) {
		for range n {
			if p.take(at(i)) {
				taken++
			}
		}
		return taken
	}
	for i := range mostAll / mostEach {
		if n := take(i, 2*mostEach); n != mostEach {
			t.Errorf("sandbox %d has %d places, expected %d", i, n, mostEach)
		}
	}
	if n := take(9, 2*fewEach); n != fewEach {
		t.Errorf("a sandbox that has none gets %d places of %d", n, fewEach)
	}
	for range mostEach {
		p.give(at(0))
	}
	if n := take(9, mostEach); n != mostEach-fewEach {
		t.Errorf("%d places of those that were given back", n)
	}
	for i, n := range map[int]int{1: mostEach, 2: mostEach, 3: mostEach, 9: mostEach} {
		for range n {
			p.give(at(i))
		}
	}
	if p.all != 0 || len(p.of) != 0 {
		t.Errorf("%d places of %v are left", p.all, p.of)
	}
}

// What can't be had by its sandbox is refused, and its place is given back at the end.
func TestNoPlace(t *testing.T) {
	t.Parallel()
	port, datagrams := free(t), free(t)
	to := sandbox(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	f := New()
	t.Cleanup(func() { f.Close() })
	for f.places.take(to.Addr()) {
	}
	if refused := f.Set(t.Context(), map[Port]netip.AddrPort{{"tcp", port}: to, {"udp", datagrams}: to}); len(refused) > 0 {
		t.Fatal(refused)
	}
	_, _ = dial(t, "udp", datagrams).Write([]byte("?"))
	c, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", port))
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write([]byte("?"))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, expected a reset", err)
	}
	f.places.give(to.Addr())
	c = dial(t, "tcp", port)
	_, _ = c.Write([]byte("?"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	c.Close()
	for until := time.Now().Add(20 * time.Second); !f.places.take(to.Addr()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the place of a connection that has ended is not free")
		}
	}
}
