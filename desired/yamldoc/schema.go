// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Schema is what the documents of one kind look like: a struct with JSON tags and
// what there is to say about its types.
type Schema struct {
	Type reflect.Type
	// Required are the fields that a type can't do without, with what is expected
	// of each.
	Required map[reflect.Type]map[string]string
	// Examples are a value of YAML for each type, on one line.
	Examples map[reflect.Type]string
	// ListExamples are those of lists, maps and texts without a type of their own, by field.
	ListExamples map[string]string
	// Unknown is asked about a key that is no field of a type, before anything is
	// suggested: ok is false if it knows nothing better to say. parent is the path of
	// the object and path the one of the key. It may be nil.
	Unknown func(t reflect.Type, key, path, parent string) (message string, ok bool)
	// Instead says what to write for a text or a number that stands where an object of a
	// type belongs, as other programs have it; "" if nothing.
	Instead map[reflect.Type]func(text string) string
	// Secret says that no message may show a value.
	Secret bool
}

// OneOrMany marks a list of texts for which one text may stand: UnmarshalJSON reads both.
type OneOrMany interface{ OneOrMany() }

// Quoted marks a type whose values have a unit: a number without quotes is none.
type Quoted interface {
	json.Unmarshaler
	Quoted()
}

// Shorthand marks a struct for which a text may stand: UnmarshalJSON reads both.
type Shorthand interface {
	json.Unmarshaler
	Shorthand()
}

// FieldInfo is one field of a type, by its name in documents.
type FieldInfo struct {
	Name string
	Type reflect.Type
}

var fieldCache sync.Map // reflect.Type → map[string]FieldInfo

// FieldsOf returns the fields of a struct, those of embedded ones included.
func FieldsOf(t reflect.Type) map[string]FieldInfo {
	if m, ok := fieldCache.Load(t); ok {
		return m.(map[string]FieldInfo)
	}
	m := map[string]FieldInfo{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		m[name] = FieldInfo{Name: name, Type: f.Type}
	}
	fieldCache.Store(t, m)
	return m
}

func sortedFields(m map[string]FieldInfo) []FieldInfo {
	return slices.SortedFunc(maps.Values(m), func(a, b FieldInfo) int { return strings.Compare(a.Name, b.Name) })
}

// Example is one line of YAML that is right for a field of the type given, ""
// if there is none.
func (s *Schema) Example(t reflect.Type, path string) string {
	field := path[strings.LastIndexByte(path, '.')+1:]
	value := s.Examples[t]
	if t.Kind() != reflect.Struct {
		value = s.ListExamples[field]
		if value == "" && t.Kind() == reflect.Slice && s.Examples[t.Elem()] != "" {
			value = "[" + s.Examples[t.Elem()] + "]"
		}
	}
	if value == "" || strings.HasSuffix(field, "]") {
		return value // an item of a list has no name
	}
	return field + ": " + value
}

// Join is the path of a key below a path.
func Join(path, key string) string {
	if key == "" || strings.ContainsAny(key, ".[]") {
		key = fmt.Sprintf("[%q]", key)
		return path + key
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
