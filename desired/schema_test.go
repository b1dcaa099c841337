// SPDX-License-Identifier: Apache-2.0

package desired_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/yamldoc"
)

// shapes calls fn for every object, list and map that a kind of document has.
func shapes(root reflect.Type, fn func(path string, t reflect.Type)) {
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Slice:
			fn(path, t)
			walk(t.Elem(), path+"[0]")
		case reflect.Map:
			fn(path, t)
		case reflect.Struct:
			if path != "" {
				fn(path, t)
			}
			for _, f := range yamldoc.FieldsOf(t) {
				walk(f.Type, yamldoc.Join(path, f.Name))
			}
		}
	}
	walk(root, "")
}

// Every object and list has an example, and following it is no mistake.
func TestShapeExamples(t *testing.T) {
	t.Parallel()
	for _, kind := range append(slices.Clone(desired.ManifestKinds), hostpolicy.Kinds...) {
		shapes(kind.Schema().Type, func(path string, typ reflect.Type) {
			e := kind.Schema().Example(typ, path)
			if e == "" {
				t.Errorf("%s %s has no example", kind.Kind, path)
				return
			}
			name, value := path[strings.LastIndexByte(path, '.')+1:], e
			if strings.HasSuffix(path, "]") {
				name = "item"
			} else {
				key, rest, found := strings.Cut(e, ": ")
				if !found || key != name {
					t.Errorf("%s %s: the example %q is of another field", kind.Kind, path, e)
				}
				value = rest
			}
			// A document of that one field.
			schema := *kind.Schema()
			schema.Type = reflect.StructOf([]reflect.StructField{{Name: "F", Type: typ, Tag: reflect.StructTag(`json:"` + name + `"`)}})
			d := yamldoc.Parse("f", yamldoc.Chunk{Text: []byte(name + ": " + value), Line: 1}, "")
			if d.Parsed() {
				d.Check(&schema)
			}
			if len(d.Problems()) > 0 {
				t.Errorf("%s %s: the example %q is refused: %v", kind.Kind, path, e, d.Problems())
			}
		})
	}
}
