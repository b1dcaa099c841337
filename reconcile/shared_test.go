// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"fmt"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
)

// Two sandboxes that may write one directory are told of each other, unless both say
// that it is shared.
func TestSharedWrites(t *testing.T) {
	t.Parallel()
	writes := func(name string, volumes ...desired.Volume) *desired.Entry {
		return reconciletest.Entry(name, "a", func(s *desired.Spec) { s.Volumes = volumes })
	}
	at := func(path string) desired.Volume { return desired.Volume{Name: "v", MountPath: "/v", HostPath: path} }
	reads, shared := at("/srv/a"), at("/srv/a")
	reads.ReadOnly, shared.Shared = true, true
	named := func(name, sub string) desired.Volume {
		return desired.Volume{Name: "v", MountPath: "/v", Volume: &desired.NamedVolume{Name: name}, SubPath: sub}
	}
	sub := at("/srv")
	sub.SubPath = "a"
	namedShared := named("x", "")
	namedShared.Shared = true
	suspended := writes("b", at("/srv/a"))
	suspended.Sandbox.Spec.Suspend = true
	for name, c := range map[string]struct {
		entries []*desired.Entry
		want    string // name: the volume and where the other writes
	}{
		"one":                     {[]*desired.Entry{writes("a", at("/srv/a")), writes("b", at("/srv/b"))}, ""},
		"two":                     {[]*desired.Entry{writes("a", at("/srv/a")), writes("b", at("/srv/a"))}, "a: spec.volumes[0].hostPath: /srv/a is written, and b writes it too; b: spec.volumes[0].hostPath: /srv/a is written, and a writes it too"},
		"below":                   {[]*desired.Entry{writes("a", at("/srv/a/b/c")), writes("b", at("/srv/a"))}, "a: spec.volumes[0].hostPath: /srv/a/b/c is written, and b writes /srv/a; b: spec.volumes[0].hostPath: /srv/a is written, and a writes /srv/a/b/c"},
		"beside, alike":           {[]*desired.Entry{writes("a", at("/srv/a")), writes("b", at("/srv/a-b")), writes("c", at("/srv/a.b/c")), writes("d", at("/srv/ab"))}, ""},
		"below, others between":   {[]*desired.Entry{writes("a", at("/srv/a")), writes("b", at("/srv/a-b")), writes("c", at("/srv/a/x"))}, "a: spec.volumes[0].hostPath: /srv/a is written, and c writes /srv/a/x; c: spec.volumes[0].hostPath: /srv/a/x is written, and a writes /srv/a"},
		"one reads":               {[]*desired.Entry{writes("a", at("/srv/a")), writes("b", reads)}, ""},
		"both say so":             {[]*desired.Entry{writes("a", shared), writes("b", shared)}, ""},
		"one says so":             {[]*desired.Entry{writes("a", shared), writes("b", at("/srv/a"))}, "a: spec.volumes[0].hostPath: /srv/a is written, and b writes it too; b: spec.volumes[0].hostPath: /srv/a is written, and a writes it too"},
		"one does not run":        {[]*desired.Entry{writes("a", at("/srv/a")), suspended}, ""},
		"twice in one sandbox":    {[]*desired.Entry{writes("a", at("/srv/a"), at("/srv/a/b"))}, ""},
		"sub path":                {[]*desired.Entry{writes("a", sub), writes("b", at("/srv/a"))}, "a: spec.volumes[0].hostPath: /srv/a is written, and b writes it too; b: spec.volumes[0].hostPath: /srv/a is written, and a writes it too"},
		"named":                   {[]*desired.Entry{writes("a", named("x", "")), writes("b", named("x", ""))}, "a: spec.volumes[0].volume: volume x is written, and b writes it too; b: spec.volumes[0].volume: volume x is written, and a writes it too"},
		"named, sub path":         {[]*desired.Entry{writes("a", named("x", "a")), writes("b", named("x", "a/b"))}, "a: spec.volumes[0].volume: volume x/a is written, and b writes volume x/a/b; b: spec.volumes[0].volume: volume x/a/b is written, and a writes volume x/a"},
		"named, one in the other": {[]*desired.Entry{writes("a", named("x", "")), writes("b", named("x", "a"))}, "a: spec.volumes[0].volume: volume x is written, and b writes volume x/a; b: spec.volumes[0].volume: volume x/a is written, and a writes volume x"},
		"named, beside":           {[]*desired.Entry{writes("a", named("x", "a")), writes("b", named("x", "b")), writes("c", named("x-y", "")), writes("d", named("y", "a"))}, ""},
		"named, both say so":      {[]*desired.Entry{writes("a", namedShared), writes("b", namedShared)}, ""},
		"named, and a path":       {[]*desired.Entry{writes("a", named("x", "")), writes("b", at("/x"))}, ""},
		"second volume":           {[]*desired.Entry{writes("a", reads, at("/srv/c")), writes("b", at("/srv/c"))}, "a: spec.volumes[1].hostPath: /srv/c is written, and b writes it too; b: spec.volumes[0].hostPath: /srv/c is written, and a writes it too"},
	} {
		in := input(true, c.entries)
		var got []string
		for _, s := range reconcile.Statuses(in, reconcile.Compute(in)) {
			for _, w := range s.Warnings {
				text, hint, _ := strings.Cut(w.Message, "; ")
				if got = append(got, s.Name+": "+text); w.Reason != "SharedWrites" || !strings.Contains(hint, "shared: true") {
					t.Errorf("%s: %+v", name, w)
				}
			}
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s: %s\nexpected %s", name, s, c.want)
		}
	}
	// Hundreds that share one directory are told of one other each.
	var many []*desired.Entry
	for i := range 300 {
		many = append(many, writes(fmt.Sprintf("s%03d", i), at("/srv/a")))
	}
	in := input(true, many)
	for _, s := range reconcile.Statuses(in, reconcile.Compute(in)) {
		if len(s.Warnings) != 1 {
			t.Errorf("%s: %d warnings", s.Name, len(s.Warnings))
		}
	}
}
