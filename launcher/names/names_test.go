// SPDX-License-Identifier: Apache-2.0

package names

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func at(network string, host string) Attachment {
	third := map[string]string{"front": "1", "back": "2", "quiet": "3"}[network]
	return Attachment{
		Network: network, Address4: addr("10.0." + third + "." + host), Address6: addr("fd00:" + third + "::" + host),
		Gateway4: addr("10.0." + third + ".1"), Gateway6: addr("fd00:" + third + "::1"),
		Subnets:  []netip.Prefix{netip.MustParsePrefix("10.0." + third + ".0/24"), netip.MustParsePrefix("fd00:" + third + "::/64")},
		Internal: network == "back", Isolated: network == "quiet",
	}
}

// town has a sandbox on two networks, two members of a set, a thief of a name, and two
// that may not see each other.
func town() *Directory {
	four := at("front", "9")
	four.Address6 = netip.Addr{}
	return New([]Sandbox{
		{Name: "web", Attachments: []Attachment{at("back", "5"), at("front", "5")}, Aliases: []string{"WWW", "a.b"}},
		{Name: "db", Attachments: []Attachment{at("back", "6")}, Aliases: []string{"database"}},
		{Name: "thief", Attachments: []Attachment{at("back", "7")}, Aliases: []string{"db", "workers", "own"}},
		{Name: "w-0", Sets: []string{"workers"}, Attachments: []Attachment{at("back", "8"), at("front", "8")}},
		{Name: "w-1", Sets: []string{"workers"}, Attachments: []Attachment{four}},
		{Name: "q1", Attachments: []Attachment{at("quiet", "5")}},
		{Name: "q2", Attachments: []Attachment{at("quiet", "6")}},
	})
}

func (d *Directory) sandbox(t *testing.T, name string) *Sandbox {
	t.Helper()
	for _, sb := range d.byAddress {
		if sb.Name == name {
			return sb
		}
	}
	t.Fatalf("no sandbox %s", name)
	return nil
}

func TestLookup(t *testing.T) {
	t.Parallel()
	d := town()
	for _, c := range []struct {
		client, name, want, zone string
		unknown                  bool
	}{
		{"web", "db", "10.0.2.6 fd00:2::6", "db", false},
		{"web", "database", "10.0.2.6 fd00:2::6", "database", false},
		{"web", "db.back", "10.0.2.6 fd00:2::6", "back", false},
		{"web", "db.back.internal", "10.0.2.6 fd00:2::6", "back.internal", false},
		{"web", "back.internal", "", "back.internal", false},
		{"web", "db.front.internal", "", "front.internal", true},
		{"web", "db.front", "", "", true},
		{"web", "own", "10.0.2.7 fd00:2::7", "own", false},
		// The set, not the alias of somebody else; on the first common network.
		{"web", "workers", "10.0.2.8 fd00:2::8", "workers", false},
		{"web", "workers.front", "10.0.1.8 fd00:1::8 10.0.1.9", "front", false},
		{"w-1", "web", "10.0.1.5 fd00:1::5", "web", false},
		{"w-1", "www", "10.0.1.5 fd00:1::5", "www", false},
		{"w-1", "a.b", "10.0.1.5 fd00:1::5", "a.b", false},
		{"w-1", "a.b.front.internal", "10.0.1.5 fd00:1::5", "front.internal", false},
		{"w-1", "db", "", "", true},
		// A network that it has not joined is none of its business, and nobody's domain.
		{"w-1", "db.back.internal", "", "", true},
		{"w-1", "metadata.google.internal", "", "", true},
		{"w-1", "internal", "", "", true},
		{"q1", "q1", "10.0.3.5 fd00:3::5", "q1", false},
		{"q1", "q2", "", "", true},
		{"q1", "q2.quiet.internal", "", "quiet.internal", true},
		{"web", "", "", "", true},
	} {
		f := d.Lookup(d.sandbox(t, c.client), c.name)
		if got := text(f.Addresses); got != c.want || f.Known == c.unknown || f.Zone != c.zone {
			t.Errorf("%s asks for %q: %s, known %t, zone %q; expected %s, zone %q", c.client, c.name, got, f.Known, f.Zone, c.want, c.zone)
		}
	}
}

