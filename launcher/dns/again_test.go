// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/time/rate"

	"sandboxctl.dev/launcher/names"
)

// A port that stays taken is tried less and less often, by whatever it is looked at, and told
// of once; what has changed is told.
func TestListenAgain(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	a := netip.AddrFrom4([4]byte{127, byte(1 + os.Getpid()%200), byte(nets.Add(1)), 1})
	s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil)), Upstreams: &Upstreams{}}
	taken, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s.port = taken.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	s.SetDirectory(names.New([]names.Sandbox{{Name: "web", Attachments: []names.Attachment{{Network: "n", Address4: a.Next(), Gateway4: a}}}}))
	open, failed := map[netip.Addr]*listener{}, map[netip.Addr]*failure{}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		for _, l := range open {
			l.close()
		}
	}()
	look := func() time.Duration { return s.listen(t.Context(), open, failed, &wg) }
	for i := range 3 {
		if wait := look(); wait <= 0 || wait > listenAgain {
			t.Errorf("look %d: again after %s", i, wait)
		}
	}
	for _, want := range []time.Duration{2 * listenAgain, 4 * listenAgain, 8 * listenAgain, listenMost, listenMost} {
		failed[a].again = time.Now()
		// What is left of it is less, by as long as this test is off the processor.
		if left := look(); failed[a].wait != want || left <= 0 || left > want {
			t.Errorf("again after %s, %s from now, expected %s", failed[a].wait, left, want)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines of one failure:\n%s", n, log.String())
	}
	taken.Close()
	failed[a].again = time.Now()
	if wait := look(); wait != 0 || open[a] == nil || len(failed) != 0 {
		t.Errorf("not listened on: again after %s, %v", wait, failed)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "answered again") {
		t.Errorf("%s", log.String())
	}
	// A gateway that nobody needs is not tried.
	failed[a.Next()] = &failure{}
	s.SetDirectory(names.New(nil))
	if wait := look(); wait != 0 || len(open)+len(failed) != 0 {
		t.Errorf("%v, %v, again after %s", open, failed, wait)
	}
}

// Sockets to servers have a rate, of each sandbox and of all: the kernel keeps each of them
// for half a minute as a connection of the host, and one by TCP four times as long. A few are
// made for each whatever others do.
func TestAsked(t *testing.T) {
	t.Parallel()
	var l limits
	tcp := false
	ask := func(who string, n int) (asked int) {
		for range n {
			if l.ask(l.of(who), tcp) {
				asked++
			}
		}
		return asked
	}
	if n := ask("greedy", 10*askedEachBurst); n < askedEachBurst || n > 2*askedEachBurst {
		t.Errorf("%d questions of one sandbox, expected about %d", n, askedEachBurst)
	}
	all := 0
	for who := range 20 {
		all += ask(fmt.Sprint("greedy", who), askedEachBurst)
	}
	if all < askedAllBurst/2 || all > 2*askedAllBurst {
		t.Errorf("%d questions of all, expected about %d", all, askedAllBurst)
	}
	if n := ask("modest", askedFewBurst); n != askedFewBurst {
		t.Errorf("%d of %d questions of one that asks little", n, askedFewBurst)
	}
	l, tcp = limits{}, true
	if n := ask("greedy", 10*askedEachBurst); n < askedEachBurst/costTCP || n > 2*askedEachBurst/costTCP {
		t.Errorf("%d questions of one sandbox by TCP, expected about %d", n, askedEachBurst/costTCP)
	}
	for who := range 20 {
		ask(fmt.Sprint("greedy", who), askedEachBurst)
	}
	if n := ask("modest", askedFewBurst); n < askedFewBurst/costTCP {
		t.Errorf("%d questions by TCP of one that asks little", n)
	}
}

// However many servers a question needs, each socket counts.
func TestAskedSockets(t *testing.T) {
	t.Parallel()
	r := newRig(t, names.Outside{})
	fails := func(m dnsmessage.Message, _ bool) [][]byte {
		m.RCode = dnsmessage.RCodeServerFailure
		return [][]byte{answerWith(t, m)}
	}
	first, second := r.fake(t, 0, fails), r.fake(t, 1, fails)
	r.limits.of("web").asked = rate.NewLimiter(0, 5)
	for i := range 8 {
		if got := r.ask(t, fmt.Sprintf("n%d.org.", i)); got != "ServerFailure" {
			t.Errorf("question %d: %s", i, got)
		}
	}
	if n := first.asked.Load() + second.asked.Load(); n != 5 {
		t.Errorf("servers were asked %d times, expected 5", n)
	}
	// What may not be asked does not make a server one that is silent.
	if len(r.forwarder.avoid) != 0 {
		t.Errorf("servers are avoided: %v", r.forwarder.avoid)
	}
}
