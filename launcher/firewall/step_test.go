// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// contents is all that the kernel has of a table, without the numbers that it gives things,
// and without what was learned.
func contents(ns *testNS, table string) (out []string, err error) {
	err = ns.Do(func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.Close()
		read := func(kind uint16, tell func(netlink.Message) error, more ...netlink.Attribute) error {
			m, err := request(kind, unix.NFPROTO_INET, append([]netlink.Attribute{name(firstAttribute, table)}, more...)...)
			if err != nil {
				return err
			}
			m.Header.Flags |= netlink.Dump
			reply, err := c.Execute(m)
			for _, r := range reply {
				if err == nil && text(r, firstAttribute) == table {
					err = tell(r)
				}
			}
			return err
		}
		// those are the attributes that are the same wherever the table was made.
		those := func(what string, kinds ...uint16) func(netlink.Message) error {
			return func(m netlink.Message) error {
				for _, k := range kinds {
					what += fmt.Sprintf(" %q", attributes(m)[k])
				}
				out = append(out, what)
				return nil
			}
		}
		if err := read(unix.NFT_MSG_GETCHAIN, func(m netlink.Message) error {
			return those("chain", unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE)(m)
		}); err != nil {
			return err
		}
		order := map[string]int{}
		if err := read(unix.NFT_MSG_GETRULE, func(m netlink.Message) error {
			chain := text(m, unix.NFTA_RULE_CHAIN)
			order[chain]++
			return those(fmt.Sprintf("rule %d", order[chain]), unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS)(m)
		}); err != nil {
			return err
		}
		if err := read(unix.NFT_MSG_GETOBJ, func(m netlink.Message) error {
			return those("object", unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE)(m)
		}); err != nil {
			return err
		}
		var sets []string
		if err := read(unix.NFT_MSG_GETSET, func(m netlink.Message) error {
			if attributes(m)[unix.NFTA_SET_TIMEOUT] == nil {
				sets = append(sets, text(m, unix.NFTA_SET_NAME))
			}
			return those("set", unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_USERDATA)(m)
		}); err != nil {
			return err
		}
		for _, s := range sets {
			if err := read(unix.NFT_MSG_GETSETELEM, func(m netlink.Message) error {
				list, err := netlink.UnmarshalAttributes(attributes(m)[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
				for _, e := range list {
					out = append(out, fmt.Sprintf("element of %s %q", s, e.Data))
				}
				return err
			}, name(unix.NFTA_SET_ELEM_LIST_SET, s)); err != nil {
				return err
			}
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// From any ruleset to any other one, steps leave the table that is made of the last one
// alone, and never read it.
func TestStep(t *testing.T) {
	t.Parallel()
	there, beside := newNS(t), newNS(t)
	table, err := Open(there, "sandboxctl-test")
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Install(t.Context(), many(2)); err != nil {
		t.Fatal(err)
	}
	looks, steps := table.looks, 0
	rapid.Check(t, func(rt *rapid.T) {
		r := drawRuleset(rt)
		if r == nil {
			return
		}
		anew, err := Open(beside, "sandboxctl-test")
		if err != nil {
			rt.Fatal(err)
		}
		for _, install := range []func() error{
			func() error { return table.Install(t.Context(), r) },
			anew.Remove,
			func() error { return anew.Install(t.Context(), r) },
		} {
			if err := install(); err != nil {
				rt.Fatal(err)
			}
		}
		got, err := contents(there, "sandboxctl-test")
		if err != nil {
			rt.Fatal(err)
		}
		want, err := contents(beside, "sandboxctl-test")
		if err != nil {
			rt.Fatal(err)
		}
		for _, line := range got {
			if !slices.Contains(want, line) {
				rt.Errorf("too much: %s", line)
			}
		}
		for _, line := range want {
			if !slices.Contains(got, line) {
				rt.Errorf("missing: %s", line)
			}
		}
		if len(got) != len(want) || len(got) < 50 {
			rt.Errorf("%d things, expected %d", len(got), len(want))
		}
		if err := there.Do(func() error {
			_, has, err := look("sandboxctl-test", kept(table.installed))
			if err == nil && !table.installed.is(has) {
				rt.Errorf("the table is not taken for that of its program")
			}
			return err
		}); err != nil {
			rt.Fatal(err)
		}
		if table.looks != looks {
			rt.Fatalf("the table was read, as if somebody else had changed it")
		}
		steps++
	})
	if steps < 10 {
		t.Errorf("%d steps: this test sees nothing", steps)
	}
}

// A sandbox that comes or goes among many costs what it costs alone: as many messages to the
// kernel, and no look at the table.
func TestStepCost(t *testing.T) {
	t.Parallel()
	come, gone := map[int]int{}, map[int]int{}
	for _, n := range []int{1, 200} {
		ns := newNS(t)
		table, err := Open(ns, "sandboxctl-test")
		if err != nil {
			t.Fatal(err)
		}
		var c *netlink.Conn
		ns.must(t, func() error {
			if c, err = dial(); err != nil {
				return err
			}
			return c.JoinGroup(unix.NFNLGRP_NFTABLES)
		})
		t.Cleanup(func() { _ = c.Close() })
		// told is what the kernel tells of a change: every thing that was made or removed.
		told := func(r *Ruleset) (things int) {
			t.Helper()
			if err := table.Install(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			for {
				if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				messages, err := c.Receive()
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range messages {
					if uint16(m.Header.Type)&0xff == unix.NFT_MSG_NEWGEN { // the last one
						return things
					}
					things++
				}
			}
		}
		if all := told(many(n)); all < 20*n {
			t.Errorf("%d things of %d sandboxes: this test sees nothing", all, n)
		}
		looks := table.looks
		come[n], gone[n] = told(many(n+1)), told(many(n))
		if table.looks != looks {
			t.Errorf("the table of %d was read %d times", n, table.looks-looks)
		}
		if err := table.Install(t.Context(), many(n)); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if messages, err := c.Receive(); err == nil {
			t.Errorf("%d messages of rules that are in force", len(messages))
		}
	}
	if come[1] != come[200] || gone[1] != gone[200] || come[1] > 40 || gone[1] > 40 {
		t.Errorf("one sandbox more: %v things, one less: %v; expected at most 40, among 200 as many as beside one", come, gone)
	}
}

// What somebody else does is found out by the generation of the rules. Of other tables it
// costs one look; of ours it is put right, also by rules that are in force already.
func TestStepBeside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.sandbox("web", "front", func(s *Sandbox) { s.Egress = Reach{Default: Deny, Allow: []Rule{{Name: "example.org"}}} })
	w.sandbox("two", "front", nil)
	serve(t, w.outside, "outside", at("", 80))
	both := w.rules
	one := Ruleset{Sandboxes: both.Sandboxes[:1]}
	// install says how often the table was read.
	install := func(r *Ruleset) int {
		t.Helper()
		looks := w.table.looks
		if err := w.table.Install(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		w.intact(true)
		return w.table.looks - looks
	}
	reads := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: the table was read %d times, expected %d", what, got, want)
		}
	}
	others := 0
	other := func(c *nftables.Conn) {
		others++
		c.AddTable(&nftables.Table{Name: fmt.Sprint("other", others), Family: nftables.TableFamilyINet})
	}
	learn := func() {
		t.Helper()
		if err := w.table.Learn("web", "example.org", []netip.Addr{netip.MustParseAddr("1.1.1.1")}, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	reads("the first", install(&both), 1)
	learn()
	reads("a step behind what was learned", install(&one), 0)
	answers(t, web.testNS, "tcp", "1.1.1.1:80", "outside")

	w.table.know()
	w.nft(other)
	w.intact(true)
	w.nft(other)
	reads("a step behind a change of another table", install(&both), 1)

	// Nobody knows what it looked like.
	w.nft(other)
	w.intact(false)
	reads("all", install(&both), 2)
	answers(t, web.testNS, "tcp", "1.1.1.1:80", "outside")

	want, err := contents(w.host, "sandboxctl-test")
	if err != nil {
		t.Fatal(err)
	}
	for what, damage := range map[string]func(*nftables.Conn){
		"a chain is emptied": func(c *nftables.Conn) {
			c.FlushChain(&nftables.Chain{Table: w.table.table, Name: "egress_web"})
		},
		"a set is emptied": func(c *nftables.Conn) { c.FlushSet(&nftables.Set{Table: w.table.table, Name: setLinks}) },
		"it is removed":    func(c *nftables.Conn) { c.DelTable(w.table.table) },
	} {
		w.nft(damage)
		reads(what+", and is known to be", install(&both), 2)
		got, err := contents(w.host, "sandboxctl-test")
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %d things of %d are there again: %v", what, len(got), len(want), err)
		}
	}
	for what, change := range map[string]func(*nftables.Conn){
		"nothing":            other,
		"a chain is emptied": func(c *nftables.Conn) { c.FlushChain(&nftables.Chain{Table: w.table.table, Name: "egress_web"}) },
		"a set is emptied":   func(c *nftables.Conn) { c.FlushSet(&nftables.Set{Table: w.table.table, Name: setLinks}) },
		"it is removed":      func(c *nftables.Conn) { c.DelTable(w.table.table) },
		// As many rules as before.
		"rules change places": func(c *nftables.Conn) {
			ch := longest(w.table.installed)
			c.FlushChain(&nftables.Chain{Table: w.table.table, Name: ch.name})
			for _, r := range slices.Backward(ch.rules) {
				c.AddRule(&nftables.Rule{Table: w.table.table, Chain: &nftables.Chain{Name: ch.name}, Exprs: []expr.Any(r)})
			}
		},
		"a rule is another one": func(c *nftables.Conn) {
			ch := longest(w.table.installed)
			c.FlushChain(&nftables.Chain{Table: w.table.table, Name: ch.name})
			for range ch.rules {
				c.AddRule(&nftables.Rule{Table: w.table.table, Chain: &nftables.Chain{Name: ch.name}, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
			}
		},
	} {
		install(&one)
		install(&both) // a step, which nobody has read yet
		losses := w.table.Losses()
		w.nft(change)
		w.intact(false)
		if lost := w.table.Losses() > losses; lost != (what != "nothing") {
			t.Errorf("%s behind a step: a loss: %t", what, lost)
		}
		install(&both)
	}
	learn()
	install(&one)
	w.nft(func(c *nftables.Conn) { c.FlushTable(w.table.table) })
	w.intact(false)
	reads("it is damaged, and nobody knows", install(&one), 2)
	answers(t, web.testNS, "tcp", "1.1.1.1:80", "outside")
	answers(t, web.testNS, "tcp", "1.1.1.2:80", "")
}

// longest is the chain with most rules.
func longest(p *program) *chain {
	return slices.MaxFunc(p.chains, func(a, b *chain) int { return len(a.rules) - len(b.rules) })
}
