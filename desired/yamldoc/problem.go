// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"cmp"
	"fmt"
	"slices"
)

// Position is a place in a file.
type Position struct {
	// The file.
	File string `json:"file"`
	// The line, from 1; 0 means unknown.
	Line int `json:"line,omitempty"`
	// The column, from 1; 0 means unknown.
	Column int `json:"column,omitempty"`
}

// String gives file:line:column, as compilers print it.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one thing wrong with a file or a document in it.
type Problem struct {
	Position
	// The sandbox that the document is about, if that can be told.
	Name string `json:"name,omitempty"`
	// The path of the field, as in `spec.volumes[1].hostPath`.
	Field string `json:"field,omitempty"`
	// `PolicyDenied`, or nothing.
	Reason string `json:"reason,omitempty"`
	// What is wrong, what was expected and what to do.
	Message string `json:"message"`

	// Limit says that a limit was exceeded. The rest of such a file is not worth
	// reading.
	Limit bool `json:"-"`
	// Opaque says that it can't be told what is in the file.
	Opaque bool `json:"-"`
}

// Error gives "file:line:column: field: message".
func (p Problem) Error() string {
	s := p.Position.String()
	if s != "" {
		s += ": "
	}
	if p.Field != "" {
		s += p.Field + ": "
	}
	return s + p.Message
}

// SortProblems sorts by file, line, column and field.
func SortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Field, b.Field))
	})
}
