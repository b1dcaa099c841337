// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"cmp"
	"slices"

	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/sizes"
	"sandboxctl.dev/desired/yamldoc"
)

// Why the manifests directory is not complete. Nothing is stopped because of what is
// not in it. (The comments are a table of docs/reference/status.md.)
const (
	// It is not there: mount it, or make it.
	ReasonDirectoryMissing = "DirectoryMissing"
	// It can't be listed.
	ReasonDirectoryUnreadable = "DirectoryUnreadable"
	// Another directory is in its place and holds no manifest: mount the right one, put a
	// manifest there, or start the daemon with `--allow-empty`.
	ReasonDirectoryReplaced = "DirectoryReplaced"
	// A file has problems: `sandboxctl validate` lists them.
	ReasonInvalidManifests = "InvalidManifests"
	// Something is being written, or disappeared a moment ago.
	ReasonUnsettled = "Unsettled"
	// Others than root could write it, or a directory above: `chown root`, `chmod go-w`.
	ReasonDirectoryUntrusted = "DirectoryUntrusted"
	// The host policy can't be read, or others than root could write it. Nothing is created,
	// changed or stopped.
	ReasonPolicyUnusable = "PolicyUnusable"
)

// Of a problem, and of a sandbox.
const (
	// The host policy does not allow what the manifest asks for: what runs is left
	// running, and nothing is started.
	ReasonPolicyDenied = "PolicyDenied"
)

// Entry is one valid sandbox of a snapshot.
type Entry struct {
	// Sandbox is defaulted and valid. It is shared: do not modify it.
	Sandbox *Sandbox
	// Hash is the versioned spec hash (see Hash).
	Hash string
	// Source is where the document begins.
	Source Position
	// Objects are those of the snapshot that a start was decided by, for that start.
	Objects Objects
	// Digest identifies the text of the document and the build of the program
	// that decoded it, "" if that can't be told.
	Digest string
	// Claim is set if a claim stands for the sandbox, which is made of the template of a pool
	// where records are known (package reconcile/expand).
	Claim *Claim
}

// Objects are documents that sandboxes refer to, sorted by full name.
type Objects []Object

// Lookup returns the one of a full name, nil if there is none.
func (os Objects) Lookup(name string) *Object {
	i, found := slices.BinarySearchFunc(os, name, func(o Object, name string) int { return cmp.Compare(o.Name(), name) })
	if !found {
		return nil
	}
	return &os[i]
}

// Position is a place in a manifest file. File is relative to the manifests
// directory.
type Position = yamldoc.Position

// Problem is one thing wrong with a manifest file or with the directory. Its Name is
// the sandbox it belongs to; its Reason is ReasonPolicyDenied for what the host policy
// does not allow. An opaque one may be about any sandbox.
type Problem = yamldoc.Problem

// Warning is something to know of a file that keeps nothing from being done.
type Warning struct {
	Position
	// What there is to know.
	Message string `json:"message"`

	// Exposed says that it is about who may read the file, which is not ignored.
	Exposed bool `json:"-"`
	// Names are those of the documents it is about.
	Names []string `json:"-"`
}

// Error gives "file:line:column: message".
func (w Warning) Error() string { return w.Position.String() + ": " + w.Message }

// Snapshot is what the manifests directory says at one moment. It is a value:
// nobody modifies it after Load has returned it.
type Snapshot struct {
	// Entries are the valid sandboxes, sorted by name; names are unique.
	Entries []Entry
	// Objects are the valid documents that sandboxes refer to, sorted by full name;
	// names are unique.
	Objects Objects
	// Sizes are those that documents give named volumes, by file.
	Sizes []sizes.Size
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
	Policy Policy
}

// Bounds are those of the policy, none if there is none.
func (s *Snapshot) Bounds() Bounds {
	if s.Policy == nil {
		return Bounds{}
	}
	return s.Policy.Bounds()
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
	return slices.ContainsFunc(s.Warnings, func(w Warning) bool { return w.File == file && slices.Contains(w.Names, name) })
}

// Lookup returns the entry of a name, or nil.
func (s *Snapshot) Lookup(name string) *Entry {
	i, found := slices.BinarySearchFunc(s.Entries, name, func(e Entry, name string) int { return cmp.Compare(e.Sandbox.Metadata.Name, name) })
	if !found {
		return nil
	}
	return &s.Entries[i]
}

// FileFor returns the manifest file that defines a full name, and whether one does;
// otherwise where a new manifest of that name belongs.
func FileFor(s *Snapshot, name string) (file string, defined bool) {
	if e := s.Lookup(name); e != nil {
		return e.Source.File, true
	}
	if o := s.Objects.Lookup(name); o != nil {
		return o.Source.File, true
	}
	for _, p := range s.Problems {
		if p.Name == name && p.File != "" {
			return p.File, true
		}
	}
	return OwnFile(name), false
}

// OwnFile is where the document of a full name belongs that no file defines.
func OwnFile(name string) string {
	if kind, n, ok := objects.Split(name); ok {
		// No name has a dot: it is no file of a sandbox.
		return n + "." + objects.Word(kind) + ".yaml"
	}
	return name + ".yaml"
}
