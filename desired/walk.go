// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// walker compares the nodes of a document with the type they are decoded into
// and remembers where everything is. It finds what the decoder would accept
// silently (keys in another case, unquoted words that YAML takes for booleans)
// and what it would report without a place.
type walker struct {
	file     string
	offset   int // lines before the document
	kind     string
	root     reflect.Type // of which the document is
	nodes    int
	at       map[string]*yaml.Node // keys and items, by path
	problems []Problem
}

func newWalker(file string, c chunk, kind string, root reflect.Type) *walker {
	return &walker{file: file, offset: c.line - 1, at: map[string]*yaml.Node{}, kind: kind, root: root}
}

func (w *walker) pos(n *yaml.Node) Position {
	return Position{File: w.file, Line: n.Line + w.offset, Column: n.Column}
}

// report keeps the first maxProblems: nobody reads more, and the suggestions in
// them cost time.
func (w *walker) report(at Position, path, format string, args ...any) {
	if w.full() {
		return
	}
	w.problems = append(w.problems, Problem{Position: at, Field: path, Message: fmt.Sprintf(format, args...)})
}

func (w *walker) full() bool { return len(w.problems) >= maxProblems }

// named returns the problems as those of one sandbox.
func (w *walker) named(name string) []Problem {
	if !ValidName(name) {
		name = ""
	}
	for i := range w.problems {
		w.problems[i].Name = name
	}
	return w.problems
}

// nearest is the place of a field, or of the closest field around it that is
// in the file.
func (w *walker) nearest(path string) Position {
	for {
		if n, ok := w.at[path]; ok {
			return w.pos(n)
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return w.pos(w.at[""])
		}
		path = path[:i]
	}
}

// checkShape refuses what no manifest needs and some attacks do: anchors,
// aliases, tags, depth, number. It reports false if the rest is not worth
// looking at.
func (w *walker) checkShape(n *yaml.Node, depth int) bool {
	if w.nodes++; w.nodes > maxNodes {
		w.report(w.pos(n), "", "the document has more than %d values", maxNodes)
		w.problems[len(w.problems)-1].limit = true
		return false
	}
	if depth > maxDepth {
		w.report(w.pos(n), "", "values are nested more than %d deep", maxDepth)
		return false
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		w.report(w.pos(n), "", "anchors and aliases are not allowed; write the value out")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		w.report(w.pos(n), "", "tags such as %s are not allowed; quote a string that looks like something else", n.Tag)
		return false
	}
	for _, c := range n.Content {
		if !w.checkShape(c, depth+1) {
			return false
		}
	}
	return true
}

func (w *walker) document(n *yaml.Node) {
	w.at[""] = n
	if n.Kind != yaml.MappingNode {
		want := "a manifest with apiVersion, kind, metadata and spec"
		if w.kind != Kind {
			want = "a document of kind " + w.kind
		}
		w.report(w.pos(n), "", "expected %s, got %s", want, describe(n))
		return
	}
	if k := field(n, "kind"); k != nil && k.Kind == yaml.ScalarNode && k.Value != w.kind {
		w.report(w.pos(k), "kind", "expected %s, got %q", w.kind, k.Value)
		return // the rest is about something else
	}
	if v := field(n, "apiVersion"); v != nil && v.Kind == yaml.ScalarNode && v.Value != APIVersion {
		w.report(w.pos(v), "apiVersion", "expected %s, got %q", APIVersion, v.Value)
		return
	}
	w.mapping(n, w.root, "")
}

