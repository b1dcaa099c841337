// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func rulesOf(texts ...string) (out []Rule) {
	for _, t := range texts {
		out = append(out, Rule{Prefix: netip.MustParsePrefix(t)})
	}
	return out
}

// Sandboxes of one network reach each other, those of others do not; what leaves has the
// address of the host; internal networks have no way out, and isolated ones none to each
// other.
func TestTopology(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serve(t, w.outside, "outside", at("", 80))
	internal := func(s *Sandbox) { s.Attachments[0].Internal = true }
	isolated := func(s *Sandbox) {
		s.Attachments[0].Isolated = true
		s.Ports = []Port{{Protocol: "tcp", HostPort: 8000 + uint16(len(w.rules.Sandboxes)), To: 80, Count: 1}}
	}
	for name, g := range map[string]*guest{
		"front1": w.sandbox("front1", "front", nil), "front2": w.sandbox("front2", "front", nil),
		"in1": w.sandbox("in1", "inside", internal), "in2": w.sandbox("in2", "inside", internal),
		"alone1": w.sandbox("alone1", "alone", isolated), "alone2": w.sandbox("alone2", "alone", isolated),
	} {
		serve(t, g.testNS, name, at("", 80))
	}
	w.install()
	may := map[string]string{"front1": "front2", "front2": "front1", "in1": "in2", "in2": "in1"}
	for from, g := range w.guests {
		for to, other := range w.guests {
			want := ""
			if may[from] == to || from == to {
				want = to
			}
			answers(t, g.testNS, "tcp", at(other.four, 80), want)
			answers(t, g.testNS, "udp", at(other.six, 80), want)
		}
	}
	for _, from := range []string{"front1", "alone1"} {
		both(t, w.guests[from].testNS, at(lanOutside4, 80), "outside "+lanHost4)
		both(t, w.guests[from].testNS, "1.1.1.1:80", "outside "+lanHost4)
		both(t, w.guests[from].testNS, "[2606:4700::1]:80", "outside "+lanHost6)
	}
	both(t, w.guests["in1"].testNS, "1.1.1.1:80", "")
	both(t, w.guests["in1"].testNS, "[2606:4700::1]:80", "")
	// What an isolated sandbox publishes is for all, also its neighbors, but not for a
	// network without a way out.
	published := at(lanHost4, 8004)
	answers(t, w.guests["alone2"].testNS, "tcp", published, "alone1")
	answers(t, w.guests["alone1"].testNS, "tcp", published, "alone1")
	answers(t, w.guests["front1"].testNS, "tcp", published, "alone1")
	answers(t, w.guests["in1"].testNS, "tcp", published, "")
}

// A sandbox on two networks reaches those of both, and connects none with the other.
func TestTwoNetworks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.sandbox("a", "front", nil), w.sandbox("b", "back", nil)
	// Its second link is one of its own in the rules; packets of it come by the first.
	middle := w.sandbox("middle", "front", nil)
	second := w.sandbox("second", "back", nil)
	for name, g := range w.guests {
		serve(t, g.testNS, name, at("", 80))
	}
	two := w.rules.Sandboxes[3].Attachments[0]
	w.rules.Sandboxes = w.rules.Sandboxes[:3]
	w.edit("middle", func(s *Sandbox) {
		s.Attachments = append(s.Attachments, two)
		s.Egress = Reach{Default: Deny, Allow: []Rule{{Sandbox: "a"}, {Sandbox: "b"}}}
	})
	w.install()
	both(t, a.testNS, at(middle.four, 80), "middle")
	both(t, b.testNS, at(second.four, 80), "second")
	both(t, a.testNS, at(second.four, 80), "")
	both(t, a.testNS, at(b.four, 80), "")
	both(t, middle.testNS, at(a.four, 80), "a")
	both(t, middle.testNS, at(b.four, 80), "")
	both(t, second.testNS, at(b.four, 80), "b")
	both(t, second.testNS, at(a.four, 80), "")
	both(t, second.testNS, "1.1.1.1:80", "")
}

