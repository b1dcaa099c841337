// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"net/netip"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/netns"
)

// An address is one sandbox's, and its link is gone when it is stopped. The record keeps
// both.
func TestNetworks(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	host, err := netns.New()
	must(t, err)
	defer host.Close()
	sandbox, err := netns.New()
	must(t, err)
	defer sandbox.Close()
	w := newWorld(t)
	at := actual.Attachment{
		Network: "default", Link: links.Name(w.rec.UID, 0), Interface: "eth0", MTU: 1500,
		Subnet4: netip.MustParsePrefix("10.210.0.0/24"), Address4: netip.MustParseAddr("10.210.0.9"),
	}
	w.rec.Attachments = []actual.Attachment{at}
	w.put()
	expect := func(kinds ...Kind) {
		t.Helper()
		must(t, host.Do(func() error { w.expect(Options{Settled: true}, kinds...); return nil }))
	}
	expect()
	a := &links.Attachment{
		Sandbox: "web", Link: at.Link, Guest: at.Interface, MTU: at.MTU, Address4: at.Address4, Gateway4: netip.MustParseAddr("10.210.0.1"),
	}
	must(t, host.Do(func() error { return links.Attach(sandbox, a) }))
	expect(LeftoverLink)
	must(t, host.Do(func() error { return links.Remove(at.Link) }))
	expect()
	other := w.rec.Clone()
	other.Name, other.UID = "db", actual.NewUID()
	must(t, w.store.Claim("db"))
	must(t, w.store.Put(other))
	expect(DuplicateAddress)
	other.Attachments = nil
	must(t, w.store.Put(other))
	expect()
}
