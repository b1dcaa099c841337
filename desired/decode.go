// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Limits of what is parsed. With them a file that its author made to cost as
// much as it can is done with in 100 ms and 32 MiB. Those that the parser could
// not survive are checked before it sees a byte.
const (
	MaxFileBytes     = 1 << 20
	MaxDocumentBytes = 64 << 10
	MaxDocuments     = 500
	maxDepth         = 32
	maxNodes         = 4000
	maxMarks         = 3 * maxNodes // of one document, see marks
	maxFileNodes     = 16000
	maxProblems      = 100 // of one file; then the rest is not looked at
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
	if i, what := notText(data); i >= 0 {
		line, col := 1+bytes.Count(data[:i], []byte{'\n'}), i-bytes.LastIndexByte(data[:i], '\n')
		return fail(line, col, "expected UTF-8 text without control characters, got %s", what)
	}
	return split(data, MaxDocuments+1), nil
}

func decode(file string, data []byte, policy *HostPolicy, known func(digest string) *Entry) ([]Document, []Problem) {
	chunks, p := chunksOf(file, data)
	if (len(data) > MaxFileBytes || len(chunks) > MaxDocuments) && isForeignAtLength(data) {
		// It is too much to be looked at, and nothing in it can be a manifest.
		return []Document{{Position: Position{file, 1, 1}, Foreign: "a large file"}}, nil
	}
	switch {
	case p != nil:
		return nil, []Problem{*p}
	case len(chunks) == 0:
		return nil, []Problem{{Position: Position{file, 1, 1}, Message: fmt.Sprintf("the file is empty; expected at least one document with kind: %s (remove the file to remove its sandboxes)", Kind)}}
	case len(chunks) > MaxDocuments:
		return nil, []Problem{{
			Position: Position{file, chunks[MaxDocuments].line, 1},
			Message:  fmt.Sprintf("the file has more than %d documents; split it", MaxDocuments),
		}}
	}
	if nodesAtMost(data) > maxFileNodes {
		// What is recalled is not counted, and who recalls nothing must come to
		// the same result.
		known = nil
	}
	var docs []Document
	var problems []Problem
	nodes := 0
	for _, c := range chunks {
		// What is denied is decoded all the same, to tell where.
		if e := recall(known, file, c); e != nil && (policy == nil || len(policy.Check(e.Sandbox)) == 0) {
			docs = append(docs, Document{Sandbox: e.Sandbox, Name: e.Sandbox.Metadata.Name, Position: e.Source, hash: e.Hash, digest: e.Digest})
			continue
		}
		if nodes > maxFileNodes {
			problems = append(problems, Problem{
				Position: Position{file, c.line, 1},
				Message:  fmt.Sprintf("the documents up to here have more than %d values; split the file", maxFileNodes),
			})
			break
		}
		doc, ps, n := decodeDocument(file, c, policy)
		nodes += n
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

// notText is the index of the first byte that is not text and what it is, or -1.
// What a terminal obeys, what a reader does not see as what it is (CVE-2021-42574)
// and what YAML takes for the end of a line and editors do not is none.
func notText(data []byte) (int, string) {
	for i := 0; i < len(data); {
		c := data[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
				return i, "a carriage return without a newline"
			case c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0x7f:
				return i, fmt.Sprintf("byte 0x%02x", c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return i, fmt.Sprintf("byte 0x%02x", c)
		case r < 0xa0 || isDeceptive(r):
			return i, fmt.Sprintf("%U", r)
		}
		i += n
	}
	return -1, ""
}

// isDeceptive says whether a character ends lines or changes the direction of
// what follows.
func isDeceptive(r rune) bool {
	return r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// chunk is the text of one document and the line it begins on.
type chunk struct {
	text []byte
	line int
}

// split cuts a file at its document markers, which YAML recognises at the
// beginning of a line whatever surrounds them. A blank part before the first
// marker is no document; a blank part after one is, and is refused later:
// that is what a file looks like that was cut short. It returns the first most
// documents.
func split(data []byte, most int) []chunk {
	var out []chunk
	start, startLine, line := 0, 1, 1
	marked := false
	emit := func(end int) {
		if text := data[start:end]; marked || !blank(text) {
			out = append(out, chunk{text: text, line: startLine})
		}
	}
	for i := 0; i < len(data) && len(out) < most; line++ {
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
	if len(out) < most {
		emit(len(data))
	}
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

// decodeDocument decodes one document. nodes is what it cost: how many values the
// parser made of it, or could have made of it if it failed.
func decodeDocument(file string, c chunk, policy *HostPolicy) (_ Document, _ []Problem, nodes int) {
	doc := Document{Position: Position{File: file, Line: c.line, Column: 1}}
	if doc.Foreign, doc.Name, nodes = isForeign(c.text); doc.Foreign != "" {
		return doc, nil, nodes
	}
	w := newWalker(file, c, Kind, reflect.TypeFor[Sandbox]())
	root, ps := w.parse(c)
	if root == nil {
		doc.Name, doc.Guessed = guessName(c.text), true
		for i := range ps {
			ps[i].Name = doc.Name
		}
		return doc, ps, nodesAtMost(c.text)
	}
	doc.Name = nameOf(root)
	doc.Position = w.pos(root)
	w.document(root)
	if len(w.problems) > 0 {
		w.validateRest(root, policy)
		return doc, w.named(doc.Name), w.nodes
	}
	sb := new(Sandbox)
	if err := fromNode(root, sb); err != nil {
		w.report(doc.Position, "", "%v", err)
		return doc, w.named(doc.Name), w.nodes
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
		return doc, w.named(doc.Name), w.nodes
	}
	doc.Sandbox, doc.hash, doc.digest = sb, Hash(sb), digestOf(c.text)
	return doc, nil, w.nodes
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
	// The parser has no limits of its own and makes half a kilobyte of two bytes.
	if n := marks(c.text); n > maxMarks {
		root, ps := fail(c.line, 1, "the document has %d commas, colons, dashes, brackets and lines, at most %d are allowed; put long texts into a file", n, maxMarks)
		ps[0].limit = true
		return root, ps
	}
	var root, next yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	if err := dec.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		line, msg := syntaxError(err, c.text)
		return fail(c.line+line-1, firstColumn(c.text, line), "%s", msg)
	}
	if len(root.Content) != 1 {
		return fail(c.line, 1, "the document is empty; expected kind: %s", w.kind)
	}
	// The parser stops at the end of a document: what follows must not be dropped
	// in silence.
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		line := next.Line
		if err != nil {
			line, _ = syntaxError(err, c.text)
		}
		return fail(c.line+line-1, firstColumn(c.text, line), "something follows the end of the document; begin another one with \"---\" on a line of its own")
	}
	if !w.checkShape(root.Content[0], 1) {
		return nil, w.problems
	}
	return root.Content[0], nil
}

// fromNode decodes what the walker has found to be right. The text is not parsed
// again: another parser could read another thing.
func fromNode(n *yaml.Node, to any) error {
	b, err := json.Marshal(plain(n, "", nil))
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(to)
}

// marks counts the bytes that begin, part or end values where they are no text.
func marks(text []byte) (n int) {
	for _, c := range text {
		switch c {
		case ',', ':', '-', '?', '[', '{', '\n', '\r':
			n++
		}
	}
	return n
}

// nodesAtMost is how many values a text can have at most: one mark can make a
// key and a value of nothing, as each comma does in {a,b,c}.
func nodesAtMost(text []byte) int { return 2*marks(text) + 4 }

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

var (
	syntaxLine    = pattern(`^yaml: (?:line (\d+): )?(.*)$`)
	unknownAnchor = pattern(`^unknown anchor '(.*)' referenced$`)
)

// syntaxError takes the parser's error about a text apart. It gives no line for
// the first one, nor for an alias of nothing.
func syntaxError(err error, text []byte) (line int, msg string) {
	m := syntaxLine().FindStringSubmatch(err.Error())
	if m == nil {
		return 1, "not YAML: " + err.Error()
	}
	line, aerr := strconv.Atoi(m[1])
	if aerr != nil {
		line = 1
	}
	if a := unknownAnchor().FindStringSubmatch(m[2]); a != nil {
		before, _, _ := bytes.Cut(text, []byte("*"+a[1]))
		line = 1 + bytes.Count(before, []byte{'\n'})
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

// guessName finds the name in a text that does not parse. A wrong guess shows
// the problem at another sandbox, and does nothing else. It looks at every line
// once: a regular expression would take the better part of a second for 1 MiB.
func guessName(text []byte) string {
	if len(text) > MaxDocumentBytes {
		return ""
	}
	inside := false
	for line := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line, []byte{':'})
		switch {
		case line[0] != ' ' && line[0] != '\t':
			// A key of the top level: metadata, if nothing but a comment follows.
			inside = string(key) == "metadata" && len(withoutComment(value)) == 0
		case inside && string(bytes.TrimLeft(key, " \t")) == "name":
			if name := string(bytes.Trim(withoutComment(value), `"'`)); ValidName(name) {
				return name
			}
		}
	}
	return ""
}

// withoutComment is what is on a line but for space and a comment at its end.
func withoutComment(line []byte) []byte {
	line, _, _ = bytes.Cut(line, []byte{'#'})
	return bytes.TrimSpace(line)
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
