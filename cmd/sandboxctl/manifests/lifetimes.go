// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"fmt"
	"time"

	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
)

// expired warns of sandboxes whose until is over: that is no mistake, they are stopped, but
// nobody would see why they do not start.
func expired(entries []desired.Entry, text func(file string) []byte, now time.Time) (out []desired.Warning) {
	for i := range entries {
		e := &entries[i]
		if u := e.Sandbox.Spec.Until; u != nil && !now.Before(u.Time) {
			name := e.Sandbox.Metadata.Name
			out = append(out, desired.Warning{
				Position: placeOf(e, "spec.until", text), Names: []string{name},
				Message: fmt.Sprintf("%s: spec.until: %s is over; it is stopped, and not started", name, u.Format(time.RFC3339)),
			})
		}
	}
	return out
}

// warnOfExpired tells who applies manifests that sandboxes of them will not run.
func (v verbs) warnOfExpired(ms []manifest) {
	var entries []desired.Entry
	for i := range ms {
		if ms[i].Sandbox != nil {
			entries = append(entries, ms[i].Entry())
		}
	}
	for _, w := range expired(entries, func(string) []byte { return nil }, time.Now()) { // the document is place enough
		fmt.Fprintf(v.Stderr, "warning: %s\n", show.Clean(w.Error()))
	}
}
