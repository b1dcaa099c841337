// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sandboxctl.dev/launcher/names"
)

// fake is a server that answers as the test says.
type fake struct {
	udp   *net.UDPConn
	tcp   net.Listener
	asked atomic.Int32
}

// newFake starts one. answer gets a question and whether it came by TCP; it may send
// several messages.
func newFake(t testing.TB, at netip.AddrPort, answer func(m dnsmessage.Message, tcp bool) [][]byte) *fake {
	t.Helper()
	f := &fake{}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	f.udp = udp
	if f.tcp, err = net.Listen("tcp", at.String()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { f.udp.Close(); f.tcp.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := f.udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			f.asked.Add(1)
			var m dnsmessage.Message
			if err := m.Unpack(buf[:n]); err != nil {
				t.Errorf("a server is asked %x: %v", buf[:n], err)
			}
			for _, b := range answer(m, false) {
				f.udp.WriteToUDPAddrPort(b, from)
			}
		}
	})
	wg.Go(func() {
		for {
			conn, err := f.tcp.Accept()
			if err != nil {
				return
			}
			f.asked.Add(1)
			b, err := readMessage(conn, maxTCP)
			var m dnsmessage.Message
			if err == nil && m.Unpack(b) == nil {
				for _, b := range answer(m, true) {
					conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
				}
			}
			conn.Close()
		}
	})
	return f
}

// answerWith is the answer to a question with addresses.
func answerWith(t testing.TB, m dnsmessage.Message, addresses ...string) []byte {
	t.Helper()
	m.Response, m.RecursionAvailable = true, true
	for _, a := range addresses {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 300},
			Body:   &dnsmessage.AResource{A: addr(a).As4()},
		})
	}
	return packed(t, m)
}

var nets atomic.Uint32

// rig is a server with a client on loopback addresses that no other test has.
type rig struct {
	*Server
	gateway, client netip.Addr
	servers         []netip.Addr
	conf            string
	learned         func() []string
}

// newRig starts a server. The servers of its host are two addresses where nobody is until
// the test starts a fake.
func newRig(t testing.TB, out names.Outside) *rig {
	t.Helper()
	n := nets.Add(1)
	at := func(host byte) netip.Addr {
		return netip.AddrFrom4([4]byte{127, byte(1 + os.Getpid()%200), byte(n), host})
	}
	r := &rig{gateway: at(1), client: at(5), servers: []netip.Addr{at(11), at(12)}, conf: filepath.Join(t.TempDir(), "resolv.conf")}
	r.setServers(t, r.servers...)
	var mu sync.Mutex
	var learned []string
	r.learned = func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(learned) }
	r.Server = &Server{
		Upstreams: &Upstreams{Path: r.conf, Resolved: r.conf + ".none"},
		Learned: func(sandbox, name string, addrs []netip.Addr, hold time.Duration) error {
			mu.Lock()
			defer mu.Unlock()
			learned = append(learned, fmt.Sprint(sandbox, " ", name, " ", addrs, " ", hold))
			return nil
		},
		port: 5353 + uint16(n), forwarder: forwarder{port: 7353 + uint16(n)},
	}
	attach := func(a netip.Addr) []names.Attachment {
		return []names.Attachment{{Network: "front", Address4: a, Gateway4: r.gateway, Subnets: []netip.Prefix{netip.PrefixFrom(r.gateway, 24).Masked()}}}
	}
	r.SetDirectory(names.New([]names.Sandbox{
		{Name: "web", Attachments: attach(r.client), Outside: out},
		{Name: "db", Attachments: attach(at(6))},
	}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Serve(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})
	// It listens when it refuses a connection of nobody.
	for range 500 {
		if c, err := net.Dial("tcp", netip.AddrPortFrom(r.gateway, r.port).String()); err == nil {
			c.Close()
			return r
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the server does not listen")
	return nil
}

func (r *rig) setServers(t testing.TB, servers ...netip.Addr) {
	t.Helper()
	text := "# made by a test\nsearch x\n"
	for _, s := range servers {
		text += "nameserver " + s.String() + "\n"
	}
	if err := os.WriteFile(r.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) fake(t testing.TB, i int, answer func(m dnsmessage.Message, tcp bool) [][]byte) *fake {
	t.Helper()
	return newFake(t, netip.AddrPortFrom(r.servers[i], r.forwarder.port), answer)
}

// send sends a message from an address and returns what comes back within a time.
func (r *rig) send(t testing.TB, from netip.Addr, msg []byte, within time.Duration) ([]byte, error) {
	t.Helper()
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: from.AsSlice()}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.gateway, r.port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(msg); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 65536)
	n, err := conn.Read(buf)
	return buf[:n], err
}

// ask asks for an address and returns the answer as text.
func (r *rig) ask(t testing.TB, of string) string {
	t.Helper()
	b, err := r.send(t, r.client, pack(t, of, dnsmessage.TypeA, 0), 8*time.Second)
	if err != nil {
		return err.Error()
	}
	return said(unpack(t, b))
}

func TestServe(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{Names: []string{"example.org"}})
	r.fake(t, 0, func(m dnsmessage.Message, _ bool) [][]byte { return [][]byte{answerWith(t, m, "9.9.9.9", "10.0.0.1")} })
	if got, want := r.ask(t, "db."), "Success "+r.client.Next().String(); got != want {
		t.Errorf("a sibling: %s, expected %s", got, want)
	}
	if got := r.ask(t, "other.org."); got != "Success 10.0.0.1 9.9.9.9" || len(r.learned()) != 0 {
		t.Errorf("a name of the world: %s, learned %v", got, r.learned())
	}
	if got, want := r.ask(t, "Example.org."), []string{"web example.org [9.9.9.9] 5m0s"}; got != "Success 10.0.0.1 9.9.9.9" || !slices.Equal(r.learned(), want) {
		t.Errorf("a name of a rule: %s, learned %v, expected %v", got, r.learned(), want)
	}
	// Whoever else reaches the port is nobody.
	for _, from := range []netip.Addr{r.gateway, r.servers[1]} {
		if b, err := r.send(t, from, pack(t, "db.", dnsmessage.TypeA, 0), 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is answered %x, %v", from, b, err)
		}
	}
}

func TestSetDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	to := netip.AddrPortFrom(r.gateway, r.port).String()
	r.SetDirectory(names.New(nil))
	for range 500 {
		c, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a gateway that is gone is listened on")
}

// A gateway whose port somebody has is listened on when it is free.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	second := netip.AddrPortFrom(r.servers[1], r.port)
	taken, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(second))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.SetDirectory(names.New([]names.Sandbox{{Name: "web", Attachments: []names.Attachment{{Network: "n", Address4: r.client, Gateway4: second.Addr()}}}}))
	listens := func() bool {
		for range 400 {
			if c, err := net.Dial("tcp", second.String()); err == nil {
				c.Close()
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}
	time.Sleep(100 * time.Millisecond)
	if c, err := net.Dial("tcp", second.String()); err == nil {
		c.Close()
		t.Error("half of a gateway is listened on")
	}
	taken.Close()
	if !listens() {
		t.Error("the gateway is not listened on after its port became free")
	}
}

// Answers with another id, another question, no question, or that are questions are passed
// over, and the true one is taken.
func TestForged(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{Names: []string{"example.org"}})
	ids := make(chan uint16, 100)
	r.fake(t, 0, func(m dnsmessage.Message, _ bool) [][]byte {
		ids <- m.ID
		id := m
		id.ID++
		other := m
		other.Questions = []dnsmessage.Question{{Name: name("other.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
		typ := m
		typ.Questions = []dnsmessage.Question{{Name: m.Questions[0].Name, Type: dnsmessage.TypeAAAA, Class: dnsmessage.ClassINET}}
		two := m
		two.Questions = append(slices.Clone(m.Questions), m.Questions...)
		none := m
		none.Questions, none.Response = nil, true
		return [][]byte{
			answerWith(t, id, "6.6.6.6"), answerWith(t, other, "6.6.6.6"), answerWith(t, typ, "6.6.6.6"), answerWith(t, two, "6.6.6.6"), packed(t, none),
			packed(t, m),
			{1, 2, 3},
			answerWith(t, m, "9.9.9.9"),
		}
	})
	for range 20 {
		if got := r.ask(t, "example.org."); got != "Success 9.9.9.9" {
			t.Fatalf("got %s", got)
		}
	}
	for _, l := range r.learned() {
		if l != "web example.org [9.9.9.9] 5m0s" {
			t.Errorf("learned %s", l)
		}
	}
	seen := map[uint16]bool{}
	for range 20 {
		seen[<-ids] = true
	}
	if len(seen) < 15 || seen[4711] {
		t.Errorf("ids %v are not random", seen)
	}
}

func TestNextServer(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	// The first is there and says nothing, then refuses; the second answers.
	var refuse atomic.Bool
	first := r.fake(t, 0, func(m dnsmessage.Message, _ bool) [][]byte {
		if !refuse.Load() {
			return nil
		}
		m.RCode = dnsmessage.RCodeServerFailure
		return [][]byte{answerWith(t, m)}
	})
	second := r.fake(t, 1, func(m dnsmessage.Message, _ bool) [][]byte { return [][]byte{answerWith(t, m, "9.9.9.9")} })
	if got := r.ask(t, "a.org."); got != "Success 9.9.9.9" || first.asked.Load() != 1 {
		t.Errorf("%s; the first was asked %d times", got, first.asked.Load())
	}
	if got := r.ask(t, "b.org."); got != "Success 9.9.9.9" || first.asked.Load() != 1 {
		t.Errorf("%s; the first was asked %d times though it was silent", got, first.asked.Load())
	}
	refuse.Store(true)
	r.forwarder.answered(r.servers[0])
	if got := r.ask(t, "c.org."); got != "Success 9.9.9.9" || first.asked.Load() != 2 {
		t.Errorf("%s; the first was asked %d times", got, first.asked.Load())
	}
	second.udp.Close() // nobody is there: the kernel says so at once
	if got := r.ask(t, "d.org."); got != "ServerFailure" {
		t.Errorf("one refuses and one is gone: %s", got)
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	start := time.Now()
	if got := r.ask(t, "a.org."); got != "ServerFailure" || time.Since(start) > 5*time.Second {
		t.Errorf("nobody is there: %s after %v", got, time.Since(start))
	}
	r.fake(t, 0, func(dnsmessage.Message, bool) [][]byte { return nil })
	r.fake(t, 1, func(dnsmessage.Message, bool) [][]byte { return nil })
	start = time.Now()
	if got := r.ask(t, "b.org."); got != "ServerFailure" || time.Since(start) > 5*time.Second {
		t.Errorf("nobody answers: %s after %v", got, time.Since(start))
	}
}

// A message too long for UDP is asked for again by TCP, by the client and to the server.
func TestTCP(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	var long []string
	for i := range 200 {
		long = append(long, fmt.Sprintf("9.9.9.%d", i))
	}
	r.fake(t, 0, func(m dnsmessage.Message, tcp bool) [][]byte {
		if !tcp {
			if m.Questions[0].Name == name("rude.org.") {
				return [][]byte{answerWith(t, m, long...)} // longer than it was asked for
			}
			m.Truncated = true
			return [][]byte{answerWith(t, m)}
		}
		return [][]byte{answerWith(t, m, long...)}
	})
	for _, of := range []string{"polite.org.", "rude.org."} {
		b, err := r.send(t, r.client, pack(t, of, dnsmessage.TypeA, 0), 8*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if m := unpack(t, b); !m.Truncated || len(b) > plainUDP {
			t.Errorf("%s: %+v, %d bytes", of, m.Header, len(b))
		}
	}
	conn := r.dial(t)
	defer conn.Close()
	for _, of := range []string{"polite.org.", "db.", "rude.org."} {
		q := pack(t, of, dnsmessage.TypeA, 0)
		conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
		b, err := readMessage(conn, maxTCP)
		if err != nil {
			t.Fatal(err)
		}
		want := len(long)
		if of == "db." {
			want = 1
		}
		if m := unpack(t, b); len(m.Answers) != want || m.Truncated || m.ID != 4711 {
			t.Errorf("%s: %d answers, %+v", of, len(m.Answers), m.Header)
		}
	}
}

func (r *rig) dial(t testing.TB) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: r.client.AsSlice()}}
	conn, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(r.gateway, r.port).String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(8 * time.Second))
	return conn
}

func TestConnections(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	closed := func(c net.Conn) bool {
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	var open []net.Conn
	for range connsEach {
		c := r.dial(t)
		defer c.Close()
		open = append(open, c)
	}
	if c := r.dial(t); !closed(c) {
		t.Error("one connection more than a sandbox may have is kept")
	}
	for _, c := range open {
		if closed(c) {
			t.Error("a connection is closed before its time")
		}
	}
	// One that announces more than a question can have is not waited for.
	open[0].Write([]byte{0xff, 0xff})
	if !closed(open[0]) {
		t.Error("a message of 65535 bytes is read")
	}
	if b, err := io.ReadAll(open[0]); err == nil && len(b) > 0 {
		t.Errorf("it is answered %x", b)
	}
}

// What one sandbox has under way is bounded, and so is one question of it: a server that
// asks us back can't multiply it.
func TestFlying(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	server := r.fake(t, 0, func(dnsmessage.Message, bool) [][]byte { return nil })
	r.setServers(t, r.servers[0])
	time.Sleep(lookAgain)
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: r.client.AsSlice()}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.gateway, r.port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := runtime.NumGoroutine()
	for range 100 {
		conn.Write(pack(t, "same.org.", dnsmessage.TypeA, 0))
	}
	for i := range 1000 {
		conn.Write(pack(t, fmt.Sprintf("x%d.org.", i), dnsmessage.TypeA, 0))
	}
	refused := 0
	buf := make([]byte, 4096)
	conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	for {
		n, err := conn.Read(buf)
		if err != nil {
			break
		}
		if said(unpack(t, buf[:n])) == "ServerFailure" {
			refused++
		}
	}
	if asked := server.asked.Load(); asked == 0 || asked > flyingEach {
		t.Errorf("the server was asked %d times at once", asked)
	}
	if refused < 100-sameEach {
		t.Errorf("%d questions were refused", refused)
	}
	if after := runtime.NumGoroutine(); after > before+4*flyingEach {
		t.Errorf("%d goroutines, %d before", after, before)
	}
	q, _ := parse(pack(t, "db.", dnsmessage.TypeA, 0), false)
	var l limits
	c := l.of("x")
	for range sameEach {
		if _, ok := l.fly(c, q); !ok {
			t.Error("refused too early")
		}
	}
	if _, ok := l.fly(c, q); ok {
		t.Error("one question flies too often")
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	var l limits
	c := l.of("x")
	n := 0
	for range 10 * burst {
		if c.rate.Allow() {
			n++
		}
	}
	if n < burst || n > 2*burst {
		t.Errorf("%d of %d questions were read", n, 10*burst)
	}
	l.keep(func(string) bool { return false })
	if len(l.clients) != 0 {
		t.Error("what is gone is remembered")
	}
}

func TestServersFor(t *testing.T) {
	t.Parallel()
	d := town(0)
	host := []netip.Addr{addr("127.0.0.53"), addr("10.0.0.1"), addr("9.9.9.9")}
	for _, c := range []struct {
		own  []netip.Addr
		want []netip.Addr
	}{
		// Our own gateway is no server, and neither is who asks.
		{nil, []netip.Addr{addr("127.0.0.53"), addr("9.9.9.9")}},
		{[]netip.Addr{addr("10.0.0.1"), addr("10.0.0.5"), addr("fd00::5"), addr("10.0.0.6")}, []netip.Addr{addr("10.0.0.6")}},
		// Nor is what only the host reaches, if a manifest names it.
		{[]netip.Addr{addr("127.0.0.53"), addr("::1"), addr("169.254.169.254"), addr("0.0.0.0"), addr("8.8.8.8")}, []netip.Addr{addr("8.8.8.8")}},
	} {
		sb := d.Client(addr("10.0.0.5"))
		sb.Outside.Servers = c.own
		if got := serversFor(d, sb, host); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, expected %v", c.own, got, c.want)
		}
	}
}

func TestUpstreams(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u := &Upstreams{Path: filepath.Join(dir, "resolv.conf"), Resolved: filepath.Join(dir, "resolved.conf")}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what, want, wantErr string) {
		t.Helper()
		u.looked = time.Time{}
		got, err := u.Servers()
		var text []string
		for _, a := range got {
			text = append(text, a.String())
		}
		if strings.Join(text, " ") != want || (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: %v, %v; expected %s, %s", what, text, err, want, wantErr)
		}
	}
	check("no file", "", "no such file")
	write(u.Path, "# x\nnameserver 9.9.9.9\nnameserver\t2620:fe::fe # y\nnameserver nonsense\n nameserver ::ffff:8.8.8.8\nnameserver 9.9.9.9\nsearch a\n")
	check("servers", "9.9.9.9 2620:fe::fe 8.8.8.8", "")
	write(u.Path, "nameserver 127.0.0.53\noptions edns0\n")
	check("the stub", "127.0.0.53", "")
	write(u.Resolved, "nameserver 10.0.0.1\nnameserver fe80::1%eth0\n")
	check("systemd-resolved", "127.0.0.53 10.0.0.1 fe80::1%eth0", "")
	write(u.Path, "search a\n")
	check("no server", "127.0.0.53 10.0.0.1 fe80::1%eth0", "names no server")
	os.Remove(u.Path)
	check("gone", "127.0.0.53 10.0.0.1 fe80::1%eth0", "no such file")
	write(u.Path, "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\nnameserver 1.1.1.5\n")
	check("many", "1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4", "")
}

