// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"slices"

	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/sizes"
	"sandboxctl.dev/desired/textdigest"
	"sandboxctl.dev/desired/yamldoc"
)

// Document is one document of a manifest file.
type Document struct {
	// Sandbox is defaulted and valid, or nil if the document has problems or is of
	// another kind.
	Sandbox *Sandbox
	// Claim is set if a claim stands for the sandbox. Sandbox is what can be told of it without
	// the pool.
	Claim *Claim
	// Object is a valid document of another kind, or nil.
	Object *objects.Object
	Declared
	// Sizes are those that a valid document gives named volumes.
	Sizes []sizes.Size
	// Name is what it is about, also when it has problems, or "" if that can't be told:
	// the name of a sandbox, or the full name of another document.
	Name string
	// Guessed says that the document can't be parsed and Name is a guess.
	Guessed bool
	// Foreign says what the document is if it is for another program. It has no
	// problems then.
	Foreign string
	// Position is where the document begins.
	Position Position

	hash, digest string // of a valid one
}

// Declared is what a document says beside values: nil but for that of its kind.
type Declared struct {
	Volume  *VolumeSpec
	Network *networks.Declared
	Pool    *PoolSpec
}

// Entry is what a valid document says.
func (d *Document) Entry() Entry {
	return Entry{Sandbox: d.Sandbox, Hash: d.hash, Source: d.Position, Digest: d.digest, Claim: d.Claim}
}

// Valid says whether the document says something that counts.
func (d *Document) Valid() bool { return d.Sandbox != nil || d.Object != nil }

// Decoder reads manifest files.
type Decoder struct {
	// Policy judges the manifests: what it does not allow is a Problem with
	// ReasonPolicyDenied. Nil allows everything.
	Policy Policy
	// Known returns the entry that the same build of this program made of a
	// document with the digest given, if that is on record. It may be nil.
	Known func(digest string) *Entry
}

// Decode reads all documents of one manifest file, YAML or JSON, on a host without
// a policy. file is used in positions only. The problems are all there are, in order
// of position.
func Decode(file string, data []byte) ([]Document, []Problem) { return Decoder{}.Decode(file, data) }

// Decode reads all documents of one manifest file, as the function of this name.
func (dec Decoder) Decode(file string, data []byte) ([]Document, []Problem) {
	chunks, p := yamldoc.Chunks(file, data)
	if (len(data) > yamldoc.MaxFileBytes || len(chunks) > yamldoc.MaxDocuments) && program.ForeignAtLength(data) {
		// It is too much to be looked at, and nothing in it can be a manifest.
		return []Document{{Position: Position{File: file, Line: 1, Column: 1}, Foreign: "a large file"}}, nil
	}
	switch {
	case p != nil:
		return nil, []Problem{*p}
	case len(chunks) == 0:
		return nil, []Problem{{Position: Position{File: file, Line: 1, Column: 1}, Message: fmt.Sprintf("the file is empty; expected at least one document with %s (remove the file to remove its sandboxes)", ManifestKinds.Wanted())}}
	case len(chunks) > yamldoc.MaxDocuments:
		return nil, []Problem{{
			Position: Position{File: file, Line: chunks[yamldoc.MaxDocuments].Line, Column: 1},
			Message:  fmt.Sprintf("the file has more than %d documents; split it", yamldoc.MaxDocuments),
		}}
	}
	known := dec.Known
	if yamldoc.NodesAtMost(data) > yamldoc.MaxFileNodes {
		// What is recalled is not counted, and who recalls nothing must come to
		// the same result.
		known = nil
	}
	var docs []Document
	var problems []Problem
	nodes := 0
	for _, c := range chunks {
		// What is denied is decoded all the same, to tell where.
		if e := recall(known, file, c); e != nil && (dec.Policy == nil || len(dec.Policy.Check(e.Sandbox)) == 0) {
			docs = append(docs, Document{Sandbox: e.Sandbox, Name: e.Sandbox.Metadata.Name, Position: e.Source, hash: e.Hash, digest: e.Digest})
			continue
		}
		if nodes > yamldoc.MaxFileNodes {
			problems = append(problems, Problem{
				Position: Position{File: file, Line: c.Line, Column: 1},
				Message:  fmt.Sprintf("the documents up to here have more than %d values; split the file", yamldoc.MaxFileNodes),
			})
			break
		}
		doc, ps, n := decodeDocument(file, c, dec.Policy)
		nodes += n
		docs = append(docs, doc)
		problems = append(problems, ps...)
		// A document over a limit costs the most and is not made by mistake: the
		// rest of such a file is not read.
		if len(problems) >= yamldoc.MaxProblems || slices.ContainsFunc(ps, func(p Problem) bool { return p.Limit }) {
			break
		}
	}
	problems = append(problems, duplicates(docs)...)
	var given []sizes.Size
	for i := range docs {
		given = append(given, docs[i].Sizes...)
	}
	problems = append(problems, sizes.Conflicts(given)...)
	yamldoc.SortProblems(problems)
	return docs, problems
}

