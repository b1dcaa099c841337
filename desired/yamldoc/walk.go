// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Check compares the document with a schema. It finds what the decoder would
// accept silently (keys in another case, unquoted words that YAML takes for
// booleans) and what it would report without a place.
func (d *Doc) Check(s *Schema) {
	d.schema = s
	d.mapping(d.root, s.Type, "")
}

// IsObject says whether the document has keys.
func (d *Doc) IsObject() bool { return d.root.Kind == yaml.MappingNode }

// Describe names what the document is, for a message.
// It shows no value: the kind of the document is not known, a text may be the rest of a
// secret that three dashes have cut.
func (d *Doc) Describe() string { return shape(d.root) }

// value checks a node against the type it will be decoded into.
func (d *Doc) value(n *yaml.Node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if _, ok := reflect.TypeAssert[OneOrMany](reflect.New(t)); ok {
		if n.Kind == yaml.ScalarNode {
			d.text(n, path)
		} else {
			d.list(n, t, path)
		}
		return
	}
	if u, ok := reflect.TypeAssert[json.Unmarshaler](reflect.New(t)); ok {
		if _, short := u.(Shorthand); short && n.Kind == yaml.MappingNode {
			d.mapping(n, t, path)
		} else if short && (n.Kind != yaml.ScalarNode || !isText(n)) {
			d.wrongShape(n, t, path, "a name")
		} else {
			d.custom(n, u, path)
		}
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			d.noObject(n, t, path)
			return
		}
		d.mapping(n, t, path)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			d.wrongShape(n, t, path, "an object of names and values")
			return
		}
		d.entries(n, path, func(key string, v *yaml.Node, p string) { d.value(v, t.Elem(), p) })
	case reflect.Slice:
		d.list(n, t, path)
	case reflect.String:
		d.text(n, path)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || (n.Value != "true" && n.Value != "false") {
			d.wrong(n, path, "true or false")
		}
	default:
		d.number(n, t, path)
	}
}

// list checks the items of a list.
func (d *Doc) list(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.SequenceNode {
		d.wrongShape(n, t, path, "a list")
		return
	}
	for i, c := range n.Content {
		if d.Full() {
			return
		}
		p := fmt.Sprintf("%s[%d]", path, i)
		d.at[p] = c
		d.value(c, t.Elem(), p)
	}
}

// noObject reports a value in place of an object.
func (d *Doc) noObject(n *yaml.Node, t reflect.Type, path string) {
	if instead := d.schema.Instead[t]; instead != nil && n.Kind == yaml.ScalarNode && !d.schema.Secret {
		if ours := instead(n.Value); ours != "" {
			d.report(d.pos(n), path, "expected an object, got %s; write %s", describe(n), ours)
			return
		}
	}
	d.wrongShape(n, t, path, "an object"+emptyHint(n, t))
}

func emptyHint(n *yaml.Node, t reflect.Type) string {
	if isNull(n) && t.NumField() == 0 {
		return " ({} for an empty one)"
	}
	return ""
}

// custom checks a value that reads itself, such as a duration.
func (d *Doc) custom(n *yaml.Node, u json.Unmarshaler, path string) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.wrong(n, path, "a single value")
		return
	}
	b, err := json.Marshal(n.Value)
	if tag := n.ShortTag(); err == nil && (tag == "!!int" || tag == "!!float") {
		if _, quoted := u.(Quoted); quoted {
			b = []byte(n.Value) // which it refuses
		}
	}
	if err == nil {
		err = u.UnmarshalJSON(b)
	}
	if err != nil {
		d.report(d.pos(n), path, "%v", err)
	}
}

var integer = pattern(`^-?(0|[1-9][0-9]*)$`)

// boolWords are those that YAML 1.1 takes for booleans, which the decoder would turn
// into "true" and "false".
var boolWords = []string{"y", "yes", "n", "no", "on", "off", "true", "false"}

func isBool(word string) bool {
	return slices.ContainsFunc(boolWords, func(b string) bool { return strings.EqualFold(b, word) })
}

