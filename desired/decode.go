// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"fmt"
	"slices"

	"sandboxctl.dev/desired/yamldoc"
)

// Document is one document of a manifest file.
type Document struct {
	// Sandbox is defaulted and valid, or nil if the document has problems.
	Sandbox *Sandbox
	// Name is the sandbox it is about, also when it has problems, or "" if
	// that can't be told.
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

// Entry is what a valid document says.
func (d *Document) Entry() Entry {
	return Entry{Sandbox: d.Sandbox, Hash: d.hash, Source: d.Position, Digest: d.digest}
}

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
	if (len(data) > yamldoc.MaxFileBytes || len(chunks) > yamldoc.MaxDocuments) && isForeignAtLength(data) {
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
	yamldoc.SortProblems(problems)
	return docs, problems
}

// duplicates reports names that two documents of one file share.
func duplicates(docs []Document) []Problem {
	var out []Problem
	first := map[string]Position{}
	for _, d := range docs {
		if d.Sandbox == nil {
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
		Message: fmt.Sprintf("sandbox %q is also defined at %s; a name may be defined once, remove one of them", name, other),
	}
}

// decodeDocument decodes one document. nodes is what it cost: how many values the
// parser made of it, or could have made of it if it failed.
func decodeDocument(file string, c yamldoc.Chunk, policy Policy) (_ Document, _ []Problem, nodes int) {
	doc := Document{Position: Position{File: file, Line: c.Line, Column: 1}}
	if doc.Foreign, doc.Name, nodes = isForeign(c.Text); doc.Foreign != "" {
		return doc, nil, nodes
	}
	d := yamldoc.Parse(file, c, ManifestKinds.Wanted())
	if !d.Parsed() {
		doc.Name, doc.Guessed = guessName(c.Text), true
		return doc, ofSandbox(d.Problems(), doc.Name), yamldoc.NodesAtMost(c.Text)
	}
	doc.Name, _ = d.Scalar("metadata", "name")
	doc.Position = d.Position()
	if kind := ManifestKinds.Check(d); kind != nil {
		doc.Sandbox = kind.read(d, policy)
	}
	if len(d.Problems()) > 0 {
		doc.Sandbox = nil
		return doc, ofSandbox(d.Problems(), doc.Name), d.Nodes()
	}
	doc.hash, doc.digest = Hash(doc.Sandbox), digestOf(c.Text)
	return doc, nil, d.Nodes()
}

// readSandbox makes a manifest of a document of its kind. What it returns counts only
// if there is no problem.
func readSandbox(d *yamldoc.Doc, policy Policy) *Sandbox {
	if len(d.Problems()) > 0 {
		validateRest(d, policy)
		return nil
	}
	sb := new(Sandbox)
	if err := d.Decode(sb); err != nil {
		d.Report("", "", err.Error())
		return nil
	}
	Default(sb)
	for _, e := range Validate(sb) {
		d.Report(e.Field, "", e.Message)
	}
	if policy != nil {
		for _, e := range policy.Check(sb) {
			d.Report(e.Field, ReasonPolicyDenied, e.Message)
		}
	}
	return sb
}

// ofSandbox returns the problems as those of one sandbox.
func ofSandbox(ps []Problem, name string) []Problem {
	if !ValidName(name) {
		name = ""
	}
	for i := range ps {
		ps[i].Name = name
	}
	return ps
}

// guessName finds the name in a text that does not parse. A wrong guess shows
// the problem at another sandbox, and does nothing else. It looks at every line
// once: a regular expression would take the better part of a second for 1 MiB.
func guessName(text []byte) string {
	if len(text) > yamldoc.MaxDocumentBytes {
		return ""
	}
	inside := false
	for line := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line, []byte{':'})
		switch {
		case line[0] != ' ' && line[0] != '\t':
			// A key of the top level: metadata, if nothing but a comment follows.
			inside = string(key) == "metadata" && len(yamldoc.WithoutComment(value)) == 0
		case inside && string(bytes.TrimLeft(key, " \t")) == "name":
			if name := string(bytes.Trim(yamldoc.WithoutComment(value), `"'`)); ValidName(name) {
				return name
			}
		}
	}
	return ""
}
