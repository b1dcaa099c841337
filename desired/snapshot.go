// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"slices"
)

// Entry is one valid sandbox of a snapshot.
type Entry struct {
	// Sandbox is defaulted and valid. It is shared: do not modify it.
	Sandbox *Sandbox
	// Hash is the versioned spec hash (see Hash).
	Hash string
	// Source is where the document begins.
	Source Position
	// Digest identifies the text of the document and the build of the program
	// that decoded it, "" if that can't be told.
	Digest string
}

// Position is a place in a manifest file. File is relative to the manifests
// directory; Line and Column count from 1, 0 means unknown.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
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

// Problem is one thing wrong with a manifest file or with the directory.
type Problem struct {
	Position
	// Name is the sandbox the problem belongs to, "" when it cannot be told.
	Name string `json:"name,omitempty"`
	// Field is the path of the field, as in spec.volumes[1].hostPath.
	Field string `json:"field,omitempty"`
	// Reason is ReasonPolicyDenied for what the host policy does not allow.
	Reason string `json:"reason,omitempty"`
	// Message says what is wrong, what was expected and what to do.
	Message string `json:"message"`

	limit bool // a limit was exceeded
	// opaque says that it can't be told what is there: it may define any sandbox.
	opaque bool
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

// Warning is something to know of a file that keeps nothing from being done.
type Warning struct {
	Position
	Message string `json:"message"`

	names []string // of the documents it is about
}

// Error gives "file:line:column: message".
func (w Warning) Error() string { return w.Position.String() + ": " + w.Message }

// Snapshot is what the manifests directory says at one moment. It is a value:
// nobody modifies it after Load has returned it.
type Snapshot struct {
	// Entries are the valid sandboxes, sorted by name; names are unique.
	Entries []Entry
	// Problems are sorted by file, line, column.
	Problems []Problem
	// Warnings are sorted by file.
	Warnings []Warning
	// Complete says that the absence of a name is the author's wish: the
	// directory was listed whole, is the one that was there before, every
	// file parsed and the absence was stable.
	Complete bool
	// Gone are the names whose absence is the author's wish although files have
	// problems: none of these can be about them. Sorted.
	Gone []string
	// Reason (CamelCase) and Message say why Complete is false.
	Reason  string
	Message string
	// Policy is what the manifests were judged by, nil if by none: then no
	// policy was asked for, or Reason is ReasonPolicyUnusable.
	Policy *HostPolicy
	// Digest changes whenever anything above does.
	Digest string
}

// Removed says that the author of the directory has removed the manifest of a
// sandbox, which was last defined by file. Only then may it be destroyed because its
// manifest is missing.
func (s *Snapshot) Removed(name, file string) bool {
	if s.Lookup(name) != nil || s.disowned(name, file) {
		return false
	}
	_, gone := slices.BinarySearch(s.Gone, name)
	return s.Complete || gone
}

// disowned says whether the file that defined a sandbox now has a document of its
// name that is for another program: one word of it may be mistyped.
func (s *Snapshot) disowned(name, file string) bool {
	for i := range s.Warnings {
		if w := &s.Warnings[i]; w.File == file && slices.Contains(w.names, name) {
			return true
		}
	}
	return false
}

// Lookup returns the entry of a name, or nil.
func (s *Snapshot) Lookup(name string) *Entry {
	lo, hi := 0, len(s.Entries)
	for lo < hi {
		mid := (lo + hi) / 2
		if s.Entries[mid].Sandbox.Metadata.Name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(s.Entries) && s.Entries[lo].Sandbox.Metadata.Name == name {
		return &s.Entries[lo]
	}
	return nil
}
