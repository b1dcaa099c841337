// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Limits of what is parsed. They are checked before the parser sees a byte.
const (
	MaxFileBytes     = 1 << 20
	MaxDocumentBytes = 64 << 10
	MaxDocuments     = 1000
	maxDepth         = 32
	maxNodes         = 4000
	maxProblems      = 100 // of one file; then the rest is not looked at
)

// Document is one document of a manifest file.
type Document struct {
	// Sandbox is defaulted and valid, or nil if the document has problems.
	Sandbox *Sandbox
	// Name is the sandbox it is about, also when it has problems, or "" if
	// that can't be told.
	Name string
	// Position is where the document begins.
	Position Position

	hash, digest string // of a valid one
}

// Decode reads all documents of one manifest file, YAML or JSON. file is used
// in positions only. The problems are all there are, in order of position.
func Decode(file string, data []byte) ([]Document, []Problem) { return decode(file, data, nil, nil) }

// DecodeFor is Decode on a host with a policy: what the policy does not allow
// is a Problem with ReasonPolicyDenied.
func DecodeFor(policy *HostPolicy, file string, data []byte) ([]Document, []Problem) {
	return decode(file, data, policy, nil)
}

// chunksOf cuts a file into its documents, if it is text of a size that is
// worth it.
func chunksOf(file string, data []byte) ([]chunk, *Problem) {
	fail := func(line, col int, format string, args ...any) ([]chunk, *Problem) {
		return nil, &Problem{Position: Position{File: file, Line: line, Column: col}, Message: fmt.Sprintf(format, args...)}
	}
	if len(data) > MaxFileBytes {
		return fail(1, 1, "the file has %d bytes, at most %d are allowed; split it", len(data), MaxFileBytes)
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return fail(1, 1, "the file begins with a byte order mark; save it as UTF-8 without one")
	}
	if i := badByte(data); i >= 0 {
		line, col := 1+bytes.Count(data[:i], []byte{'\n'}), i-bytes.LastIndexByte(data[:i], '\n')
		return fail(line, col, "expected UTF-8 text without control characters, got byte 0x%02x", data[i])
	}
	return split(data), nil
}

func decode(file string, data []byte, policy *HostPolicy, known func(digest string) *Entry) ([]Document, []Problem) {
	chunks, p := chunksOf(file, data)
	switch {
	case p != nil:
		return nil, []Problem{*p}
	case len(chunks) == 0:
		return nil, []Problem{{Position: Position{file, 1, 1}, Message: fmt.Sprintf("the file is empty; expected at least one document with kind: %s (remove the file to remove its sandboxes)", Kind)}}
	case len(chunks) > MaxDocuments:
		return nil, []Problem{{
			Position: Position{file, chunks[MaxDocuments].line, 1},
			Message:  fmt.Sprintf("the file has %d documents, at most %d are allowed; split it", len(chunks), MaxDocuments),
		}}
	}
	var docs []Document
	var problems []Problem
	for _, c := range chunks {
		// What is denied is decoded all the same, to tell where.
		if e := recall(known, file, c); e != nil && (policy == nil || len(policy.Check(e.Sandbox)) == 0) {
			docs = append(docs, Document{Sandbox: e.Sandbox, Name: e.Sandbox.Metadata.Name, Position: e.Source, hash: e.Hash, digest: e.Digest})
			continue
		}
		doc, ps := decodeDocument(file, c, policy)
		docs = append(docs, doc)
		problems = append(problems, ps...)
		// What is over a limit costs the most and is nobody's honest mistake:
		// the rest of such a file is not looked at.
		if len(problems) >= maxProblems || slices.ContainsFunc(ps, func(p Problem) bool { return p.limit }) {
			break
		}
	}
	problems = append(problems, duplicates(docs)...)
	sortProblems(problems)
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
			out = append(out, duplicateProblem(d.Position, d.Name, p))
			continue
		}
		first[d.Name] = d.Position
	}
	return out
}

func duplicateProblem(at Position, name string, other Position) Problem {
	return Problem{
		Position: at, Name: name, Field: "metadata.name",
		Message: fmt.Sprintf("sandbox %q is also defined at %s; a name may be defined once, remove one of them", name, other),
	}
}

// badByte is the index of the first byte that is not text, or -1.
func badByte(data []byte) int {
	for i := 0; i < len(data); {
		c := data[i]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0x7f {
				return i
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// chunk is the text of one document and the line it begins on.
type chunk struct {
	text []byte
	line int
}

// split cuts a file at its document markers, which YAML recognises at the
// beginning of a line whatever surrounds them. A blank part before the first
// marker is no document; a blank part after one is, and is refused later:
// that is what a file looks like that was cut short.
func split(data []byte) []chunk {
	var out []chunk
	start, startLine, line := 0, 1, 1
	marked := false
	emit := func(end int) {
		if text := data[start:end]; marked || !blank(text) {
			out = append(out, chunk{text: text, line: startLine})
		}
	}
	for i := 0; i < len(data); line++ {
		next := len(data)
		if n := bytes.IndexByte(data[i:], '\n'); n >= 0 {
			next = i + n + 1
		}
		if l := data[i:next]; bytes.HasPrefix(l, []byte("---")) && (len(l) == 3 || strings.IndexByte(" \t\r\n", l[3]) >= 0) {
			emit(i)
			start, startLine, marked = i, line, true
		}
		i = next
	}
	emit(len(data))
	return out
}

// blank says whether a text holds nothing but white space, comments and
// document markers.
func blank(text []byte) bool {
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimPrefix(l, []byte("---")), []byte("...")))
		if len(l) > 0 && l[0] != '#' {
			return false
		}
	}
	return true
}

