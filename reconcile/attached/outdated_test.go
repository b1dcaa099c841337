// SPDX-License-Identifier: Apache-2.0

package attached

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// snapshot is one with Network documents, by name.
func snapshot(t *testing.T, specs map[string]string) *desired.Snapshot {
	t.Helper()
	s := &desired.Snapshot{Complete: true}
	for name, spec := range specs {
		docs, ps := desired.Decode("n.yaml", []byte("apiVersion: "+desired.APIVersion+"\nkind: Network\nmetadata: {name: "+name+"}\nspec: "+spec+"\n"))
		if len(ps) > 0 {
			t.Fatal(ps)
		}
		s.Objects = append(s.Objects, desired.Object{Object: docs[0].Object, Declared: docs[0].Declared, Source: docs[0].Position})
	}
	slices.SortFunc(s.Objects, func(a, b desired.Object) int { return strings.Compare(a.Name(), b.Name()) })
	return s
}

// on is a record of a sandbox that was started on networks with default documents.
func on(names ...string) *actual.Record {
	rec := &actual.Record{Name: "web", UID: "u", Phase: actual.PhaseRunning}
	for i, name := range names {
		rec.Attachments = append(rec.Attachments, actual.Attachment{
			Network: name, MTU: 1500, Default: i == 0,
			Subnet4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 208, byte(16 * i), 0}), 20),
			Subnet6: netip.MustParsePrefix("fd5b::/64"),
		})
	}
	return rec
}

// What only another start changes is told; what is a rule of the host is not, and neither is
// what nobody has decided on.
func TestOutdated(t *testing.T) {
	t.Parallel()
	back := func(spec string) map[string]string { return map[string]string{"back": spec} }
	without6 := on("back")
	without6.Attachments[0].Subnet6 = netip.Prefix{}
	refused6 := on("back")
	refused6.Attachments[0].Subnet6, refused6.Attachments[0].NoIPv6 = netip.Prefix{}, true
	inside := on("back")
	inside.Attachments[0].Default = false
	second := on("front", "back")
	second.Attachments[0].Default, second.Attachments[1].Default = false, true
	for _, c := range []struct {
		what string
		docs map[string]string
		rec  *actual.Record
		want string
	}{
		{"the same", back("{}"), on("back"), ""},
		{"no document", nil, on("back"), ""},
		{"another network's document", map[string]string{"front": "{mtu: 1400}"}, on("back"), ""},
		{"its own subnet", back("{subnet: 10.208.0.0/20}"), on("back"), ""},
		{"another subnet", back("{subnet: 10.44.0.0/24}"), on("back"), "its subnet is 10.44.0.0/24 by now, and was 10.208.0.0/20"},
		{"another IPv6 subnet", back("{subnet6: 'fd44::/64'}"), on("back"), "its IPv6 subnet is fd44::/64 by now"},
		{"no IPv6 any more", back("{ipv6: false}"), on("back"), "it has no IPv6 by now"},
		{"IPv6 by now", back("{ipv6: true}"), refused6, "it has IPv6 by now"},
		{"a kernel without IPv6", back("{ipv6: true, subnet6: 'fd44::/64'}"), without6, ""},
		{"MTU", back("{mtu: 1400}"), on("back"), "its MTU is 1400 by now, and was 1500"},
		{"isolation", back("{isolation: true}"), on("back"), ""},
		{"internal by now", back("{internal: true}"), on("back"), ""},
		{"not internal any more", back("{internal: false}"), inside, "its default route leads there by now"},
		{"the first of two is internal by now", map[string]string{"front": "{internal: true}", "back": "{}"}, on("front", "back"), "network back: its default route leads there by now"},
		{"the first of two is not internal any more", map[string]string{"front": "{}", "back": "{}"}, second, "network front: its default route"},
		{"one of two without a document", back("{}"), on("front", "back"), ""},
		{"default without a document", nil, on("default"), ""},
	} {
		got := Outdated(snapshot(t, c.docs), c.rec)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, expected %q", c.what, got, c.want)
		}
	}
	want := snapshot(t, map[string]string{"front": "{mtu: 1400}", "back": "{mtu: 1300}"})
	if got := OutdatedOn("back", want, on("front", "back")); !strings.Contains(got, "1300") || strings.Contains(got, "1400") {
		t.Errorf("of one network: %q", got)
	}
	if got := Warn(nil, want, nil, on("back")); len(got) != 1 || got[0].Reason != actual.WarningNetworkOutdated || strings.Contains(got[0].Message, "sandboxctl restart") || !strings.Contains(got[0].Message, "`sandboxctl plan`") {
		t.Errorf("%+v", got)
	}
	stopped := on("back")
	stopped.Phase = actual.PhaseStopped
	if got := Warn(nil, want, nil, stopped); len(got) != 0 {
		t.Errorf("of a stopped one: %+v", got)
	}
}

// The network default is a plain one only where it is certain that it has no document.
func TestDeclared(t *testing.T) {
	t.Parallel()
	s := snapshot(t, map[string]string{"back": "{internal: true}"})
	if d := Declared(s, "back"); d == nil || !d.Internal {
		t.Errorf("%+v", d)
	}
	if Declared(s, "other") != nil {
		t.Error("a network that nobody declares")
	}
	if d := Declared(s, "default"); d == nil || d.Internal || d.MTU != 1500 {
		t.Errorf("%+v", d)
	}
	for name, known := range map[string]bool{"web": true, "config/default": true, "network/default": false, "network/other": false, "": false} {
		s.Problems = []desired.Problem{{Name: name}}
		if d := Declared(s, "default"); (d != nil) != known {
			t.Errorf("with a problem of %q: %+v", name, d)
		}
	}
	s.Problems, s.Complete = nil, false
	if d := Declared(s, "default"); d != nil {
		t.Errorf("of a directory that is not whole: %+v", d)
	}
}

// Each pass looks at each sandbox: that costs no memory.
func TestOutdatedAllocates(t *testing.T) {
	same, rec := snapshot(t, map[string]string{"back": "{}"}), on("back", "default")
	if n := testing.AllocsPerRun(100, func() { Outdated(same, rec) }); n > 0 {
		t.Errorf("%v allocations where nothing has changed", n)
	}
}