// A change of resolv.conf holds without a restart.
func TestChangedUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	r.fake(t, 0, func(m dnsmessage.Message, _ bool) [][]byte { return [][]byte{answerWith(t, m, "9.9.9.9")} })
	r.fake(t, 1, func(m dnsmessage.Message, _ bool) [][]byte { return [][]byte{answerWith(t, m, "8.8.8.8")} })
	if got := r.ask(t, "a.org."); got != "Success 9.9.9.9" {
		t.Fatal(got)
	}
	r.setServers(t, r.servers[1])
	for range 100 {
		if r.ask(t, "a.org.") == "Success 8.8.8.8" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the old server is asked")
}

func BenchmarkLocal(b *testing.B) {
	d := town(100)
	c := d.Client(addr("10.0.0.5"))
	msg := pack(b, "db.front.internal.", dnsmessage.TypeA, 1232)
	b.ReportAllocs()
	for b.Loop() {
		q, _ := parse(msg, false)
		if local(d, c, q) == nil {
			b.Fatal("no answer")
		}
	}
}

func BenchmarkServe(b *testing.B) {
	r := newRig(b, names.Outside{})
	r.limits.of("web").rate.SetLimit(1e9)
	r.limits.of("web").rate.SetBurst(1e9)
	r.fake(b, 0, func(m dnsmessage.Message, _ bool) [][]byte { return [][]byte{answerWith(b, m, "9.9.9.9")} })
	for _, of := range []string{"db.", "example.org."} {
		b.Run(of, func(b *testing.B) {
			conn, err := net.DialUDP("udp", &net.UDPAddr{IP: r.client.AsSlice()}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.gateway, r.port)))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			msg, buf := pack(b, of, dnsmessage.TypeA, 0), make([]byte, 512)
			for b.Loop() {
				conn.Write(msg)
				conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := conn.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Sandboxes that have much under way can't take the last from those that have little.
func TestReserved(t *testing.T) {
	t.Parallel()
	var l limits
	ask := func(who string, i int) bool {
		q, _ := parse(pack(t, fmt.Sprintf("n%d.", i), dnsmessage.TypeA, 0), false)
		_, ok := l.fly(l.of(who), q)
		return ok
	}
	for who := range flyingAll / flyingEach {
		for i := range flyingEach {
			if !ask(fmt.Sprint("greedy", who), i) {
				t.Fatalf("question %d of %d was refused", i, who)
			}
		}
	}
	for i := range reserved + 1 {
		if got := ask("modest", i); got != (i < reserved) {
			t.Errorf("question %d of one that has little: %t", i, got)
		}
	}
}