func decodeDocument(file string, c chunk, policy *HostPolicy) (Document, []Problem) {
	doc := Document{Position: Position{File: file, Line: c.line, Column: 1}}
	w := &walker{file: file, offset: c.line - 1, at: map[string]Position{}, kind: Kind, root: reflect.TypeFor[Sandbox]()}
	root, ps := w.parse(c)
	if root == nil {
		doc.Name = guessName(c.text)
		for i := range ps {
			ps[i].Name = doc.Name
		}
		return doc, ps
	}
	doc.Name = nameOf(root)
	doc.Position = w.pos(root)
	w.document(root)
	if len(w.problems) > 0 {
		w.validateRest(root, policy)
		return doc, w.named(doc.Name)
	}
	sb := new(Sandbox)
	if err := sigsyaml.UnmarshalStrict(c.text, sb); err != nil {
		w.report(doc.Position, "", "%s", strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: "))
		return doc, w.named(doc.Name)
	}
	Default(sb)
	for _, e := range Validate(sb) {
		w.report(w.nearest(e.Field), e.Field, "%s", e.Message)
	}
	if policy != nil {
		for _, e := range policy.Check(sb) {
			w.denied(e)
		}
	}
	if len(w.problems) > 0 {
		return doc, w.named(doc.Name)
	}
	doc.Sandbox, doc.hash, doc.digest = sb, Hash(sb), digestOf(c.text)
	return doc, nil
}

// parse makes nodes of the text of a document, nil if it is not one that is
// worth a look.
func (w *walker) parse(c chunk) (*yaml.Node, []Problem) {
	fail := func(line, col int, format string, args ...any) (*yaml.Node, []Problem) {
		w.report(Position{File: w.file, Line: line, Column: col}, "", format, args...)
		return nil, w.problems
	}
	if len(c.text) > MaxDocumentBytes {
		return fail(c.line, 1, "the document has %d bytes, at most %d are allowed", len(c.text), MaxDocumentBytes)
	}
	if blank(c.text) {
		return fail(c.line, 1, "the document is empty; expected kind: %s (or remove the \"---\" above it)", w.kind)
	}
	if i := bytes.IndexByte(c.text, '%'); i == 0 {
		return fail(c.line, 1, "YAML directives are not allowed")
	}
	if line, depth := nesting(c.text); depth > maxDepth {
		return fail(c.line+line, 1, "brackets are nested more than %d deep", maxDepth)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(c.text, &root); err != nil {
		line, msg := syntaxError(err)
		return fail(c.line+line-1, firstColumn(c.text, line), "%s", msg)
	}
	if len(root.Content) != 1 {
		return fail(c.line, 1, "the document is empty; expected kind: %s", w.kind)
	}
	if !w.checkShape(root.Content[0], 1) {
		return nil, w.problems
	}
	return root.Content[0], nil
}

// nesting finds brackets nested deeper than a manifest can be, before the
// parser recurses into them. Brackets in strings and comments count too, so it
// is only a bound; line is where the limit was passed, from 0.
func nesting(text []byte) (line, deepest int) {
	depth := 0
	for _, c := range text {
		switch c {
		case '\n':
			line++
		case '[', '{':
			if depth++; depth > 4*maxDepth {
				return line, depth
			}
		case ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return 0, 0
}

var syntaxLine = pattern(`^yaml: (?:line (\d+): )?(.*)$`)

// syntaxError takes the parser's error apart.
func syntaxError(err error) (line int, msg string) {
	m := syntaxLine().FindStringSubmatch(err.Error())
	if m == nil {
		return 1, "not YAML: " + err.Error()
	}
	line, aerr := strconv.Atoi(m[1])
	if aerr != nil {
		line = 1
	}
	return line, "not YAML: " + m[2]
}

// firstColumn is where the text of a line begins.
func firstColumn(text []byte, line int) int {
	for l := range bytes.Lines(text) {
		if line--; line == 0 {
			return 1 + len(l) - len(bytes.TrimLeft(l, " \t"))
		}
	}
	return 1
}

var namePattern = pattern(`(?m)^metadata:[ \t]*(?:#.*)?\r?\n(?:[ \t]+.*\r?\n)*?[ \t]+name:[ \t]*["']?([a-z0-9-]{1,63})["']?[ \t]*(?:#.*)?\r?$`)

// guessName finds the name in a text that does not parse. A wrong guess shows
// the problem at another sandbox, and does nothing else.
func guessName(text []byte) string {
	if len(text) > MaxDocumentBytes {
		return ""
	}
	if m := namePattern().FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return ""
}

// nameOf is metadata.name of a parsed document.
func nameOf(root *yaml.Node) string {
	if n := field(field(root, "metadata"), "name"); n != nil && n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}

func field(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Field, b.Field))
	})
}
