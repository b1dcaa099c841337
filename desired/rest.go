// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strings"

	"sandboxctl.dev/desired/yamldoc"
)

// validateRest validates what is left of a document without the fields that
// have problems already, so that its author sees everything at once. The
// result is never used.
func validateRest(d *yamldoc.Doc, policy Policy) {
	bad := make(map[string]bool, len(d.Problems()))
	for _, p := range d.Problems() {
		bad[p.Field] = true
	}
	if bad["kind"] || bad["apiVersion"] || bad[""] {
		return
	}
	sb := new(Sandbox)
	if err := d.DecodeRest(bad, sb); err != nil {
		return
	}
	Default(sb)
	for _, e := range append(Validate(sb), Lacks(sb)...) {
		if !touches(bad, e.Field) && !(e.Missing && besides(bad, e.Field)) {
			d.Report(e.Field, "", e.Message)
		}
	}
	if policy == nil {
		return
	}
	for _, e := range policy.Check(sb) {
		// What is missing may only be misspelt.
		if d.Has(e.Field) && !touches(bad, e.Field) {
			d.Report(e.Field, ReasonPolicyDenied, e.Message)
		}
	}
}

// touches says whether a path is, is in, or contains one of the bad ones.
func touches(bad map[string]bool, path string) bool {
	for b := range bad {
		if within(path, b) || within(b, path) {
			return true
		}
	}
	return false
}

// besides says whether something next to a field is bad. A field that is
// missing there was most likely misspelt.
func besides(bad map[string]bool, path string) bool {
	parent := path[:max(strings.LastIndexByte(path, '.'), 0)]
	for b := range bad {
		if b[:max(strings.LastIndexByte(b, '.'), 0)] == parent {
			return true
		}
	}
	return false
}

func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
