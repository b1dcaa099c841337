// SPDX-License-Identifier: Apache-2.0

package actual_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/ownjson"
)

// fill gives every field a value that is written.
func fill(v reflect.Value) {
	switch {
	case !v.CanSet():
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 11, 27, 8, 0, 0, 123456789, time.UTC)))
	case v.Type() == reflect.TypeFor[json.RawMessage]():
		v.SetBytes([]byte(`{"a":["b",1.5,null]}`))
	case v.Kind() == reflect.String:
		v.SetString(`a "<word>" é`)
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(-7)
	case v.CanUint():
		v.SetUint(7)
	case v.CanFloat():
		v.SetFloat(39.448)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case v.Kind() == reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), value)
	case v.Kind() == reflect.Struct:
		for _, f := range v.Fields() {
			fill(f)
		}
	}
}

// What others read of each sandbox when they look is read without encoding/json, whatever
// is in it: that takes several times as long.
func TestOwnFiles(t *testing.T) {
	t.Parallel()
	for _, kind := range []reflect.Type{reflect.TypeFor[actual.Record](), reflect.TypeFor[actual.DaemonInfo](), reflect.TypeFor[actual.Progress]()} {
		v := reflect.New(kind)
		fill(v.Elem())
		b, err := json.Marshal(v.Interface())
		if err != nil {
			t.Fatal(err)
		}
		got, want := reflect.New(kind), reflect.New(kind)
		if !ownjson.Try(b, got.Interface()) {
			t.Errorf("%v was left to encoding/json: %s", kind, b)
		}
		if err := json.Unmarshal(b, want.Interface()); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Interface(), want.Interface()) {
			t.Errorf("%v: got\n%+v\nexpected\n%+v", kind, got, want)
		}
	}
}
