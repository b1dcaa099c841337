// SPDX-License-Identifier: Apache-2.0

package sharing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// written is a place on the host that a sandbox may write.
type written struct {
	path, sandbox, field string
	shared               bool
}

// Writes warns of sandboxes that may write one directory or named volume, or one of
// which writes in the other's: a lock that one of them takes does not keep the others
// out, and a database that relies on locks loses data without a word. By sandbox.
func Writes(want *desired.Snapshot) map[string][]actual.Warning {
	var all []written
	for i := range want.Entries {
		sb := want.Entries[i].Sandbox
		if sb.Spec.Suspend {
			continue
		}
		for j := range sb.Spec.Volumes {
			if v := &sb.Spec.Volumes[j]; v.Source() != "" && !v.ReadOnly {
				all = append(all, written{v.Source(), sb.Metadata.Name, fmt.Sprintf("spec.volumes[%d].%s", j, v.SourceField()), v.Shared})
			}
		}
	}
	// What is below a path comes right after it.
	slices.SortStableFunc(all, func(a, b written) int { return cmp.Compare(below(a.path), below(b.path)) })
	out := warnings{map[string][]actual.Warning{}, map[[2]string]bool{}}
	var above []written // those that the next one may be in
	for _, w := range all {
		for len(above) > 0 && !strings.HasPrefix(below(w.path), below(above[len(above)-1].path)) {
			above = above[:len(above)-1]
		}
		for _, o := range above[:min(len(above), maxAbove)] {
			if o.sandbox == w.sandbox || o.shared && w.shared {
				continue
			}
			out.add(w, o)
			out.add(o, w)
		}
		above = append(above, w)
	}
	return out.of
}

// maxAbove bounds what one volume is compared with: hundreds of sandboxes may share one
// directory, and each is told of one of the others.
const maxAbove = 8

// below is what the paths in a directory begin with, and the path itself.
func below(p string) string { return strings.TrimSuffix(p, "/") + "/" }

// warnings are those found so far.
type warnings struct {
	of map[string][]actual.Warning
	// told are the volumes that have one, by sandbox and field.
	told map[[2]string]bool
}

// add tells a sandbox of another one, once for each of its volumes.
func (s *warnings) add(of, other written) {
	volume := [2]string{of.sandbox, of.field}
	if s.told[volume] {
		return
	}
	s.told[volume] = true
	where := "it too"
	if other.path != of.path {
		where = other.path
	}
	s.of[of.sandbox] = append(s.of[of.sandbox], actual.Warning{
		Reason:  actual.WarningSharedWrites,
		Message: fmt.Sprintf("%s: %s is written, and %s writes %s; locks do not hold between sandboxes. Give each its own directory, or set shared: true in both if their programs need no locks", of.field, of.path, other.sandbox, where),
	})
}