// duplicates reports names that two documents of one file share.
func duplicates(docs []Document) []Problem {
	var out []Problem
	first := map[string]Position{}
	for _, d := range docs {
		if !d.Valid() {
			continue
		}
		if p, ok := first[d.Name]; ok {
			out = append(out, DuplicateProblem(d.Position, d.Name, p))
			continue
		}
		first[d.Name] = d.Position
	}
	return out
}

// DuplicateProblem tells of two definitions of one name.
func DuplicateProblem(at Position, name string, other Position) Problem {
	return Problem{
		Position: at, Name: name, Field: "metadata.name",
		Message: fmt.Sprintf("%s is also defined at %s; a name may be defined once, remove one of them", Described(name), other),
	}
}

// Described is a full name for a sentence: sandbox "web" or Config "web".
func Described(name string) string {
	if kind, n, ok := objects.Split(name); ok {
		return fmt.Sprintf("%s %q", kind, n)
	}
	return fmt.Sprintf("sandbox %q", name)
}

// decodeDocument decodes one document. nodes is what it cost: how many values the
// parser made of it, or could have made of it if it failed.
func decodeDocument(file string, c yamldoc.Chunk, policy Policy) (_ Document, _ []Problem, nodes int) {
	doc := Document{Position: Position{File: file, Line: c.Line, Column: 1}}
	if doc.Foreign, doc.Name, nodes = program.Foreign(c.Text); doc.Foreign != "" {
		return doc, nil, nodes
	}
	d := yamldoc.Parse(file, c, ManifestKinds.Wanted())
	if !d.Parsed() {
		top, _ := yamldoc.TopLevel(c.Text)
		doc.Name, doc.Guessed = fullName(top["kind"], yamldoc.GuessName(c.Text, ValidName)), true
		return doc, about(d.Problems(), doc.Name), yamldoc.NodesAtMost(c.Text)
	}
	name, _ := d.Scalar("metadata", "name")
	word, _ := d.Scalar("kind")
	doc.Name, doc.Position = fullName(word, name), d.Position()
	if kind := ManifestKinds.Check(d); kind != nil {
		kind.read(d, policy, &doc)
	}
	if len(d.Problems()) > 0 {
		doc.Sandbox, doc.Claim, doc.Object, doc.Declared, doc.Sizes = nil, nil, nil, Declared{}, nil
		return doc, about(d.Problems(), doc.Name), d.Nodes()
	}
	if doc.Sandbox != nil {
		doc.hash = Hash(doc.Sandbox)
		doc.noteSizes(d, doc.Sandbox.Spec.Volumes, "spec")
		if doc.Claim == nil { // what is made of one depends on more than its text
			doc.digest = textdigest.Of(c.Text)
		}
	}
	return doc, nil, d.Nodes()
}

// fullName is the name of a document of a kind, among all kinds.
func fullName(kind, name string) string {
	if slices.Contains(objects.Kinds, kind) && name != "" {
		return objects.Name(kind, name)
	}
	return name
}

// readSandbox makes a manifest of a document of its kind.
func readSandbox(d *yamldoc.Doc, policy Policy, doc *Document) {
	if len(d.Problems()) > 0 {
		validateRest(d, policy)
		return
	}
	sb := new(Sandbox)
	if err := d.Decode(sb); err != nil {
		d.Report("", "", err.Error())
		return
	}
	Default(sb)
	report(d, append(Validate(sb), Lacks(sb)...), "")
	if policy != nil {
		report(d, policy.Check(sb), ReasonPolicyDenied)
	}
	doc.Sandbox = sb
}

// ValidFullName says whether a text is a name of a sandbox, or the full name of a
// document of another kind.
func ValidFullName(s string) bool {
	if _, name, ok := objects.Split(s); ok {
		return ValidName(name)
	}
	return ValidName(s)
}

// about returns the problems as those of one document.
func about(ps []Problem, name string) []Problem {
	if !ValidFullName(name) {
		name = ""
	}
	for i := range ps {
		ps[i].Name = name
	}
	return ps
}