func (d *Doc) number(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || !integer().MatchString(n.Value) {
		d.wrong(n, path, "a whole number")
		return
	}
	if err := json.Unmarshal([]byte(n.Value), reflect.New(t).Interface()); err != nil {
		d.report(d.pos(n), path, "expected %s, got %s", rangeOf(t), n.Value)
	}
}

func rangeOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	}
	return fmt.Sprintf("a whole number of %d bits", t.Bits())
}

func (d *Doc) text(n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.wrongShape(n, reflect.TypeFor[string](), path, "a string")
		return
	}
	if !isText(n) {
		if d.schema.Secret {
			d.report(d.pos(n), path, "expected a string, got %s; quote it", d.describe(n))
			return
		}
		d.report(d.pos(n), path, "expected a string, got %s; quote it: \"%s\"", describe(n), Clip(n.Value))
	}
}

// isText says whether a scalar is a string for every version of YAML.
func isText(n *yaml.Node) bool {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return true
	}
	return n.ShortTag() == "!!str" && !isBool(n.Value)
}

// mapping checks the keys of an object against the fields of a struct.
func (d *Doc) mapping(n *yaml.Node, t reflect.Type, path string) {
	known := FieldsOf(t)
	d.entries(n, path, func(key string, v *yaml.Node, p string) {
		f, ok := known[key]
		if !ok {
			d.report(d.pos(d.at[p]), p, "%s", d.schema.unknown(t, key, p, path))
			return
		}
		d.value(v, f.Type, p)
	})
	required := d.schema.Required[t]
	for _, name := range slices.Sorted(maps.Keys(required)) {
		if !d.Has(Join(path, name)) {
			d.report(d.pos(n), Join(path, name), "is missing: expected %s", required[name])
		}
	}
}

// entries calls fn for every key of an object that is a plain string and not a
// repetition.
func (d *Doc) entries(n *yaml.Node, path string, fn func(key string, v *yaml.Node, path string)) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if d.Full() {
			return
		}
		k, v := n.Content[i], n.Content[i+1]
		if d.schema.Secret && path != "" && isNull(v) {
			// {KEY:value} and {KEY: some, thing} make keys of values.
			d.report(d.pos(k), path, "a key has no value; write \"\" for an empty one, and quote one with a colon or comma in it")
			continue
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" || isNull(k) {
			d.report(d.pos(k), path, "expected a field name, got %s", d.describe(k))
			continue
		}
		if !isText(k) {
			// Decoders differ in what they make of it.
			if d.schema.Secret {
				d.report(d.pos(k), path, "expected a field name, got %s; quote it", d.describe(k))
				continue
			}
			d.report(d.pos(k), path, "expected a field name, got %s; quote it: \"%s\"", describe(k), Clip(k.Value))
			continue
		}
		p := Join(path, k.Value)
		if first, ok := d.at[p]; ok {
			d.report(d.pos(k), p, "is given twice, first in line %d; remove one of them", first.Line+d.offset)
			continue
		}
		d.at[p] = k
		fn(k.Value, v, p)
	}
}

func (d *Doc) wrong(n *yaml.Node, path, want string) {
	d.report(d.pos(n), path, "expected %s, got %s", want, d.describe(n))
}

// wrongShape reports a value that is not the object, list or text that is expected,
// with an example of it.
func (d *Doc) wrongShape(n *yaml.Node, t reflect.Type, path, want string) {
	msg := fmt.Sprintf("expected %s, got %s", want, d.describe(n))
	if e := d.schema.Example(t, path); e != "" {
		msg += "; for example " + e
	}
	d.report(d.pos(n), path, "%s", msg)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe names a node of the document for a message.
func (d *Doc) describe(n *yaml.Node) string {
	if !d.schema.Secret {
		return describe(n)
	}
	return shape(n)
}

// shape names what a node is without its value.
func shape(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return describe(n)
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "a text"
}

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
		return "the boolean " + Clip(n.Value)
	case "!!int", "!!float":
		return "the number " + Clip(n.Value)
	case "!!timestamp":
		return "the date " + Clip(n.Value)
	}
	return fmt.Sprintf("%q", Clip(n.Value))
}
