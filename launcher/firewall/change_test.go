// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sandboxctl.dev/launcher/flows"
)

// When rules are installed again, connections go on, also those to a port that is not
// published any more; new ones obey the new rules.
func TestChangedPorts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) { s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 1}} })
	two := w.sandbox("two", "front", nil)
	serve(t, web.testNS, "web", at("", 80))
	serve(t, two.testNS, "two", at("", 80))
	serve(t, w.outside, "outside", at("", 80))
	w.install()
	in, err := dialFrom(w.outside, "tcp", at(lanHost4, 8080), answerTime)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := dialFrom(web.testNS, "tcp", "1.1.1.1:80", answerTime)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	goesOn := func() {
		t.Helper()
		for c, want := range map[net.Conn]string{in: "web " + lanOutside4, out: "outside " + lanHost4} {
			if got, err := say(c, answerTime); err != nil || got != want {
				t.Errorf("%q %v, expected %s", got, err, want)
			}
		}
	}
	goesOn()
	ports := w.rules.Sandboxes[0].Ports
	w.edit("web", func(s *Sandbox) { s.Ports = nil })
	w.edit("two", func(s *Sandbox) { s.Ports = ports })
	w.install()
	goesOn()
	answers(t, w.outside, "tcp", at(lanHost4, 8080), "two")
	w.edit("web", func(s *Sandbox) { s.Egress = Reach{Default: Deny} })
	w.install()
	goesOn() // until its connections are forgotten
	if n, err := flows.Forget(w.host, web.four, web.six); err != nil || n < 2 {
		t.Errorf("%d connections: %v", n, err)
	}
	if got, err := say(out, silenceTime); err == nil {
		t.Errorf("%s answers a connection that is not allowed any more", got)
	}
	answers(t, web.testNS, "tcp", "1.1.1.1:80", "")
}

// Rules are complete at every moment: while they are installed again and again, also with
// a table that must be made anew, no packet passes that none of them allows, and none is
// lost that all of them allow.
func TestInstallUnderTraffic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Deny, Allow: rulesOf("1.1.1.1/32")}
		s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 1}}
	})
	serve(t, web.testNS, "web", at("", 80))
	bad := listen(t, w.outside, 999)
	good := listen(t, w.outside, 998)
	w.install()
	// Each differs from the other in a chain that is filled anew, and in a sandbox.
	more := w.rules
	more.Sandboxes = append(slices.Clone(w.rules.Sandboxes), Sandbox{Name: "other", Attachments: []Attachment{{Network: "front", Link: "sx0", Address4: netip.MustParseAddr("10.210.0.99")}}})
	more.Sandboxes[0].Egress.Allow = rulesOf("9.9.9.9/32", "1.1.1.1/32")
	done := make(chan struct{})
	var sent atomic.Int64
	go func() {
		defer close(done)
		// On a busy machine twenty may be over before the traffic has begun.
		for i := 0; (i < 20 || sent.Load() < 5) && t.Context().Err() == nil; i++ {
			if i == 10 { // the base chains of the table are made anew
				err := w.host.Do(func() error { return w.table.transaction(w.table.installed, &present{table: true, foreign: true}) })
				if err != nil {
					t.Error(err)
				}
			}
			if err := w.table.Install(t.Context(), []*Ruleset{&more, &w.rules}[i%2]); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	refused := (&packet{from: web.four, to: netip.MustParseAddr("1.1.1.2"), port: 999, text: "bad"}).bytes()
	forged := (&packet{from: netip.MustParseAddr("1.2.3.4"), to: netip.MustParseAddr("1.1.1.1"), port: 999, text: "forged"}).bytes()
	allowed := (&packet{from: web.four, to: netip.MustParseAddr("1.1.1.1"), port: 998, text: "good"}).bytes()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		web.send(t, refused, forged, allowed)
		if got := good.next(t); !strings.HasPrefix(got, "good") {
			t.Fatal(got)
		}
		answers(t, w.outside, "tcp", at(lanHost4, 8080), "web")
		sent.Add(1)
	}
	_ = bad.p.SetReadDeadline(noWait())
	if n, from, err := bad.p.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes from %v passed while rules were installed", n, from)
	}
}

// A sandbox whose rules are installed before its link is there can't send a packet past
// them: the first one is judged.
func TestFirstPacket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ear := listen(t, w.outside, 999)
	w.rules.Sandboxes = []Sandbox{{
		Name: "early", Attachments: []Attachment{{Network: "front", Link: "sb02", Address4: netip.MustParseAddr("10.210.0.2"), Gateway4: netip.MustParseAddr(gateway4)}},
		Egress: Reach{Default: Deny, Allow: rulesOf("1.1.1.1/32")},
	}}
	w.install()
	early := w.sandbox("late", "front", nil) // makes sb02; its rules are not installed
	if early.four.String() != "10.210.0.2" {
		t.Fatal(early.four)
	}
	early.send(t, (&packet{from: early.four, to: netip.MustParseAddr("1.1.1.2"), port: 999, text: "bad"}).bytes(),
		(&packet{from: early.four, to: netip.MustParseAddr("1.1.1.1"), port: 999, text: "good"}).bytes())
	if got := ear.next(t); got != "good from "+lanHost4 {
		t.Error(got)
	}
}

// More ports and sandboxes than one message to the kernel has room for.
func TestMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) { s.Ports = []Port{{Protocol: "udp", HostPort: 20000, To: 30000, Count: 3000}} })
	serve(t, web.testNS, "web", at("", 30000))
	serve(t, web.testNS, "web", at("", 32999))
	for i := range 500 {
		a := netip.AddrFrom4([4]byte{10, 211, byte(i >> 8), byte(i)})
		w.rules.Sandboxes = append(w.rules.Sandboxes, Sandbox{Name: fmt.Sprintf("s%d", i), Egress: Reach{Default: Public}, Attachments: []Attachment{{Network: "other", Link: fmt.Sprintf("sx%d", i), Address4: a}}})
	}
	for range 2 {
		w.install()
		w.intact(true)
		answers(t, w.outside, "udp", at(lanHost4, 20000), "web")
		answers(t, w.outside, "udp", at(lanHost6, 22999), "web")
		answers(t, w.outside, "udp", at(lanHost4, 23000), "")
	}
	if all, err := w.table.Counters(); err != nil || len(all) != 501 {
		t.Errorf("%d %v", len(all), err)
	}
	w.rules.Sandboxes = w.rules.Sandboxes[:1]
	w.install()
	if all, err := w.table.Counters(); err != nil || len(all) != 1 {
		t.Errorf("%d %v", len(all), err)
	}
}
