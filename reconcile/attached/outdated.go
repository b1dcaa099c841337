// SPDX-License-Identifier: Apache-2.0

package attached

import (
	"fmt"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
)

// plain is the network default without a document.
var plain = func() *networks.Declared {
	d := &networks.Declared{}
	d.Fill()
	return d
}()

// Declared is what a network is to be, nil if that is not known: it has no document, or that
// can't be read. Nobody changes it. The network default is one without a document too, if it
// is certain that there is none.
func Declared(want *desired.Snapshot, name string) *networks.Declared {
	if d := document(want.Objects, name); d != nil || name != networks.DefaultName || !Whole(want) {
		return d
	}
	return plain
}

// document is Objects.Network without an allocation: each pass looks for each sandbox.
func document(docs desired.Objects, name string) *networks.Declared {
	i, found := slices.BinarySearchFunc(docs, name, func(o desired.Object, name string) int {
		rest, is := strings.CutPrefix(o.Name(), prefix)
		if !is {
			return strings.Compare(o.Name(), prefix)
		}
		return strings.Compare(rest, name)
	})
	if !found {
		return nil
	}
	return docs[i].Network
}

// prefix is that of the full names of networks.
var prefix = objects.Name(objects.Network, "")

// Whole says that a network without a document has none: that of no network can't be read.
func Whole(want *desired.Snapshot) bool {
	if !want.Complete {
		return false
	}
	for i := range want.Problems {
		kind, _, known := objects.Split(want.Problems[i].Name)
		if want.Problems[i].Name == "" || known && kind == objects.Network {
			return false
		}
	}
	return true
}

// Outdated says what a sandbox has of its networks that their documents say otherwise by now,
// and that only another start changes: its addresses, its MTU and its default route are what
// its network stack was started with. It is "" if there is nothing. What is only rules of the
// host changes beside it.
func Outdated(want *desired.Snapshot, rec *actual.Record) string {
	return strings.Join(outdated(want, rec, ""), "; ")
}

// OutdatedOn is Outdated of one network.
func OutdatedOn(network string, want *desired.Snapshot, rec *actual.Record) string {
	return strings.Join(outdated(want, rec, network), "; ")
}

// outdated is about one network, or about all.
func outdated(want *desired.Snapshot, rec *actual.Record, only string) (out []string) {
	way, had, known := -1, -1, true
	for i := range rec.Attachments {
		a := &rec.Attachments[i]
		if a.Default {
			had = i
		}
		d := Declared(want, a.Network)
		if d == nil {
			known = false
			continue
		}
		if way < 0 && !d.Internal {
			way = i
		}
		if differs := differing(a, d); differs != "" && (only == "" || only == a.Network) {
			out = append(out, "network "+a.Network+": "+differs)
		}
	}
	// Where nothing leads outside any more the route that it has leads to a refusal.
	if known && way >= 0 && way != had && (only == "" || only == rec.Attachments[way].Network) {
		out = append(out, "network "+rec.Attachments[way].Network+": its default route leads there by now")
	}
	return out
}

func differing(a *actual.Attachment, d *networks.Declared) string {
	p4, p6 := d.Prefix4(), d.Prefix6()
	switch {
	case p4.IsValid() && p4 != a.Subnet4:
		return fmt.Sprintf("its subnet is %s by now, and was %s", p4, a.Subnet4)
	case !*d.IPv6 && a.Subnet6.IsValid():
		return fmt.Sprintf("it has no IPv6 by now, and had %s", a.Subnet6)
	case *d.IPv6 && a.NoIPv6:
		return "it has IPv6 by now"
	case p6.IsValid() && a.Subnet6.IsValid() && p6 != a.Subnet6:
		return fmt.Sprintf("its IPv6 subnet is %s by now, and was %s", p6, a.Subnet6)
	case d.MTU != a.MTU:
		return fmt.Sprintf("its MTU is %d by now, and was %d", d.MTU, a.MTU)
	}
	return ""
}