// What rules of egress allow, and nothing else.
func TestEgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serve(t, w.outside, "outside", at("", 80))
	serve(t, w.outside, "outside", at("", 81))
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Deny, Allow: append(rulesOf("10.99.0.0/16", "fd00:99::/32", "1.2.3.4/32"),
			Rule{Prefix: netip.MustParsePrefix("10.98.0.0/16"), Port: 80}, Rule{Prefix: netip.MustParsePrefix("2606::/16"), Port: 81},
			Rule{Sandbox: "db", Port: 80}, Rule{Sandbox: "cache"}, Rule{Sandbox: "gone"}, Rule{Sandbox: "back"})}
		s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 1}}
	})
	for _, name := range []string{"db", "cache", "other"} {
		g := w.sandbox(name, "front", nil)
		serve(t, g.testNS, name, at("", 80))
		serve(t, g.testNS, name, at("", 81))
	}
	back := w.sandbox("back", "back", nil)
	serve(t, back.testNS, "back", at("", 80))
	serve(t, web.testNS, "web", at("", 80))
	w.install()
	for to, want := range map[string]string{
		"10.99.1.1:80": "outside", "10.99.1.1:81": "outside", "10.100.0.1:80": "", "[fd00:99::1]:80": "outside", "[fd00:9a::1]:80": "",
		"1.2.3.4:81": "outside", "1.2.3.5:80": "", "10.98.1.1:80": "outside", "10.98.1.1:81": "", "[2606::1]:81": "outside", "[2606::1]:80": "",
		at(w.guests["db"].four, 80): "db", at(w.guests["db"].six, 80): "db", at(w.guests["db"].four, 81): "",
		at(w.guests["cache"].four, 81): "cache", at(w.guests["cache"].six, 80): "cache", at(w.guests["other"].four, 80): "",
		// A rule can't open another network.
		at(back.four, 80): "",
	} {
		both(t, web.testNS, to, want)
	}
	// Others may begin connections to it, and get answers.
	answers(t, w.outside, "tcp", at(lanHost4, 8080), "web")
	both(t, w.guests["other"].testNS, at(web.four, 80), "web")
	// Others have no such rules.
	both(t, w.guests["other"].testNS, "10.100.0.1:80", "outside")
}

// Of `public` nothing is left but single hosts of the internet, by whatever address.
func TestPublic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serve(t, w.outside, "outside", at("", 80))
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Public, Allow: []Rule{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Port: 80}, {Sandbox: "db"}}}
	})
	open := w.sandbox("open", "front", nil)
	db := w.sandbox("db", "front", func(s *Sandbox) { s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 1}} })
	serve(t, db.testNS, "db", at("", 80))
	serve(t, open.testNS, "open", at("", 80))
	serve(t, w.host, "host", at("", 80))
	w.install()
	for _, to := range []string{
		"1.1.1.1", "9.9.9.9", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.169.0.1", "169.253.0.1", "198.17.0.1", "11.0.0.1", "223.255.255.1", "10.1.2.3",
		"2606:4700::1111", "2a00:1450::1", "2001:4860::8888", "64:ff9b::101:101", "2003::1",
	} {
		both(t, web.testNS, at(to, 80), "outside")
	}
	for _, to := range []string{
		"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.1", "192.168.77.2", "192.168.255.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "100.127.255.1",
		"198.18.0.1", "198.19.255.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "255.255.255.255", "224.0.0.1", "0.0.0.1", lanHost4, otherHost4, gateway4,
		"fd00:ec2::254", "fd20:ce::254", "fc00::1", "fd10:210::ffff", "2002:a9fe:a9fe::1", "2002:0a00:0001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "64:ff9b::a9fe:a9fe",
		"64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "fec0::1", "100::1", "3fff::1", "5f00::1", "::ffff:0:a9fe:a9fe", lanHost6, otherHost6, gateway6,
	} {
		answers(t, web.testNS, "udp", at(to, 80), "")
		if a := netip.MustParseAddr(to); !a.IsMulticast() && to != "255.255.255.255" {
			answers(t, web.testNS, "tcp", at(to, 80), "")
		}
	}
	both(t, web.testNS, at(open.four, 80), "")
	both(t, web.testNS, at(open.six, 80), "")
	both(t, web.testNS, at(db.four, 80), "db")
	both(t, web.testNS, at(db.six, 80), "db")
	// The same questions are answered where nothing is refused, so what is above is not
	// for want of a way.
	for _, to := range []string{"10.0.0.1", "169.254.169.254", "100.64.0.1", "198.18.0.1", "192.168.77.2", "fd00:ec2::254", "2002:a9fe:a9fe::1", "64:ff9b::a9fe:a9fe", "fec0::1", "2001:db8::1"} {
		both(t, open.testNS, at(to, 80), "outside")
	}
}

