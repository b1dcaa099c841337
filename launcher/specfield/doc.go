// SPDX-License-Identifier: Apache-2.0

// Package specfield decides for every field of the OCI runtime specification
// what this program does with it: it honours the field, refuses it, or ignores it
// for a reason that is written down. No field is dropped in silence.
//
// The table is the only place of that decision. Check refuses by it, the page
// docs/reference/spec-fields.md is printed from it, and a test compares it with the types of
// the specification, so that a field that a new version adds has to be decided on
// before anything is released with that version.
package specfield
