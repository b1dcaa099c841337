// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Doc is one document: its values, where each of them is, and what is wrong with
// it. What is found wrong later is added with Report.
type Doc struct {
	file     string
	offset   int // lines before the document
	root     *yaml.Node
	nodes    int
	at       map[string]*yaml.Node // keys and items, by path
	schema   *Schema               // that the document is compared with
	problems []Problem
}

// Parse reads one document of a file. Parsed is false if the text is not one
// document of plain values within the limits. want is what the document should
// begin with, for messages.
func Parse(file string, c Chunk, want string) *Doc {
	d := &Doc{file: file, offset: c.Line - 1, at: map[string]*yaml.Node{}}
	root := d.parse(c, want)
	if root == nil || !d.checkShape(root, 1) {
		return d
	}
	d.root, d.at[""] = root, root
	return d
}

// Parsed says whether the document has values to look at.
func (d *Doc) Parsed() bool { return d.root != nil }

// Nodes is how many values the document has.
func (d *Doc) Nodes() int { return d.nodes }

// Problems is what is wrong with the document, so far.
func (d *Doc) Problems() []Problem { return d.problems }

// Position is where the values of the document begin.
func (d *Doc) Position() Position { return d.pos(d.root) }

// parse makes nodes of the text of a document, nil if it is not one that is
// worth a look.
func (d *Doc) parse(c Chunk, want string) *yaml.Node {
	fail := func(line, col int, format string, args ...any) *yaml.Node {
		d.report(Position{File: d.file, Line: line, Column: col}, "", format, args...)
		return nil
	}
	if len(c.Text) > MaxDocumentBytes {
		return fail(c.Line, 1, "the document has %d bytes, at most %d are allowed", len(c.Text), MaxDocumentBytes)
	}
	if blank(c.Text) {
		return fail(c.Line, 1, "the document is empty; expected %s (or remove the \"---\" above it)", want)
	}
	if i := bytes.IndexByte(c.Text, '%'); i == 0 {
		return fail(c.Line, 1, "YAML directives are not allowed")
	}
	if line, depth := nesting(c.Text); depth > maxDepth {
		return fail(c.Line+line, 1, "brackets are nested more than %d deep", maxDepth)
	}
	// The parser has no limits of its own and makes half a kilobyte of two bytes.
	if n := marks(c.Text); n > maxMarks {
		fail(c.Line, 1, "the document has %d commas, colons, dashes, brackets and lines, at most %d are allowed; put long texts into a file", n, maxMarks)
		d.problems[0].Limit = true
		return nil
	}
	var root, next yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(c.Text))
	if err := dec.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		line, msg := syntaxError(err, c.Text)
		return fail(c.Line+line-1, firstColumn(c.Text, line), "%s", msg)
	}
	if len(root.Content) != 1 {
		return fail(c.Line, 1, "the document is empty; expected %s", want)
	}
	// The parser stops at the end of a document: what follows must not be dropped
	// in silence.
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		line := next.Line
		if err != nil {
			line, _ = syntaxError(err, c.Text)
		}
		return fail(c.Line+line-1, firstColumn(c.Text, line), "something follows the end of the document; begin another one with \"---\" on a line of its own")
	}
	return root.Content[0]
}

// checkShape refuses what no document needs and some attacks do: anchors,
// aliases, tags, depth, number. It reports false if the rest is not worth
// looking at.
func (d *Doc) checkShape(n *yaml.Node, depth int) bool {
	if d.nodes++; d.nodes > MaxNodes {
		d.report(d.pos(n), "", "the document has more than %d values", MaxNodes)
		d.problems[len(d.problems)-1].Limit = true
		return false
	}
	if depth > maxDepth {
		d.report(d.pos(n), "", "values are nested more than %d deep", maxDepth)
		return false
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.report(d.pos(n), "", "anchors and aliases are not allowed; write the value out")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		// Without it: it may be a password that begins with an exclamation mark.
		d.report(d.pos(n), "", "tags such as !!str are not allowed; quote a value that begins with an exclamation mark")
		return false
	}
	for _, c := range n.Content {
		if !d.checkShape(c, depth+1) {
			return false
		}
	}
	return true
}

func (d *Doc) pos(n *yaml.Node) Position {
	return Position{File: d.file, Line: n.Line + d.offset, Column: n.Column}
}

