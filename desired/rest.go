// SPDX-License-Identifier: Apache-2.0

package desired

import "sandboxctl.dev/desired/yamldoc"

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
		if !yamldoc.Touches(bad, e.Field) && !(e.Missing && yamldoc.Besides(bad, e.Field)) {
			d.Report(e.Field, "", e.Message)
		}
	}
	if policy == nil {
		return
	}
	for _, e := range policy.Check(sb) {
		// What is missing may only be misspelt.
		if d.Has(e.Field) && !yamldoc.Touches(bad, e.Field) {
			d.Report(e.Field, ReasonPolicyDenied, e.Message)
		}
	}
}