// The host's own services can't be reached, with or without rules, on none of its
// addresses; a rule opens one port, or one address.
func TestHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, port := range []int{22, 5432, 53} {
		serve(t, w.host, "host", at("", port))
	}
	plain := w.sandbox("plain", "front", nil)
	named := w.sandbox("named", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Public, Allow: []Rule{{Host: true, Port: 5432}, {Host: true, Port: 8080}, {Prefix: netip.MustParsePrefix(otherHost4 + "/32"), Port: 22}, {Prefix: netip.MustParsePrefix(otherHost6 + "/128")}}}
	})
	wide := w.sandbox("wide", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Deny, Allow: rulesOf("0.0.0.0/0", "::/0", "172.16.0.0/12")}
	})
	db := w.sandbox("db", "back", func(s *Sandbox) {
		s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 1}, {Protocol: "udp", HostPort: 53, To: 80, Count: 1}}
	})
	serve(t, db.testNS, "db", at("", 80))
	w.install()
	for _, ip := range []string{lanHost4, otherHost4, gateway4, lanHost6, otherHost6, gateway6} {
		for _, g := range []*guest{plain, wide} {
			both(t, g.testNS, at(ip, 22), "")
			both(t, g.testNS, at(ip, 5432), "")
		}
		both(t, named.testNS, at(ip, 5432), "host")
	}
	both(t, named.testNS, at(lanHost4, 22), "")
	both(t, named.testNS, at(otherHost4, 22), "host")
	both(t, named.testNS, at(otherHost6, 22), "host")
	// A port of the host that a sandbox publishes, which the rule means too.
	answers(t, named.testNS, "tcp", at(lanHost4, 8080), "db")
	answers(t, named.testNS, "tcp", at(db.four, 80), "")
	// Names are answered on the gateway, whatever is published.
	for _, g := range []*guest{plain, named, wide} {
		both(t, g.testNS, at(gateway4, 53), "host")
		both(t, g.testNS, at(gateway6, 53), "host")
		answers(t, g.testNS, "tcp", at(otherHost4, 53), "")
	}
	answers(t, w.outside, "udp", at(lanHost4, 53), "db")
}

// A name of a rule leads to what was learned of it, for its time, and never to the host,
// to a link or to what hands out credentials.
func TestLearn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serve(t, w.outside, "outside", at("", 80))
	serve(t, w.outside, "outside", at("", 443))
	serve(t, w.host, "host", at("", 443))
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Deny, Allow: []Rule{{Name: "example.org", Port: 443}, {Name: "any.example.org"}}}
	})
	other := w.sandbox("other", "front", func(s *Sandbox) { s.Egress = Reach{Default: Deny, Allow: []Rule{{Name: "else.example.org"}}} })
	w.install()
	learn := func(sandbox, name string, texts ...string) {
		t.Helper()
		var addrs []netip.Addr
		for _, text := range texts {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		if err := w.table.Learn(sandbox, name, addrs, 0); err != nil {
			t.Fatal(err)
		}
	}
	both(t, web.testNS, "1.1.1.1:443", "")
	for range 2 {
		learn("web", "example.org", "1.1.1.1", "1.1.1.1", "::ffff:1.1.1.2", "2606::1", "10.1.1.1", lanHost4, "169.254.169.254", "127.0.0.1", "::1", "fe80::1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe")
	}
	learn("web", "any.example.org", "2.2.2.2")
	learn("web", "unknown.example.org", "3.3.3.3")
	learn("nobody", "example.org", "3.3.3.3")
	check := func() {
		t.Helper()
		for to, want := range map[string]string{
			"1.1.1.1:443": "outside", "1.1.1.2:443": "outside", "[2606::1]:443": "outside", "10.1.1.1:443": "outside", "1.1.1.1:80": "", "[2606::1]:80": "", "2.2.2.2:80": "outside",
			"3.3.3.3:443": "", "169.254.169.254:443": "", "[fd00:ec2::254]:443": "", "[64:ff9b::a9fe:a9fe]:443": "", at(lanHost4, 443): "",
		} {
			both(t, web.testNS, to, want)
		}
		both(t, other.testNS, "1.1.1.1:443", "")
	}
	check()
	// It stays when other rules change, and when somebody removes the table.
	w.edit("web", func(s *Sandbox) { s.Egress.Allow = append(s.Egress.Allow, rulesOf("7.7.7.7/32")...) })
	w.install()
	check()
	if err := w.table.Remove(); err != nil {
		t.Fatal(err)
	}
	w.install()
	check()
	// It ends with the rule.
	w.edit("web", func(s *Sandbox) { s.Egress.Allow = s.Egress.Allow[1:] })
	w.install()
	both(t, web.testNS, "1.1.1.1:443", "")
	both(t, web.testNS, "2.2.2.2:80", "outside")
	w.edit("web", func(s *Sandbox) { s.Egress.Allow = append(s.Egress.Allow, Rule{Name: "example.org"}) })
	w.install()
	both(t, web.testNS, "1.1.1.1:443", "")
	// It ends with its time, and is given a new time by another answer.
	set := learnedSet("web", "example.org", four)
	tell := func(ttl time.Duration) {
		t.Helper()
		w.host.must(t, func() error { return w.table.tell(map[string][]netip.Addr{set: {netip.MustParseAddr("4.4.4.4")}}, ttl) })
	}
	tell(10 * time.Second)
	tell(700 * time.Millisecond)
	answers(t, web.testNS, "udp", "4.4.4.4:80", "outside")
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := ask(web.testNS, "tcp", "4.4.4.4:80", silenceTime); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what was learned for a moment stays")
		}
	}
	tell(300 * time.Millisecond)
	tell(time.Minute)
	time.Sleep(400 * time.Millisecond)
	answers(t, web.testNS, "tcp", "4.4.4.4:80", "outside")
}

