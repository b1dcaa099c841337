// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/firewall/objects"
)

// nft changes tables of the world's host, as another program would.
func (w *world) nft(fn func(c *nftables.Conn)) {
	w.t.Helper()
	w.host.must(w.t, func() error {
		c, err := connection()
		if err != nil {
			return err
		}
		fn(c)
		return c.Flush()
	})
}

func (w *world) intact(want bool) {
	w.t.Helper()
	if got, err := w.table.Intact(); err != nil || got != want {
		w.t.Errorf("the table is intact: %v, %v; expected %v", got, err, want)
	}
}

// Whatever somebody does to the table is seen, and put right by the next Install; what is
// done to other tables is not ours, and stays.
func TestWatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 1}}
		s.Egress = Reach{Default: Deny, Allow: []Rule{{Name: "example.org"}}}
	})
	serve(t, web.testNS, "web", at("", 80))
	w.install()
	ctx, stop := context.WithCancel(t.Context())
	changed, err := w.table.Watch(ctx)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	// It still reads the table when the test ends. The namespace must not be closed before.
	t.Cleanup(func() {
		stop()
		for range changed {
		}
	})
	told := func(want bool) {
		t.Helper()
		select {
		case <-changed:
			if !want {
				t.Error("told of a change that is none of ours")
			}
		case <-time.After(map[bool]time.Duration{true: 20 * time.Second, false: 3 * settle}[want]):
			if want {
				t.Error("not told")
			}
		}
	}
	told(false)
	// The network that the sandbox is on after the damage.
	next := func() string {
		return map[string]string{"front": "back", "back": "front"}[w.rules.Sandboxes[0].Attachments[0].Network]
	}
	table := w.table.table
	pass := nftables.ChainPolicyAccept
	// Not ours: the table of somebody else, our own Install and what is learned.
	w.nft(func(c *nftables.Conn) {
		other := c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
		c.AddChain(&nftables.Chain{Name: "forward", Table: other, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &pass})
	})
	w.install()
	if err := w.table.Learn("web", "example.org", []netip.Addr{netip.MustParseAddr("9.9.9.9")}, time.Minute); err != nil {
		t.Fatal(err)
	}
	told(false)
	w.intact(true)
	for name, damage := range map[string]func(*nftables.Conn){
		"nft flush ruleset":  func(c *nftables.Conn) { c.FlushRuleset() },
		"a table is removed": func(c *nftables.Conn) { c.DelTable(table) },
		"a table is emptied": func(c *nftables.Conn) { c.FlushTable(table) },
		"a rule is added": func(c *nftables.Conn) {
			c.InsertRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: "refused"}, Exprs: accept()})
		},
		"a map is emptied": func(c *nftables.Conn) { c.FlushSet(&nftables.Set{Table: table, Name: mapEgress}) },
		"a chain is added": func(c *nftables.Conn) { c.AddChain(&nftables.Chain{Table: table, Name: "foreign"}) },
		"a set of another type": func(c *nftables.Conn) {
			_ = c.AddSet(&nftables.Set{Table: table, Name: "members_" + next(), KeyType: nftables.TypeMark, ID: 1}, nil)
		},
		"a table of another version": func(c *nftables.Conn) { c.DelChain(&nftables.Chain{Table: table, Name: layout}) },
	} {
		before := w.table.Losses()
		w.nft(damage)
		w.intact(false)
		told(true)
		w.rules.Sandboxes[0].Attachments[0].Network = next()
		w.install()
		w.intact(true)
		if n := w.table.Losses(); n == before {
			t.Errorf("%d losses, as before", n)
		}
		answers(t, w.outside, "tcp", at(lanHost4, 8080), "web")
		answers(t, web.testNS, "tcp", at(lanOutside4, 80), "")
		if t.Failed() {
			t.Fatal(name)
		}
		for drained := false; !drained; {
			select {
			case <-changed:
			case <-time.After(2 * settle):
				drained = true
			}
		}
	}
}

