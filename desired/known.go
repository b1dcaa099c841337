// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"slices"

	"sandboxctl.dev/desired/textdigest"
	"sandboxctl.dev/desired/yamldoc"
)

// recall returns what Known has of a document, nil if it must be decoded.
func recall(known func(string) *Entry, file string, c yamldoc.Chunk) *Entry {
	digest := textdigest.Of(c.Text)
	if known == nil || digest == "" {
		return nil
	}
	line, ok := yamldoc.FirstKey(c.Text)
	if !ok {
		return nil
	}
	e := known(digest)
	// Where a size is, only the text tells.
	if e == nil || slices.ContainsFunc(e.Sandbox.Spec.Volumes, func(v Volume) bool { return v.Volume != nil && v.Volume.Size > 0 }) {
		return nil
	}
	e.Source = Position{File: file, Line: c.Line + line, Column: 1}
	e.Digest = digest
	return e
}