// Who answers for a name gives no more addresses than there is room for, and the first
// ones stay.
func TestLearnMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sandbox("web", "front", func(s *Sandbox) { s.Egress = Reach{Default: Deny, Allow: []Rule{{Name: "example.org"}}} })
	w.install()
	for i := range 40 {
		var addrs []netip.Addr
		for j := range 100 {
			addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf("20.0.%d.%d", i, j)))
		}
		if err := w.table.Learn("web", "example.org", addrs, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.table.learned[learnedSet("web", "example.org", four)]); n != learnedMost/2 {
		t.Errorf("%d addresses", n)
	}
	w.install()
	w.intact(true)
}

// Who may begin a connection to a sandbox. The host always may.
func TestIngress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 1}, {Protocol: "tcp", HostPort: 8081, To: 81, Count: 1}}
		s.Ingress = Reach{Default: Deny, Allow: []Rule{{Prefix: netip.MustParsePrefix("192.168.77.0/24"), Port: 80}, {Sandbox: "friend", Port: 81}}}
	})
	friend, other := w.sandbox("friend", "front", nil), w.sandbox("other", "front", nil)
	serve(t, web.testNS, "web", at("", 80))
	serve(t, web.testNS, "web", at("", 81))
	serve(t, w.outside, "outside", at("", 80))
	w.install()
	answers(t, w.outside, "tcp", at(lanHost4, 8080), "web")
	answers(t, w.outside, "tcp", at(lanHost4, 8081), "")
	answers(t, w.outside, "tcp", at(lanHost6, 8080), "")
	for _, ip := range []netip.Addr{web.four, web.six} {
		both(t, friend.testNS, at(ip, 81), "web")
		both(t, friend.testNS, at(ip, 80), "")
		both(t, other.testNS, at(ip, 81), "")
		both(t, w.host, at(ip, 80), "web")
	}
	answers(t, friend.testNS, "tcp", at(lanHost4, 8081), "web")
	answers(t, other.testNS, "tcp", at(lanHost4, 8081), "")
	answers(t, web.testNS, "tcp", at(lanHost4, 8080), "web")
	answers(t, w.host, "tcp", "127.0.0.1:8081", "web")
	both(t, web.testNS, "1.1.1.1:80", "outside")
}

// Nothing passes a closed link, whatever its guest says it is, until there is a sandbox
// that it belongs to again.
func TestClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serve(t, w.host, "host", at("", 22))
	serve(t, w.outside, "outside", at("", 80))
	lost, other := w.sandbox("lost", "front", nil), w.sandbox("other", "front", nil)
	serve(t, other.testNS, "other", at("", 80))
	w.install()
	both(t, lost.testNS, at(lanOutside4, 80), "outside")
	both(t, lost.testNS, at(other.four, 80), "other")
	all := w.rules.Sandboxes
	w.rules.Sandboxes, w.rules.Closed = all[1:], []string{all[0].Attachments[0].Link}
	w.install()
	for _, address := range []string{at(lanOutside4, 80), at(other.six, 80), at(gateway4, 22)} {
		both(t, lost.testNS, address, "")
	}
	both(t, other.testNS, at(lanOutside4, 80), "outside")
	w.rules.Sandboxes, w.rules.Closed = all, nil
	w.install()
	both(t, lost.testNS, at(lanOutside4, 80), "outside")
}

// To learn the same again changes nothing of the kernel's tables, until it would end too soon.
func TestLearnAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sandbox("web", "front", func(s *Sandbox) { s.Egress = Reach{Default: Deny, Allow: []Rule{{Name: "example.org"}}} })
	w.install()
	changes := func(ttl time.Duration) (n uint32) {
		t.Helper()
		w.host.must(t, func() error {
			before, err := generation()
			if err == nil {
				err = w.table.Learn("web", "example.org", []netip.Addr{netip.MustParseAddr("1.1.1.1")}, ttl)
			}
			after, gerr := generation()
			n = after - before
			return errors.Join(err, gerr)
		})
		return n
	}
	for i, want := range []struct {
		ttl     time.Duration
		changes bool
	}{{time.Hour, true}, {time.Hour, false}, {time.Minute, false}, {2 * time.Hour, true}} {
		if n := changes(want.ttl); (n > 0) != want.changes {
			t.Errorf("%d: %d changes of the kernel's tables", i, n)
		}
	}
	// Nearly an hour later it is told again.
	set := learnedSet("web", "example.org", four)
	w.table.learned[set][netip.MustParseAddr("1.1.1.1")] = time.Now().Add(time.Minute)
	if n := changes(time.Hour); n == 0 {
		t.Error("it ends before its answer does")
	}
}
