// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"net/netip"
	"testing"
)

// Published ports are reached from outside, from the host, by 127.0.0.1, from siblings and
// from the sandbox itself, by both protocols and both families; who asks from outside is
// seen with its own address.
func TestPublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	publish := func(s *Sandbox) {
		for _, protocol := range []string{"tcp", "udp"} {
			s.Ports = append(s.Ports, Port{Protocol: protocol, HostPort: 8080, To: 80, Count: 1}, Port{Protocol: protocol, HostPort: 6000, To: 7000, Count: 3})
		}
	}
	web := w.sandbox("web", "front", publish)
	sibling := w.sandbox("sibling", "front", nil)
	other := w.sandbox("other", "back", nil)
	for _, port := range []int{80, 7000, 7001, 7002, 7003} {
		serve(t, web.testNS, "web", at("", port))
	}
	serve(t, w.host, "host", at("", 9000))
	w.install()
	for from, n := range map[string]*testNS{"outside": w.outside, "host": w.host, "sibling": sibling.testNS, "itself": web.testNS, "other network": other.testNS} {
		for _, ip := range []string{lanHost4, lanHost6, otherHost4} {
			if from == "outside" && ip == otherHost4 {
				continue // it has that address itself
			}
			t.Log("from", from, "to", ip) // what a failure below is about
			both(t, n, at(ip, 8080), "web")
			both(t, n, at(ip, 6000), "web")
			both(t, n, at(ip, 6002), "web")
			both(t, n, at(ip, 6003), "")
		}
	}
	both(t, w.host, at("127.0.0.1", 8080), "web "+gateway4)
	both(t, w.host, at("127.0.0.2", 8080), "web "+gateway4)
	both(t, w.outside, at(lanHost4, 8080), "web "+lanOutside4)
	both(t, w.outside, at(lanHost6, 8080), "web "+lanOutside6)
	both(t, sibling.testNS, at(gateway4, 8080), "web "+sibling.four.String())
	both(t, sibling.testNS, at(web.four, 80), "web "+sibling.four.String())
	both(t, sibling.testNS, at(web.six, 80), "web "+sibling.six.String())
	both(t, w.host, at("::1", 8080), "") // loopback6 forwards it

	// Without a port that is published, nobody outside and no other network reaches it,
	// by whatever route.
	both(t, w.outside, at(web.four, 80), "")
	both(t, w.outside, at(web.six, 80), "")
	both(t, other.testNS, at(web.four, 80), "")
	both(t, other.testNS, at(web.six, 80), "")
	// The host itself does.
	both(t, w.host, at(web.four, 80), "web")
	both(t, w.host, at(web.six, 80), "web")
}

// A port that is published on one address is not published on others; and one on
// 127.0.0.1 is not reached by a neighbor of the host that sends to 127.0.0.1.
func TestHostIP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	on := func(ip string, port uint16) Port {
		return Port{Protocol: "tcp", HostIP: netip.MustParseAddr(ip), HostPort: port, To: 80, Count: 1}
	}
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Ports = []Port{on("127.0.0.1", 8001), on(lanHost4, 8002), on(lanHost6, 8003), on("0.0.0.0", 8004), on("::", 8005), on("127.0.0.1", 8006)}
	})
	two := w.sandbox("two", "front", func(s *Sandbox) { s.Ports = []Port{{Protocol: "tcp", HostPort: 8006, To: 80, Count: 1}} })
	serve(t, web.testNS, "web", at("", 80))
	serve(t, two.testNS, "two", at("", 80))
	w.install()
	for _, c := range []struct {
		from *testNS
		to   string
		want string
	}{
		{w.host, "127.0.0.1:8001", "web"},
		{w.host, at(lanHost4, 8001), ""},
		{w.outside, at(lanHost4, 8001), ""},
		{w.outside, at(lanHost4, 8002), "web"},
		{w.host, at(otherHost4, 8002), ""},
		{w.host, "127.0.0.1:8002", ""},
		{w.outside, at(lanHost6, 8003), "web"},
		{w.host, at(otherHost6, 8003), ""},
		{w.outside, at(lanHost4, 8003), ""},
		{w.outside, at(lanHost4, 8004), "web"},
		{w.outside, at(lanHost6, 8004), ""},
		{w.outside, at(lanHost6, 8005), "web"},
		{w.outside, at(lanHost4, 8005), ""},
		{w.host, "127.0.0.1:8006", "web"},
		{w.outside, at(lanHost4, 8006), "two"},
	} {
		answers(t, c.from, "tcp", c.to, c.want)
	}
}
