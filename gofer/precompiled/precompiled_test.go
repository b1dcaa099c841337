// SPDX-License-Identifier: Apache-2.0

package precompiled

import (
	"bytes"
	"reflect"
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
)

// What was written is found by a part of its name, and is the same.
func TestFind(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	all := []precompiledseccomp.Program{
		{Name: "A=true B=false", Bytecode32: []uint32{1, 0xffffffff}, VarOffsets: map[string][]int{"x": {0, 1}, "unused": nil}},
		{Name: `B=true "quoted"`, Bytecode32: []uint32{6, 0x7fff0000, 3, 4}, VarOffsets: map[string][]int{}},
	}
	for _, p := range all {
		if err := Write(&b, p); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]int{"A=true": 0, "B=false": 0, "B=": 0, "B=true": 1, "quoted": 1} {
		if got, err := Find(b.Bytes(), text); err != nil || !reflect.DeepEqual(got, all[want]) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"A=false", "C"} {
		if got, err := Find(b.Bytes(), text); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

// A program that is cut or broken is not installed in part.
func TestDecode(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "{", "{}", `{"code":"!"}`, `{"code":5}`, `{"code":""}`, `{"code":"AAAA"}`, `{"code":"AAAAAAAAAAA=","vars":{"a":["x"]}}`} {
		if p, err := decode([]byte(line)); err == nil {
			t.Errorf("%q: %+v", line, p)
		}
	}
}
