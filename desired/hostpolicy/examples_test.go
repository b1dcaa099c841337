// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"os"
	"path/filepath"
	"testing"

	"sandboxctl.dev/desired"
)

// Every example is valid, the example policy allows all of them, and without a
// policy all but those that need a namespace, a network of CNI or a snapshot are allowed.
func TestExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../examples/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policy, problems := Decode("policy.yaml", text)
	if policy == nil {
		t.Fatal(problems)
	}
	files, err := filepath.Glob("../../examples/[mi]*/*.yaml")
	if err != nil || len(files) < 9 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, ps := (desired.Decoder{Policy: policy}).Decode(f, b); len(ps) > 0 {
			t.Errorf("%v", ps)
		}
		_, ps := (desired.Decoder{Policy: Default()}).Decode(f, b)
		if want := filepath.Base(f) == "networked.yaml" || filepath.Base(f) == "cni.yaml" || filepath.Base(f) == "snapshot.yaml"; len(ps) > 0 != want {
			t.Errorf("without a policy file: %v", ps)
		}
	}
}