// report keeps the first MaxProblems: nobody reads more, and the suggestions in
// them cost time.
func (d *Doc) report(at Position, path, format string, args ...any) {
	if d.Full() {
		return
	}
	d.problems = append(d.problems, Problem{Position: at, Field: path, Message: fmt.Sprintf(format, args...)})
}

// Full says whether further problems are dropped.
func (d *Doc) Full() bool { return len(d.problems) >= MaxProblems }

// Report adds a problem of a field, at the place of the field or of the closest
// one around it that is in the file. reason may be "".
func (d *Doc) Report(field, reason, message string) {
	if d.Full() {
		return
	}
	d.problems = append(d.problems, Problem{Position: d.nearest(field), Field: field, Reason: reason, Message: message})
}

// Has says whether a field is in the document.
func (d *Doc) Has(field string) bool { return d.at[field] != nil }

// HasTop says whether a key is in the top level, also before Check.
func (d *Doc) HasTop(key string) bool { return Field(d.root, key) != nil }

// Place is where a field is, or the closest one around it that is in the file.
func (d *Doc) Place(field string) Position { return d.nearest(field) }

// nearest is the place of a field, or of the closest field around it that is
// in the file.
func (d *Doc) nearest(path string) Position {
	for {
		if n, ok := d.at[path]; ok {
			return d.pos(n)
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return d.pos(d.root)
		}
		path = path[:i]
	}
}

// Scalar is a value of the top level or below it, by its keys; ok is false if
// there is none, or an object or a list. It serves before Check has looked for
// keys that are given twice: the first counts.
func (d *Doc) Scalar(keys ...string) (value string, ok bool) {
	n := d.root
	for _, k := range keys {
		n = Field(n, k)
	}
	if n == nil || n.Kind != yaml.ScalarNode {
		return "", false
	}
	return n.Value, true
}

// ReportValue adds a problem of a key of the top level, at the place of its value.
func (d *Doc) ReportValue(key, message string) {
	if n := Field(d.root, key); n != nil {
		d.report(d.pos(n), key, "%s", message)
	}
}

// Decode fills a value with a document in which Check has found nothing wrong.
// The text is not parsed again: another parser could read another thing.
func (d *Doc) Decode(to any) error {
	b, err := json.Marshal(plain(d.root, "", nil))
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(to)
}

// DecodeRest fills a value with what is left of a document without some fields.
// It serves to find out what else is wrong, and for nothing else.
func (d *Doc) DecodeRest(without map[string]bool, to any) error {
	b, err := json.Marshal(plain(d.root, "", without))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

// plain turns a node into what encoding/json encodes, without the bad paths.
func plain(n *yaml.Node, path string, bad map[string]bool) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			p := Join(path, n.Content[i].Value)
			if !bad[p] {
				m[n.Content[i].Value] = plain(n.Content[i+1], p, bad)
			}
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			p := fmt.Sprintf("%s[%d]", path, i)
			if bad[p] {
				// Keep its place: the paths of the others count from it. A null is a zero
				// value of every type.
				list = append(list, nil)
				continue
			}
			list = append(list, plain(c, p, bad))
		}
		return list
	}
	switch n.ShortTag() {
	case "!!int":
		return json.Number(n.Value)
	case "!!bool":
		return n.Value == "true"
	case "!!null":
		return nil
	}
	return n.Value
}

// Glance parses a text within the limits that is perhaps not meant for this
// program, nil if it can't be parsed. Nothing is said about what is wrong.
func Glance(text []byte) *yaml.Node {
	if _, depth := nesting(text); depth > maxDepth || marks(text) > maxMarks || len(text) > MaxDocumentBytes {
		return nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil || len(root.Content) != 1 {
		return nil
	}
	return root.Content[0]
}

// Values counts the values of a node, itself included.
func Values(n *yaml.Node) int {
	sum := 1
	for _, c := range n.Content {
		sum += Values(c)
	}
	return sum
}

// Field is the value of a key of an object, nil if there is none.
func Field(n *yaml.Node, key string) *yaml.Node {
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

// pattern compiles a regular expression when it is first needed: most runs of
// the program need none.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
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
		// Without its name: it may be a password that begins with an asterisk.
		return line, "not YAML: a value that begins with * is an alias, and there is no such anchor; quote the value"
	}
	return line, "not YAML: " + m[2]
}
