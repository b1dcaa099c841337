// SPDX-License-Identifier: Apache-2.0

// Package sizes compares what several documents say about the size of one named volume.
package sizes

import (
	"cmp"
	"fmt"
	"slices"

	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// Size is the size that a document gives a named volume.
type Size struct {
	Volume string
	Size   scalar.Bytes
	// By is the full name of the document, Position where it says so.
	By       string
	Position yamldoc.Position
}

// Conflicts tells of documents that give one volume different sizes. That of a Volume
// document counts. Without one, nobody's does.
func Conflicts(sizes []Size) (out []yamldoc.Problem) {
	byVolume := map[string][]*Size{}
	for i := range sizes {
		s := &sizes[i]
		byVolume[s.Volume] = append(byVolume[s.Volume], s)
	}
	for name, all := range byVolume {
		slices.SortStableFunc(all, func(a, b *Size) int { return comparePositions(a.Position, b.Position) })
		// The first one that says something else than the first: who counts the others anew for
		// each takes a square of them.
		differs := slices.IndexFunc(all, func(s *Size) bool { return s.Size != all[0].Size })
		if differs < 0 {
			continue
		}
		declared := slices.IndexFunc(all, func(s *Size) bool { return s.By == objects.Name(objects.Volume, name) })
		for i, s := range all {
			other := declared
			switch {
			case declared >= 0:
			case s.Size == all[0].Size:
				other = differs
			default:
				other = 0
			}
			if i == declared || all[other].Size == s.Size {
				continue
			}
			out = append(out, yamldoc.Problem{
				Position: s.Position, Name: s.By, Field: "size",
				Message: fmt.Sprintf("volume %q has the size %s here and %s at %s; give it one size, in one place", name, s.Size, all[other].Size, all[other].Position),
			})
		}
	}
	yamldoc.SortProblems(out)
	return out
}

func comparePositions(a, b yamldoc.Position) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}
