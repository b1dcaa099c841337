// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/firewall/stricter"
	"sandboxctl.dev/launcher/links"
)

// The link of a sandbox that runs and whose record is lost is closed, also by the next
// daemon, until it is there no more.
func TestClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.mustChoose("web", networks.Network{})
	rec.Phase, rec.Spec = actual.PhaseRunning, []byte(`{"spec":{"network":{"mode":"bridge"}}}`)
	if err := w.k.store.Put(rec); err != nil {
		t.Fatal(err)
	}
	link := rec.Attachments[0].Link
	if link == "" {
		link = links.Name(rec.UID, 0)
	}
	in := func(f func() error) {
		t.Helper()
		if err := w.ns.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	closed := func(want ...string) {
		t.Helper()
		in(w.k.rules.Do)
		if got := w.k.installed.Closed; !slices.Equal(got, want) {
			t.Errorf("closed: %v, expected %v", got, want)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	in(func() error { return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "other"}) })
	closed()
	if err := w.k.store.Remove("web"); err != nil {
		t.Fatal(err)
	}
	closed(link)
	closed(link)
	next, err := New(w.k.store, lookEvery, w.k.log)
	if err != nil {
		t.Fatal(err)
	}
	w.k = next
	closed(link)
	in(func() error {
		l, err := netlink.LinkByName(link)
		if err == nil {
			err = netlink.LinkDel(l)
		}
		return err
	})
	closed()
}

// That the table was gone while no daemon ran is on record before it is there again: it is known
// also to the daemon after one that was killed before it had ended a connection.
func TestForeseeLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.mustChoose("web", networks.Network{})
	rec.Phase, rec.Spec = actual.PhaseRunning, []byte(`{"spec":{"network":{"mode":"bridge"}}}`)
	w.put(rec)
	if err := w.ns.Do(w.k.rules.Do); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []bool{false, true} {
		if gone {
			if err := w.ns.Do(w.k.table.Remove); err != nil {
				t.Fatal(err)
			}
		}
		next := w.next()
		if err := w.ns.Do(func() error {
			next.knowJudged(nil)
			return next.foresee(&firewall.Ruleset{Sandboxes: next.judged.Sandboxes})
		}); err != nil {
			t.Fatal(err)
		}
		after := w.next()
		after.knowJudged(nil)
		if after.judged.Lost != gone || len(after.judged.Sandboxes) != 1 {
			t.Errorf("the table was gone: %t; on record: %+v", gone, after.judged)
		}
	}
}

// Rules by which connections may begin are on record before they are in force: those that
// come after them, also with the next daemon, end what they do not allow.
func TestForesee(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.mustChoose("web", networks.Network{})
	rec.Phase, rec.Spec = actual.PhaseRunning, []byte(`{"spec":{"network":{"mode":"bridge"}}}`)
	if err := w.k.store.Put(rec); err != nil {
		t.Fatal(err)
	}
	wide, tight := &networks.Network{Mode: networks.Bridge}, &networks.Network{Mode: networks.Bridge, Egress: &networks.Reach{Default: networks.Deny}}
	wide.Fill()
	tight.Fill()
	rules := func(n *networks.Network) *firewall.Ruleset {
		r, _ := ruleset([]*actual.Record{rec}, map[string]*networks.Network{"web": n}, nil)
		return r
	}
	w.k.knowJudged(nil)
	w.k.judged.Sandboxes = rules(tight).Sandboxes
	if err := w.k.foresee(rules(wide)); err != nil { // and is killed before it judges
		t.Fatal(err)
	}
	next, err := New(w.k.store, lookEvery, w.k.log)
	if err != nil {
		t.Fatal(err)
	}
	next.knowJudged(nil)
	if got := stricter.Forbidden(next.judged.Sandboxes, rules(tight).Sandboxes); len(got) == 0 {
		t.Errorf("connections go on that the rules of %+v do not allow", next.judged.Sandboxes)
	}
	if got := stricter.Forbidden(next.judged.Sandboxes, rules(wide).Sandboxes); len(got) != 0 {
		t.Errorf("connections of %v end, which are allowed", got)
	}
}