// Counters go on counting when rules are installed again, also if the table must be made
// anew, and end with their sandbox.
func TestCounters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web-1", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Deny, Allow: []Rule{{Prefix: netip.MustParsePrefix("1.1.1.1/32")}}}
	})
	w.sandbox("two", "front", nil)
	serve(t, w.outside, "outside", at("0.0.0.0", 80))
	// Kernels without work to do speak IPv6 with their neighbors, which is counted too.
	w.host.must(t, func() error {
		return sysctl(map[string]string{"ipv6/conf/sb02/disable_ipv6": "1", "ipv6/conf/sb03/disable_ipv6": "1"})
	})
	for _, g := range w.guests {
		g.must(t, func() error { return sysctl(map[string]string{"ipv6/conf/all/disable_ipv6": "1"}) })
	}
	w.install()
	counts := func() Counts {
		t.Helper()
		all, err := w.table.Counters()
		if err != nil || len(all) != 2 {
			t.Fatal(all, err)
		}
		if all["two"] != (Counts{}) {
			t.Errorf("the other sandbox has %+v", all["two"])
		}
		return all["web-1"]
	}
	answers(t, web.testNS, "udp", "1.1.1.1:80", "outside "+lanHost4)
	first := counts()
	// A question of one byte with its headers, and its answer.
	if first.SentPackets != 1 || first.SentBytes != 29 || first.ReceivedPackets != 1 || first.DeniedPackets != 0 {
		t.Errorf("%+v", first)
	}
	w.install()
	if again := counts(); again != first {
		t.Errorf("%+v after an install, before it %+v", again, first)
	}
	answers(t, web.testNS, "tcp", "1.1.1.2:80", "")
	denied := counts()
	if denied.DeniedPackets != 1 || denied.SentPackets != 2 {
		t.Errorf("%+v", denied)
	}
	// Another layout of the table.
	w.nft(func(c *nftables.Conn) { c.DelChain(&nftables.Chain{Table: w.table.table, Name: layout}) })
	w.install()
	if again := counts(); again != denied {
		t.Errorf("%+v after a change of layout, before it %+v", again, denied)
	}
	w.rules.Sandboxes = w.rules.Sandboxes[:1]
	w.install()
	if all, err := w.table.Counters(); err != nil || len(all) != 1 || all["web-1"] == (Counts{}) {
		t.Errorf("%v %v", all, err)
	}
	for _, name := range []string{"two", "web-1"} { // of one that is not there too
		if err := w.table.Reset(name); err != nil {
			t.Error(err)
		}
	}
	w.intact(true)
	if all, err := w.table.Counters(); err != nil || all["web-1"] != (Counts{}) {
		t.Errorf("after a reset: %v %v", all, err)
	}
}

// Remove takes away the table and nothing else, and can be repeated.
func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sandbox("web", "front", nil)
	w.install()
	w.nft(func(c *nftables.Conn) { c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet}) })
	for range 2 {
		if err := w.table.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	w.host.must(t, func() error {
		c, err := connection()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		if len(tables) != 1 || tables[0].Name != "other" {
			t.Errorf("%d tables are there", len(tables))
		}
		return err
	})
	if all, err := w.table.Counters(); err != nil || len(all) != 0 {
		t.Errorf("counters of no table: %v %v", all, err)
	}
	w.install()
	w.intact(true)
}

// A ruleset that contradicts itself is refused with its reason, and what was installed
// stays.
func TestRefused(t *testing.T) {
	t.Parallel()
	four, gateway := netip.MustParseAddr("10.210.0.2"), netip.MustParseAddr("10.210.0.1")
	sandbox := func(change func(*Sandbox)) Sandbox {
		s := Sandbox{Name: "web", Attachments: []Attachment{{Network: "front", Link: "sb0", Address4: four, Gateway4: gateway}}}
		if change != nil {
			change(&s)
		}
		return s
	}
	other := sandbox(func(s *Sandbox) { s.Name, s.Attachments[0].Link, s.Attachments[0].Address4 = "two", "sb1", four.Next() })
	port := func(p Port) func(*Sandbox) { return func(s *Sandbox) { s.Ports = append(s.Ports, p) } }
	one := Port{Protocol: "tcp", HostPort: 80, To: 80, Count: 1}
	egress := func(r Rule) func(*Sandbox) {
		return func(s *Sandbox) { s.Egress = Reach{Default: Deny, Allow: []Rule{r}} }
	}
	ingress := func(r Rule) func(*Sandbox) {
		return func(s *Sandbox) { s.Ingress = Reach{Default: Deny, Allow: []Rule{r}} }
	}
	for want, sandboxes := range map[string][]Sandbox{
		"expected a name that no other":                {sandbox(nil), sandbox(nil)},
		`sandbox "-": expected`:                        {sandbox(func(s *Sandbox) { s.Name = "-" })},
		"link sb1 belongs to two and to web":           {other, sandbox(func(s *Sandbox) { s.Attachments[0].Link = "sb1" })},
		"address 10.210.0.3 belongs to two and to web": {other, sandbox(func(s *Sandbox) { s.Attachments[0].Address4 = four.Next() })},
		"no name of a link":                            {sandbox(func(s *Sandbox) { s.Attachments[0].Link = "abcdefghijklmnop" })},
		"no name of a network":                         {sandbox(func(s *Sandbox) { s.Attachments[0].Network = "a b" })},
		"is not of its family":                         {sandbox(func(s *Sandbox) { s.Attachments[0].Address6 = netip.MustParseAddr("::ffff:10.0.0.1") })},
		"no address on front":                          {sandbox(func(s *Sandbox) { s.Attachments[0].Address4 = netip.Addr{} })},
		`protocol "sctp"`:                              {sandbox(port(Port{Protocol: "sctp", HostPort: 80, To: 80, Count: 1}))},
		"2 ports from 65535 to 80":                     {sandbox(port(Port{Protocol: "tcp", HostPort: 65535, To: 80, Count: 2}))},
		"port 80 of the host (tcp, IPv4) is published by two and by web": {
			sandbox(port(one)), sandbox(func(s *Sandbox) { *s = other; s.Ports = []Port{one} }),
		},
		"no address of that family":           {sandbox(port(Port{Protocol: "tcp", HostIP: netip.MustParseAddr("::1"), HostPort: 80, To: 80, Count: 1}))},
		"ingress can't be public":             {sandbox(func(s *Sandbox) { s.Ingress.Default = Public })},
		`egress is "some"`:                    {sandbox(func(s *Sandbox) { s.Egress.Default = "some" })},
		"a rule is about 0 things":            {sandbox(egress(Rule{Port: 1}))},
		"a rule is about 2 things":            {sandbox(egress(Rule{Name: "a.b", Sandbox: "two"}))},
		"10.1.2.3/8 is no prefix":             {sandbox(egress(Rule{Prefix: netip.MustParsePrefix("10.1.2.3/8")}))},
		"-1 connections":                      {sandbox(func(s *Sandbox) { s.Connections = -1 })},
		"all of the host":                     {sandbox(egress(Rule{Host: true}))},
		"ingress: a rule is about a DNS name": {sandbox(ingress(Rule{Name: "a.b"}))},
	} {
		if _, err := compile(&Ruleset{Sandboxes: sandboxes}, objects.Kind); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %s", err, want)
		}
	}
	// The order of sandboxes means nothing.
	a, err := compile(&Ruleset{Sandboxes: []Sandbox{sandbox(port(one)), other}}, objects.Kind)
	if err != nil {
		t.Fatal(err)
	}
	b, err := compile(&Ruleset{Sandboxes: []Sandbox{other, sandbox(port(one))}}, objects.Kind)
	if err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("not the same rules: %v", err)
	}

	w := newWorld(t)
	w.sandbox("web", "front", nil)
	w.install()
	if err := w.table.Install(t.Context(), &Ruleset{Sandboxes: []Sandbox{sandbox(nil), sandbox(nil)}}); err == nil {
		t.Error("installed")
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := w.table.Install(ended, &Ruleset{}); !errors.Is(err, context.Canceled) {
		t.Errorf("an operation that has ended installs rules: %v", err)
	}
	w.intact(true)
}

