// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"fmt"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/fromsnapshot"
)

// Without a word in the policy nobody begins from a snapshot, and they may take 16 GiB.
func TestSnapshotPolicy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                     "none 16Gi",
		"snapshots: {}":                        "none 16Gi",
		`snapshots: {names: ["*"]}`:            "python shop 16Gi",
		"snapshots: {names: [pyth*]}":          "python 16Gi",
		"snapshots: {names: [shop]}":           "shop 16Gi",
		"snapshots: {maxSize: 0}":              "none 0",
		"snapshots: {maxSize: 2Gi}":            "none 2Gi",
		"snapshots: {names: [], maxSize: 2Gi}": "none 2Gi",
	} {
		p := policyOf(t, text)
		var got []string
		for _, name := range []string{"python", "shop"} {
			sb := &desired.Sandbox{Spec: desired.Spec{Root: desired.Root{Host: &desired.HostRoot{}}, Lifecycle: desired.Lifecycle{Snapshot: &fromsnapshot.Snapshot{From: name}}}}
			desired.Default(sb)
			switch errs := p.Check(sb); {
			case len(errs) == 0:
				got = append(got, name)
			case len(errs) > 1 || errs[0].Field != "spec.snapshot.from" || !strings.Contains(errs[0].Message, "add it to snapshots.names"):
				t.Errorf("%q: %v", text, errs)
			}
		}
		if len(got) == 0 {
			got = []string{"none"}
		}
		if all := fmt.Sprint(strings.Join(got, " "), " ", *p.Snapshots.MaxSize); all != want {
			t.Errorf("%q: %s, expected %s", text, all, want)
		}
	}
	for text, want := range map[string]string{
		"snapshots: {names: [a*b]}": "snapshots.names[0]: expected the name of a snapshot, or its beginning and *",
		"snapshots: {maxSize: 1}":   "snapshots.maxSize: expected at least 1Mi",
	} {
		if _, problems := Decode("policy.yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"+text+"\n")); len(problems) != 1 || !strings.Contains(problems[0].Error(), want) {
			t.Errorf("%q: %v", text, problems)
		}
	}
}