// value checks a node against the type it will be decoded into.
func (w *walker) value(n *yaml.Node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if u, ok := reflect.TypeAssert[json.Unmarshaler](reflect.New(t)); ok {
		w.custom(n, u, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			w.wrongShape(n, t, path, "an object"+emptyHint(n, t))
			return
		}
		w.mapping(n, t, path)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			w.wrongShape(n, t, path, "an object of names and values")
			return
		}
		w.entries(n, path, func(key string, v *yaml.Node, p string) { w.value(v, t.Elem(), p) })
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			w.wrongShape(n, t, path, "a list")
			return
		}
		for i, c := range n.Content {
			if w.full() {
				return
			}
			p := fmt.Sprintf("%s[%d]", path, i)
			w.at[p] = c
			w.value(c, t.Elem(), p)
		}
	case reflect.String:
		w.text(n, path)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || (n.Value != "true" && n.Value != "false") {
			w.wrong(n, path, "true or false")
		}
	default:
		w.number(n, t, path)
	}
}

func emptyHint(n *yaml.Node, t reflect.Type) string {
	if isNull(n) && t.NumField() == 0 {
		return " ({} for an empty one)"
	}
	return ""
}

// custom checks a value that reads itself, such as a duration.
func (w *walker) custom(n *yaml.Node, u json.Unmarshaler, path string) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		w.wrong(n, path, "a single value")
		return
	}
	b, err := json.Marshal(n.Value)
	if tag := n.ShortTag(); err == nil && (tag == "!!int" || tag == "!!float") {
		if _, quoted := u.(*Duration); quoted {
			b = []byte("0") // an unquoted number has no unit
		}
	}
	if err == nil {
		err = u.UnmarshalJSON(b)
	}
	if err != nil {
		w.report(w.pos(n), path, "%s", strings.Replace(err.Error(), "got 0", "got "+n.Value, 1))
	}
}

var (
	integer = pattern(`^-?(0|[1-9][0-9]*)$`)
	// The words YAML 1.1 takes for booleans, which the decoder would turn
	// into "true" and "false".
	boolWord = pattern(`^(?i:y|yes|n|no|on|off|true|false)$`)
)

func (w *walker) number(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || !integer().MatchString(n.Value) {
		w.wrong(n, path, "a whole number")
		return
	}
	if err := json.Unmarshal([]byte(n.Value), reflect.New(t).Interface()); err != nil {
		w.report(w.pos(n), path, "expected %s, got %s", rangeOf(t), n.Value)
	}
}

func rangeOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	}
	return fmt.Sprintf("a whole number of %d bits", t.Bits())
}

func (w *walker) text(n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		w.wrong(n, path, "a string")
		return
	}
	if !isText(n) {
		w.report(w.pos(n), path, "expected a string, got %s; quote it: \"%s\"", describe(n), clip(n.Value))
	}
}

// isText says whether a scalar is a string for every version of YAML.
func isText(n *yaml.Node) bool {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return true
	}
	return n.ShortTag() == "!!str" && !boolWord().MatchString(n.Value)
}

// mapping checks the keys of an object against the fields of a struct.
func (w *walker) mapping(n *yaml.Node, t reflect.Type, path string) {
	known := fieldsOf(t)
	w.entries(n, path, func(key string, v *yaml.Node, p string) {
		f, ok := known[key]
		if !ok {
			w.report(w.pos(w.at[p]), p, "%s", w.unknown(t, key, p, path, known))
			return
		}
		w.value(v, f.typ, p)
	})
	for _, name := range sortedRequired(t) {
		if _, ok := w.at[join(path, name)]; !ok {
			w.report(w.pos(n), join(path, name), "is missing: expected %s", known[name].expect)
		}
	}
}

// unknown words the error for a key that is not a field.
func (w *walker) unknown(t reflect.Type, key, path, parent string, known map[string]fieldInfo) string {
	if msg, ok := notYet(t, key, path); ok {
		return msg
	}
	return unknownField(w.root, key, parent, known)
}

