// SPDX-License-Identifier: Apache-2.0

package specfield

import (
	"fmt"
	"reflect"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// table is Fields by path.
var table = sync.OnceValue(func() map[string]Field {
	out := map[string]Field{}
	for _, f := range Fields() {
		out[f.Path] = f
	}
	return out
})

// Check refuses a configuration that sets a field which is refused for the way it
// comes in. The error names the field as it is in JSON, and the reason.
func Check(cfg *specs.Spec, way Way) error {
	return check(reflect.ValueOf(cfg), place{}, way)
}

// CheckProcess is Check for one more process of a container.
func CheckProcess(p *specs.Process) error {
	return check(reflect.ValueOf(p), place{"process", "process"}, Exec)
}

// place is where a value is: its path in the table, and with positions of lists
// and keys of maps between those.
type place struct{ path, shown string }

func (p place) field(name string) place {
	join := func(a string) string { return strings.TrimPrefix(a+"."+name, ".") }
	return place{join(p.path), join(p.shown)}
}

func (p place) element(key string) place { return place{p.path, p.shown + "[" + key + "]"} }

func check(v reflect.Value, at place, way Way) error {
	if f, ok := table()[at.path]; ok {
		if r := f.Rules[way]; r.Decision == Refused && asksFor(v, r) {
			return fmt.Errorf("%s: not supported: %s", at.shown, r.Why)
		}
		return nil // no row lies below another one
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return check(v.Elem(), at, way)
	case reflect.Struct:
		return checkStruct(v, at, way)
	case reflect.Slice:
		for i := range v.Len() {
			if err := check(v.Index(i), at.element(fmt.Sprint(i)), way); err != nil {
				return err
			}
		}
	case reflect.Map:
		for iter := v.MapRange(); iter.Next(); {
			if err := check(iter.Value(), at.element(iter.Key().String()), way); err != nil {
				return err
			}
		}
	default: // a value, with nothing below it
	}
	return nil
}

func checkStruct(v reflect.Value, at place, way Way) error {
	for f, value := range v.Fields() {
		next := at
		if !f.Anonymous {
			next = at.field(jsonName(f))
		}
		if err := check(value, next, way); err != nil {
			return err
		}
	}
	return nil
}

// asksFor says whether a value is more than the absence of a wish.
func asksFor(v reflect.Value, r Rule) bool {
	if v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 {
		return false
	}
	if r.allowed != nil {
		return !r.allowed(v.Interface())
	}
	if v.Kind() == reflect.Pointer && v.Elem().Kind() != reflect.Struct {
		return r.zeroToo || !v.Elem().IsZero()
	}
	return true
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
