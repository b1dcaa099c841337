// SPDX-License-Identifier: Apache-2.0

// Package ownjson reads JSON that this program has written itself, several times faster
// than encoding/json: a verb that looks at many sandboxes once spends most of its time on
// that otherwise. It takes exactly the form that json.Marshal gives a value, fields in the
// order of their struct and no white space. Whatever else a file holds is left to
// encoding/json, which says what is wrong with it: this package is no second opinion on
// what is valid.
package ownjson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// Try fills v, a pointer to a zero value, with what encoding/json would make of the
// text without allowing unknown fields. False says only that the text has another form:
// then v is to be thrown away, and encoding/json is to be asked.
func Try(text []byte, v any) bool {
	to := reflect.ValueOf(v)
	if to.Kind() != reflect.Pointer || to.IsNil() {
		return false
	}
	// One string of which all that are read are parts.
	r := &reader{s: strings.TrimSuffix(string(text), "\n")}
	planFor(to.Type().Elem())(r, to.Elem())
	return !r.failed && r.at == len(r.s)
}

// Unmarshal is json.Unmarshal into a zero value, faster for what this program has
// written itself.
func Unmarshal[T any](text []byte, v *T) error {
	if Try(text, v) {
		return nil
	}
	*v = *new(T)
	return json.Unmarshal(text, v)
}

// read reads one value.
type read func(*reader, reflect.Value)

// plans are those of the types that were read, by reflect.Type.
var plans sync.Map

// making is held while a plan is made: those who begin at the same time, one on each
// processor, would make the same ones.
var making sync.Mutex

// planFor is planOf for who reads.
func planFor(t reflect.Type) read {
	if p, ok := plans.Load(t); ok {
		return p.(read)
	}
	making.Lock()
	defer making.Unlock()
	return planOf(t)
}

// planOf says how values of a type are read.
func planOf(t reflect.Type) read {
	if p, ok := plans.Load(t); ok {
		return p.(read)
	}
	p := makePlan(t)
	plans.Store(t, p)
	return p
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func makePlan(t reflect.Type) read {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return readTime
	case t == reflect.TypeFor[json.RawMessage]():
		return readRaw
	case t.PkgPath() == "" && t.Kind() != reflect.Struct:
		// It has no methods. To look for them would take longer than all that follows.
	case reflect.PointerTo(t).Implements(unmarshaler):
		return readByMethod
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		return refuse
	}
	switch t.Kind() {
	case reflect.String:
		return func(r *reader, v reflect.Value) { v.SetString(r.text()) }
	case reflect.Bool:
		return func(r *reader, v reflect.Value) { v.SetBool(r.boolean()) }
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return readInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return readUint
	case reflect.Float64:
		return func(r *reader, v reflect.Value) { v.SetFloat(r.float()) }
	case reflect.Pointer:
		return planOfPointer(t.Elem())
	case reflect.Slice:
		return planOfSlice(t)
	case reflect.Map:
		return planOfMap(t)
	case reflect.Struct:
		return planOfStruct(t)
	default:
		return refuse
	}
}

// refuse is the plan of a type that is left to encoding/json.
func refuse(r *reader, _ reflect.Value) { r.failed = true }

func readInt(r *reader, v reflect.Value) {
	n := r.integer()
	if v.OverflowInt(n) {
		r.failed = true
		return
	}
	v.SetInt(n)
}

func readUint(r *reader, v reflect.Value) {
	// encoding/json takes no sign here, not even that of -0.
	signed := r.peek() == '-'
	n := r.integer()
	if signed || v.OverflowUint(uint64(n)) {
		r.failed = true
		return
	}
	v.SetUint(uint64(n))
}

func readTime(r *reader, v reflect.Value) { r.unmarshal(v.Addr().Interface().(*time.Time)) }

func readByMethod(r *reader, v reflect.Value) { r.unmarshal(v.Addr().Interface().(json.Unmarshaler)) }

func readRaw(r *reader, v reflect.Value) { v.SetBytes([]byte(r.raw())) }

func planOfPointer(elem reflect.Type) read {
	each := planOf(elem)
	return func(r *reader, v reflect.Value) {
		v.Set(reflect.New(elem))
		each(r, v.Elem())
	}
}

func planOfSlice(t reflect.Type) read {
	if t.Elem().Kind() == reflect.Uint8 {
		return refuse // base64
	}
	each := planOf(t.Elem())
	return func(r *reader, v reflect.Value) {
		v.Set(reflect.MakeSlice(t, 0, 1))
		for r.open('['); r.next(']'); {
			n := v.Len()
			v.Grow(1)
			v.SetLen(n + 1)
			v.Index(n).SetZero()
			each(r, v.Index(n))
		}
	}
}

func planOfMap(t reflect.Type) read {
	if t.Key() != reflect.TypeFor[string]() {
		return refuse
	}
	each := planOf(t.Elem())
	return func(r *reader, v reflect.Value) {
		v.Set(reflect.MakeMap(t))
		for r.open('{'); r.next('}'); {
			key := reflect.ValueOf(r.text())
			r.take(':')
			value := reflect.New(t.Elem()).Elem()
			each(r, value)
			v.SetMapIndex(key, value)
		}
	}
}

// field is one of a struct: its name as it is written, with quotes and a colon.
type field struct {
	key   string
	index []int
	read  read
}

func planOfStruct(t reflect.Type) read {
	fields, ok := fieldsOf(t, nil)
	if !ok {
		return refuse
	}
	return func(r *reader, v reflect.Value) {
		r.open('{')
		for i := range fields {
			f := &fields[i]
			if !r.key(f.key) {
				continue
			}
			if len(f.index) == 1 {
				f.read(r, v.Field(f.index[0]))
			} else {
				f.read(r, v.FieldByIndex(f.index))
			}
		}
		r.close('}')
	}
}

// fieldsOf are the fields of a struct in the order in which they are written. It is not
// ok if encoding/json has rules for one that this package has not.
func fieldsOf(t reflect.Type, within []int) (fields []field, ok bool) {
	seen := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		index := slices.Concat(within, []int{i})
		switch {
		case tag == "-" || !f.IsExported() && !f.Anonymous:
			continue
		case strings.Contains(options, "string") || !f.IsExported():
			return nil, false
		case f.Anonymous && tag == "":
			if f.Type.Kind() != reflect.Struct {
				return nil, false
			}
			below, ok := fieldsOf(f.Type, index)
			if !ok {
				return nil, false
			}
			fields = append(fields, below...)
		case name == "":
			fields = append(fields, field{`"` + f.Name + `":`, index, planOf(f.Type)})
		default:
			fields = append(fields, field{`"` + name + `":`, index, planOf(f.Type)})
		}
	}
	for _, f := range fields {
		// Which of two fields of a name counts depends on how deep they are.
		if seen[strings.ToLower(f.key)] {
			return nil, false
		}
		seen[strings.ToLower(f.key)] = true
	}
	return fields, true
}
