// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
)

// Connections end when rules become stricter or their sandbox is gone, also if that
// happened while no daemon ran; those of others go on, and all do where rules stay or
// become looser.
func TestJudge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web, db := w.mustChoose("web", networks.Network{}), w.mustChoose("db", networks.Network{})
	for _, r := range []*actual.Record{web, db} {
		r.Phase = actual.PhaseRunning
		r.Spec = []byte(`{"spec":{"network":{"mode":"bridge"}}}`)
		if err := w.k.store.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	of := func(r *actual.Record) netip.Addr { return r.Attachments[0].Address4 }
	// open has both be connected with a machine outside.
	open := func() {
		t.Helper()
		err := w.ns.Do(func() error {
			for i, a := range []netip.Addr{of(web), of(db)} {
				there, here := net.IP{192, 0, 2, 9}, net.IP(a.AsSlice())
				port := uint16(1000 + i)
				if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
					FamilyType: unix.AF_INET, TimeOut: 600, ProtoInfo: &netlink.ProtoInfoTCP{State: 3},
					Forward: netlink.IPTuple{SrcIP: here, DstIP: there, SrcPort: port, DstPort: 443, Protocol: unix.IPPROTO_TCP},
					Reverse: netlink.IPTuple{SrcIP: there, DstIP: here, SrcPort: 443, DstPort: port, Protocol: unix.IPPROTO_TCP},
				}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// install has the rules be there, and says whose connections are left.
	install := func(want map[string]*networks.Network) (left string) {
		t.Helper()
		w.k.Want(want, map[string]bool{"web": true, "db": true})
		if err := w.ns.Do(func() error {
			if err := w.k.rules.Do(); err != nil {
				return err
			}
			all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			if err != nil {
				return err
			}
			for _, f := range all {
				switch a, _ := netip.AddrFromSlice(f.Forward.SrcIP); a.Unmap() {
				case of(web):
					left += "web "
				case of(db):
					left += "db "
				}
			}
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, everything{}); err != nil {
				return err
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return left
	}
	one := func(n networks.Network) map[string]*networks.Network {
		n.Mode = networks.Bridge
		n.Fill()
		return map[string]*networks.Network{"web": &n}
	}
	both := func(s string) bool { return s == "web db " || s == "db web " }
	restarted := func() {
		k, err := New(w.k.store, lookEvery, w.k.log)
		if err != nil {
			t.Fatal(err)
		}
		w.k = k
	}
	port := networks.Port{ContainerPort: 80, HostPort: 8080}
	tight := &networks.Reach{Default: networks.Deny, Allow: []string{"192.0.2.0/24"}}
	install(nil)
	for i, step := range []struct {
		network networks.Network
		restart bool
		ends    bool
	}{
		{network: networks.Network{Ports: []networks.Port{port}}},
		{network: networks.Network{}, ends: true},
		{network: networks.Network{Egress: &networks.Reach{Default: networks.Deny}}, ends: true},
		{network: networks.Network{Egress: tight}},
		{network: networks.Network{Egress: tight}, restart: true},
		{network: networks.Network{Egress: &networks.Reach{Default: networks.Deny, Allow: []string{"192.0.2.0/25"}}}, restart: true, ends: true},
		{network: networks.Network{}},
		{network: networks.Network{Ingress: &networks.Reach{Default: networks.Deny}}, ends: true},
	} {
		if step.restart {
			restarted()
		}
		open()
		switch left := install(one(step.network)); {
		case step.ends && left != "db ":
			t.Errorf("step %d: connections of %q are left, expected those of db", i, left)
		case !step.ends && !both(left):
			t.Errorf("step %d: connections of %q are left, expected all", i, left)
		}
	}
	// Somebody has removed the rules, or added one: what began meanwhile was let through by
	// nobody. Which sandbox that was is not known.
	for what, damage := range map[string]func(c *nftables.Conn, table *nftables.Table){
		"removed": func(c *nftables.Conn, table *nftables.Table) { c.DelTable(table) },
		"changed": func(c *nftables.Conn, table *nftables.Table) {
			c.InsertRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: "refused"}, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
		},
	} {
		for _, noticed := range []bool{true, false} {
			// A program that has installed all rules knows what the table looks like.
			restarted()
			install(one(networks.Network{}))
			if err := w.ns.Do(func() error {
				c, err := nftables.New()
				if err != nil {
					return err
				}
				damage(c, &nftables.Table{Name: Table(w.k.store.Marker()), Family: nftables.TableFamilyINet})
				return c.Flush()
			}); err != nil {
				t.Fatal(err)
			}
			open()
			want := one(networks.Network{})
			if noticed {
				w.k.forget()
			} else {
				want = one(networks.Network{Egress: tight}) // a change for another reason
			}
			if left := install(want); left != "" {
				t.Errorf("connections of %q are left that began while rules were %s", left, what)
			}
			open()
			if left := install(want); !both(left) {
				t.Errorf("connections of %q are left after they were judged, expected all", left)
			}
			install(one(networks.Network{}))
		}
	}
	// What can't be read may have said anything.
	if err := os.WriteFile(filepath.Join(w.k.store.Path(), JudgedFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	restarted()
	open()
	if left := install(one(networks.Network{})); left != "" {
		t.Errorf("connections of %q are left of unknown rules", left)
	}
	// A sandbox that has ended.
	web.Phase = actual.PhaseStopped
	if err := w.k.store.Put(web); err != nil {
		t.Fatal(err)
	}
	open()
	if left := install(one(networks.Network{})); left != "db " {
		t.Errorf("connections of %q are left, expected those of db", left)
	}
	// And one that is started at the same address before rules were looked at.
	open()
	if err := w.ns.Do(func() error { return w.k.endAll(db) }); err != nil {
		t.Fatal(err)
	}
	if left := install(one(networks.Network{})); left != "web " {
		t.Errorf("connections of %q are left, expected those of web", left)
	}
}

// everything matches all connections.
type everything struct{}

func (everything) MatchConntrackFlow(*netlink.ConntrackFlow) bool { return true }

// Connections of an address are looked for in the whole table of the kernel where somebody may
// have had some; of one that nobody had, what others have sent there is ended all the same.
func TestUnused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	round := func() {
		t.Helper()
		if err := w.ns.Do(w.k.rules.Do); err != nil {
			t.Fatal(err)
		}
	}
	start := func(want bool) *actual.Record {
		t.Helper()
		rec := w.mustChoose("web", networks.Network{})
		if got := w.k.fresh["web"]; got != want {
			t.Errorf("its addresses were unused: %v, expected %v", got, want)
		}
		rec.Phase, rec.Spec = actual.PhaseRunning, []byte(`{"spec":{"network":{"mode":"bridge"}}}`)
		w.put(rec)
		return rec
	}
	stopped := func(rec *actual.Record) {
		rec.Phase = actual.PhaseStopped
		w.put(rec)
	}
	connected := func(rec *actual.Record) (n int) {
		t.Helper()
		there, here := net.IP{192, 0, 2, 9}, net.IP(rec.Attachments[0].Address4.AsSlice())
		if err := w.ns.Do(func() error {
			if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
				FamilyType: unix.AF_INET, TimeOut: 600, ProtoInfo: &netlink.ProtoInfoTCP{State: 3},
				Forward: netlink.IPTuple{SrcIP: there, DstIP: here, SrcPort: 1, DstPort: 443, Protocol: unix.IPPROTO_TCP},
				Reverse: netlink.IPTuple{SrcIP: here, DstIP: there, SrcPort: 443, DstPort: 1, Protocol: unix.IPPROTO_TCP},
			}); err != nil {
				return err
			}
			if err := w.k.endAll(rec); err != nil {
				return err
			}
			all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			n = len(all)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	rec := start(false) // what was before this program is not known yet
	round()
	stopped(rec)
	rec = start(false) // no round has seen that it had ended
	if n := connected(rec); n != 0 {
		t.Errorf("%d connections of the run before are left", n)
	}
	stopped(rec)
	round()
	rec = start(true)
	if n := connected(rec); n != 0 {
		t.Errorf("%d connections are left to an address that nobody had", n)
	}
	if _, kept := w.k.fresh["web"]; kept {
		t.Error("what is known of its addresses counts for the next start too")
	}
	w.k.fresh["failed"] = true
	round()
	if len(w.k.fresh) > 0 {
		t.Errorf("kept of starts that have failed: %v", w.k.fresh)
	}
	if err := os.WriteFile(filepath.Join(w.k.store.Path(), JudgedFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	next, err := New(w.k.store, lookEvery, w.k.log)
	if err != nil {
		t.Fatal(err)
	}
	w.k = next
	round()
	stopped(rec)
	round()
	start(false) // who had it is not known
}

// The rules of the last sandbox stay until its connections have ended and that is on record:
// without them these would go on, judged by nobody, and use timeouts that go with the table.
func TestRulesOutlastConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runs("web")
	round := func() (err error) {
		t.Helper()
		if derr := w.ns.Do(func() error {
			err = w.k.rules.Do()
			return nil
		}); derr != nil {
			t.Fatal(derr)
		}
		return err
	}
	there := func() (is bool) {
		t.Helper()
		if err := w.ns.Do(func() (err error) {
			is, err = w.k.table.There()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return is
	}
	if err := round(); err != nil || !there() {
		t.Fatal("no rules: ", err)
	}
	w.gone("web")
	// What can't be written down is not done.
	file := filepath.Join(w.k.store.Path(), JudgedFile)
	if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := round(); err == nil || !there() {
		t.Errorf("%v; the rules are there: %t", err, there())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.k.leaving = true
	if err := round(); err != nil || there() {
		t.Errorf("%v; the rules are there: %t", err, there())
	}
}
