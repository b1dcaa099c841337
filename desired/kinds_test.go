// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"strings"
	"testing"

	"sandboxctl.dev/desired/yamldoc"
)

// A document is read as what its apiVersion and kind say, whatever kinds there are.
func TestKinds(t *testing.T) {
	t.Parallel()
	type job struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Times      int    `json:"times"`
	}
	type newJob struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Often      int    `json:"often"`
	}
	kind := func(version, name string, typ reflect.Type) KindInfo {
		return KindInfo{APIVersion: version, Kind: name, What: "a " + name, Schema: func() *yamldoc.Schema { return &yamldoc.Schema{Type: typ} }}
	}
	kinds := Kinds{
		kind("v1", "Job", reflect.TypeFor[job]()), kind("v2", "Job", reflect.TypeFor[newJob]()), kind("v1", "Crew", reflect.TypeFor[job]()), kind("v3", "Pool", reflect.TypeFor[newJob]()),
	}
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: Job\ntimes: 3":  "v1 Job",
		"apiVersion: v2\nkind: Job\noften: 3":  "v2 Job",
		"apiVersion: v1\nkind: Crew\ntimes: 3": "v1 Crew",
		"kind: Pool\noften: 3":                 "v3 Pool",
		"kind: Crew\ntimes: 3":                 "v1 Crew",
		"apiVersion: v3\noften: 3":             "v3 Pool",
		"apiVersion: v2\nkind: Job\ntimes: 3":  `v2 Job f:3:1: times: unknown field "times"; expected one of apiVersion, kind, often`,
		"apiVersion: v1\nkind: Jobs":           `f:2:7: kind: expected one of Job, Crew, Pool, got "Jobs"`,
		"apiVersion: v3\nkind: Job":            `f:1:13: apiVersion: expected one of v1, v2, got "v3"`,
		"apiVersion: v2\nkind: Crew":           `f:1:13: apiVersion: expected v1, got "v2"`,
		"apiVersion: v1":                       `f:1:1: kind: is missing: expected one of Job, Crew`,
		"kind: Job":                            `f:1:1: apiVersion: is missing: expected one of v1, v2`,
		"times: 3":                             `f:1:1: kind: is missing: expected one of Job, Crew, Pool`,
		"- v1":                                 `f:1:1: expected a Job or a Crew or a Pool, got a list`,
	} {
		d := yamldoc.Parse("f", yamldoc.Chunk{Text: []byte(text), Line: 1}, kinds.Wanted())
		var got []string
		if k := kinds.Check(d); k != nil {
			got = append(got, k.APIVersion+" "+k.Kind)
		}
		for _, p := range d.Problems() {
			got = append(got, p.Error())
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %s, expected %s", text, s, want)
		}
	}
	d := yamldoc.Parse("f", yamldoc.Chunk{Line: 1}, kinds.Wanted())
	if p := d.Problems(); len(p) != 1 || !strings.Contains(p[0].Message, "expected kind: Job or Crew or Pool") {
		t.Error(p)
	}
}