func text(all []netip.Addr) string {
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func TestReverse(t *testing.T) {
	t.Parallel()
	d := town()
	for _, c := range []struct {
		client, of, name string
		ours             bool
	}{
		{"web", "10.0.2.6", "db.back.internal", true},
		{"web", "fd00:2::6", "db.back.internal", true},
		{"web", "10.0.1.5", "web.front.internal", true},
		{"web", "10.0.2.1", "", true},
		{"w-1", "10.0.2.6", "", false},
		{"q1", "10.0.3.6", "", true},
		{"q1", "10.0.3.5", "q1.quiet.internal", true},
		{"web", "9.9.9.9", "", false},
	} {
		if name, ours := d.Reverse(d.sandbox(t, c.client), addr(c.of)); name != c.name || ours != c.ours {
			t.Errorf("%s asks for %s: %q, %t; expected %q, %t", c.client, c.of, name, ours, c.name, c.ours)
		}
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	d := town()
	if c := d.Client(addr("::ffff:10.0.2.6")); c == nil || c.Name != "db" {
		t.Errorf("a mapped address: %+v", c)
	}
	if c := d.Client(addr("10.0.2.1")); c != nil {
		t.Errorf("a gateway is %s", c.Name)
	}
	if got := text(d.Gateways()); got != "10.0.1.1 10.0.2.1 10.0.3.1 fd00:1::1 fd00:2::1 fd00:3::1" {
		t.Errorf("gateways %s", got)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	d := town()
	want := `127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
10.0.2.5 web.back.internal web web.back shop www a.b
fd00:2::5 web.back.internal web web.back shop www a.b
10.0.1.5 web.front.internal web web.front shop
fd00:1::5 web.front.internal web web.front shop
10.0.2.6 db.back.internal db db.back database
fd00:2::6 db.back.internal db db.back database
10.0.2.7 thief.back.internal thief thief.back own
fd00:2::7 thief.back.internal thief thief.back own
10.0.2.8 w-0.back.internal w-0 w-0.back workers
fd00:2::8 w-0.back.internal w-0 w-0.back workers
10.0.1.8 w-0.front.internal w-0.front
fd00:1::8 w-0.front.internal w-0.front
10.0.1.9 w-1.front.internal w-1 w-1.front
`
	if got := string(NewFiles(d).Hosts(d.sandbox(t, "web"), "shop")); got != want {
		t.Errorf("got\n%s\nexpected\n%s", got, want)
	}
	if got := string(NewFiles(d).Hosts(d.sandbox(t, "w-1"), "w-1")); !strings.Contains(got, "\n10.0.1.9 w-1.front.internal w-1 w-1.front workers\n10.0.1.8 w-0") {
		t.Errorf("IPv4 alone:\n%s", got)
	}
	// What is made for one who has joined the same networks is used again, but not for one
	// who has names of its own, or sees nobody.
	f := NewFiles(d)
	first := string(f.Hosts(d.sandbox(t, "db"), "db"))
	thief := d.sandbox(t, "thief")
	if got := string(f.Hosts(thief, "thief")); !strings.Contains(got, "10.0.2.6 db.back.internal db db.back database\n") || strings.Count(got, "10.0.2.7 ") != 1 || !strings.Contains(first, "10.0.2.7 thief.back.internal thief thief.back own\n") {
		t.Errorf("for a second one:\n%s\nfor the first:\n%s", got, first)
	}
	thief.Extra = []ExtraHost{{addr("10.9.9.9"), []string{"db", "registry"}}, {netip.Addr{}, []string{"host"}}}
	if got := string(f.Hosts(thief, "thief")); !strings.Contains(got, "\n10.9.9.9 db registry\n10.0.2.1 host\nfd00:2::1 host\n") || !strings.Contains(got, "\n10.0.2.6 db.back.internal db.back database\n") {
		t.Errorf("with names of its own:\n%s", got)
	}
	if got := string(f.Hosts(d.sandbox(t, "q1"), "q1")); strings.Contains(got, "q2") {
		t.Errorf("on an isolated network:\n%s", got)
	}
}

// Each name of a hosts file leads where the answerer says.
func TestHostsAgree(t *testing.T) {
	t.Parallel()
	d := town()
	for _, name := range []string{"web", "db", "thief", "w-0", "w-1", "q1"} {
		c := d.sandbox(t, name)
		for _, l := range strings.Split(strings.TrimSpace(string(NewFiles(d).Hosts(c, name))), "\n")[2:] {
			fields := strings.Fields(l)
			for _, n := range fields[1:] {
				// Its own name it has on all networks.
				if f := d.Lookup(c, n); n != name && !slices.Contains(f.Addresses, addr(fields[0])) {
					t.Errorf("%s: %q, and the answer for %s is %s", name, l, n, text(f.Addresses))
				}
			}
		}
	}
}

func TestHostsBound(t *testing.T) {
	t.Parallel()
	all := []Sandbox{}
	for i := range 3000 {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		all = append(all, Sandbox{Name: fmt.Sprintf("s%d", i), Attachments: []Attachment{{Network: "n", Address4: a}}})
	}
	d := New(all)
	got := NewFiles(d).Hosts(d.sandbox(t, "s2999"), "s2999")
	if len(got) > MaxHosts || len(got) < MaxHosts-200 || !strings.HasSuffix(string(got), "\n"+cut) || !strings.Contains(string(got), "s2999") {
		t.Errorf("%d bytes, ending with %q", len(got), got[len(got)-100:])
	}
}

func TestMisleads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		had, now string
		want     bool
	}{
		{"", "10.0.0.1 a\n", false},
		{"10.0.0.1 a\n" + cut, "10.0.0.2 b\n10.0.0.1 a\n", false},
		{"10.0.0.1 a\n", "10.0.0.1 b\n", true},
		{"10.0.0.1 a\n", "", true},
	} {
		if got := Misleads([]byte(c.had), []byte(c.now)); got != c.want {
			t.Errorf("%q, now %q: %t", c.had, c.now, got)
		}
	}
}

func TestExtra(t *testing.T) {
	t.Parallel()
	d := town()
	sb := d.sandbox(t, "web")
	sb.Extra = []ExtraHost{
		{netip.Addr{}, []string{"host.docker.internal"}},
		{addr("10.9.9.9"), []string{"registry", "registry.corp"}},
		{addr("fd09::9"), []string{"registry"}},
		{addr("10.9.9.8"), []string{"db"}}, // before a sandbox of the name
	}
	for name, want := range map[string]string{
		"host.docker.internal": "10.0.1.1 fd00:1::1", "registry": "10.9.9.9 fd09::9", "registry.corp": "10.9.9.9", "db": "10.9.9.8", "db.back": "10.0.2.6 fd00:2::6",
	} {
		if f := d.Lookup(sb, name); text(f.Addresses) != want || !f.Known {
			t.Errorf("%s: %s, expected %s", name, text(f.Addresses), want)
		}
	}
	if f := d.Lookup(d.sandbox(t, "thief"), "registry"); f.Known {
		t.Errorf("another sandbox has it: %v", f)
	}
	if name, ours := d.Reverse(sb, addr("10.9.9.9")); name != "registry" || !ours {
		t.Errorf("10.9.9.9 is %s, %t", name, ours)
	}
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	d := town()
	for _, c := range []struct {
		client          string
		search, options []string
		want            string
	}{
		// The gateway of the network that leads outside.
		{"web", []string{"corp.example", "front.internal"}, []string{"ndots:2", "timeout:1"}, "nameserver 10.0.1.1\nsearch back.internal front.internal corp.example\noptions ndots:2 timeout:1\n"},
		{"db", nil, nil, "nameserver 10.0.2.1\nsearch back.internal\n"},
	} {
		if got := string(ResolvConf(d.sandbox(t, c.client), c.search, c.options)); got != c.want {
			t.Errorf("%s: got\n%s\nexpected\n%s", c.client, got, c.want)
		}
	}
	six := &Sandbox{Name: "six", Attachments: []Attachment{{Network: "n", Address6: addr("fd00::5"), Gateway6: addr("fd00::1")}}}
	if got := string(ResolvConf(six, nil, nil)); got != "nameserver fd00::1\nsearch n.internal\n" {
		t.Errorf("IPv6 alone: %q", got)
	}
	if got := ResolvConf(&Sandbox{}, nil, nil); got != nil {
		t.Errorf("without a network: %q", got)
	}
}