// A kernel that lacks something is told what, by the option of its configuration. This one
// lacks nothing.
func TestLacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host.must(t, func() error {
		if missing := lacks(attempt); len(missing) > 0 {
			t.Errorf("lacks %v", missing)
		}
		return nil
	})
	without := func(what string) func(feature) error {
		return func(f feature) error {
			if strings.HasPrefix(f.what, what) {
				return fmt.Errorf("receive: %w", unix.ENOENT)
			}
			return nil
		}
	}
	if got := lacks(without("nft_fib_inet")); !reflect.DeepEqual(got, []string{"nft_fib_inet (CONFIG_NFT_FIB_INET)"}) {
		t.Errorf("%v", got)
	}
	if got := lacks(without("n")); len(got) != 1 {
		t.Errorf("without nftables: %v", got)
	}
	if got := lacks(func(feature) error { return unix.EPERM }); got != nil {
		t.Errorf("without permission: %v", got)
	}
	// The kernel itself is asked, and refuses what it does not know.
	err := w.host.Do(func() error {
		return attempt(feature{rule: rule{&expr.Lookup{SourceRegister: first, SetName: "missing"}}})
	})
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, expected ENOENT", err)
	}
}

// many is a ruleset of sandboxes that publish a port and have rules.
func many(n int) *Ruleset {
	r := &Ruleset{}
	for i := range n {
		r.Sandboxes = append(r.Sandboxes, Sandbox{
			Name: fmt.Sprintf("sandbox-%d", i),
			Attachments: []Attachment{{
				Network: "default", Link: fmt.Sprintf("sb%d", i), Address4: netip.AddrFrom4([4]byte{10, 210, byte(i >> 8), byte(i)}), Gateway4: netip.MustParseAddr("10.210.255.1"),
			}},
			Ports:  []Port{{Protocol: "tcp", HostPort: uint16(10000 + i), To: 80, Count: 1}},
			Egress: Reach{Default: Public, Allow: []Rule{{Sandbox: "sandbox-0"}, {Name: "example.org", Port: 443}}},
		})
	}
	return r
}

// What it costs to install rules where there are none that are known, and those of one
// sandbox that comes or goes among many.
func BenchmarkInstall(b *testing.B) {
	for _, n := range []int{1, 50, 200} {
		ns, r := newNS(b), []*Ruleset{many(n), many(n + 1)}
		install := func(b *testing.B, table *Table, r *Ruleset) {
			b.Helper()
			if err := table.Install(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("all=%d", n), func(b *testing.B) {
			for b.Loop() {
				table, err := Open(ns, "sandboxctl-bench")
				if err != nil {
					b.Fatal(err)
				}
				install(b, table, r[0])
			}
		})
		b.Run(fmt.Sprintf("one=%d", n), func(b *testing.B) {
			table, err := Open(ns, "sandboxctl-bench")
			if err != nil {
				b.Fatal(err)
			}
			install(b, table, r[0])
			for i := 1; b.Loop(); i++ {
				install(b, table, r[i%2])
			}
		})
	}
}