// entries calls fn for every key of an object that is a plain string and not a
// repetition.
func (w *walker) entries(n *yaml.Node, path string, fn func(key string, v *yaml.Node, path string)) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if w.full() {
			return
		}
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" || isNull(k) {
			w.report(w.pos(k), path, "expected a field name, got %s", describe(k))
			continue
		}
		if !isText(k) {
			// Decoders differ in what they make of it.
			w.report(w.pos(k), path, "expected a field name, got %s; quote it: \"%s\"", describe(k), clip(k.Value))
			continue
		}
		p := join(path, k.Value)
		if first, ok := w.at[p]; ok {
			w.report(w.pos(k), p, "is given twice, first in line %d; remove one of them", first.Line+w.offset)
			continue
		}
		w.at[p] = k
		fn(k.Value, v, p)
	}
}

func join(path, key string) string {
	if key == "" || strings.ContainsAny(key, ".[]") {
		key = fmt.Sprintf("[%q]", key)
		return path + key
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func (w *walker) wrong(n *yaml.Node, path, want string) {
	w.report(w.pos(n), path, "expected %s, got %s", want, describe(n))
}

// wrongShape reports a value that is not the object or list that is expected,
// with an example of it.
func (w *walker) wrongShape(n *yaml.Node, t reflect.Type, path, want string) {
	msg := fmt.Sprintf("expected %s, got %s", want, describe(n))
	if e := example(t, path); e != "" {
		msg += "; for example " + e
	}
	w.report(w.pos(n), path, "%s", msg)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe names a node for a message.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "the boolean " + clip(n.Value)
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!timestamp":
		return "the date " + clip(n.Value)
	}
	return fmt.Sprintf("%q", clip(n.Value))
}

func clip(s string) string {
	if len(s) <= 60 {
		return s
	}
	n := 60
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// fieldInfo is one field of a manifest type.
type fieldInfo struct {
	name   string
	typ    reflect.Type
	expect string
}

var fieldCache sync.Map // reflect.Type → map[string]fieldInfo

// required are the fields a manifest can't do without; other packages of
// missing values are found by Validate.
var required = map[reflect.Type]map[string]string{
	reflect.TypeFor[Sandbox]():  {"apiVersion": APIVersion, "kind": Kind, "metadata": "an object with a name", "spec": "an object with a root"},
	reflect.TypeFor[Metadata](): {"name": "a DNS label such as \"web\""},
	reflect.TypeFor[Spec]():     {"root": "one of host, dir, bundle"},
	reflect.TypeFor[Volume]():   {"name": "a DNS label", "mountPath": "an absolute path in the sandbox"},
	reflect.TypeFor[EnvVar]():   {"name": "the name of an environment variable"},
	reflect.TypeFor[Rlimit]():   {"type": "a limit such as NOFILE", "soft": "a number", "hard": "a number"},
	reflect.TypeFor[User]():     {"uid": "a number", "gid": "a number"},

	reflect.TypeFor[HostPolicy]():  {"apiVersion": APIVersion, "kind": PolicyKind},
	reflect.TypeFor[AllowedPath](): {"path": "an absolute path of the host", "access": AccessReadOnly + " or " + AccessReadWrite},
}

// sortedRequired are the names of the fields that a type can't do without.
func sortedRequired(t reflect.Type) []string {
	return slices.Sorted(maps.Keys(required[t]))
}

func fieldsOf(t reflect.Type) map[string]fieldInfo {
	if m, ok := fieldCache.Load(t); ok {
		return m.(map[string]fieldInfo)
	}
	m := map[string]fieldInfo{}
	for f := range structFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		m[name] = fieldInfo{name: name, typ: f.Type, expect: required[t][name]}
	}
	fieldCache.Store(t, m)
	return m
}

// structFields yields the fields of a struct, those of embedded ones included.
func structFields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for _, f := range reflect.VisibleFields(t) {
			if f.Anonymous || !f.IsExported() {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

func sortedFields(m map[string]fieldInfo) []fieldInfo {
	out := make([]fieldInfo, 0, len(m))
	for _, f := range m {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b fieldInfo) int { return strings.Compare(a.name, b.name) })
	return out
}
