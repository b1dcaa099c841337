// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"strings"
	"testing"

	"sandboxctl.dev/desired"
)

// What a template asks for is judged, and what a claim adds, each at its place. What the claim can't
// say is not held against it.
func TestPolicyPools(t *testing.T) {
	t.Parallel()
	decode := func(text string) (*Policy, []string) {
		p, problems := Decode("p", []byte("apiVersion: "+desired.APIVersion+"\nkind: "+desired.PolicyKind+"\n"+text+"\n"))
		var out []string
		for _, problem := range problems {
			out = append(out, problem.Error())
		}
		return p, out
	}
	p, problems := decode("root: {host: false, images: []}\nmaxPoolPlaces: 3")
	if p == nil || p.PoolPlaces() != 3 || (*Policy)(nil).PoolPlaces() != 0 || Default().PoolPlaces() != DefaultMaxPoolPlaces {
		t.Fatal(problems)
	}
	for _, bad := range []string{"-1", "65"} {
		if _, problems := decode("maxPoolPlaces: " + bad); len(problems) != 1 || !strings.Contains(problems[0], "maxPoolPlaces: expected 0 (none) to 64, got "+bad) {
			t.Errorf("%s: %v", bad, problems)
		}
	}
	const head = "apiVersion: " + desired.APIVersion + "\nkind: "
	for text, want := range map[string][]string{
		head + "SandboxPool\nmetadata: {name: p}\nspec:\n  template:\n    root: {host: {}}\n    command: [a]\n    volumes: [{name: e, mountPath: /e, hostPath: /etc}]\n": {
			"f.yaml:6:12: spec.template.root.host: ", "f.yaml:8:40: spec.template.volumes[0].hostPath: ",
		},
		head + "SandboxClaim\nmetadata: {name: c}\nspec: {pool: p, volumes: [{name: e, mountPath: /e, hostPath: /etc}]}\n": {"f.yaml:4:52: spec.volumes[0].hostPath: "},
		head + "SandboxClaim\nmetadata: {name: c}\nspec: {pool: p, env: [{name: A, valueFrom: {file: /etc/shadow}}]}\n":    {"f.yaml:4:45: spec.env[0].valueFrom.file: "},
		head + "SandboxClaim\nmetadata: {name: c}\nspec: {pool: p, env: [{name: A, value: b}]}\n":                          nil,
	} {
		_, problems := desired.Decoder{Policy: p}.Decode("f.yaml", []byte(text))
		if len(problems) != len(want) {
			t.Errorf("%s\n%v", text, problems)
			continue
		}
		for i, problem := range problems {
			if problem.Reason != desired.ReasonPolicyDenied || !strings.HasPrefix(problem.Error(), want[i]) {
				t.Errorf("%s\n%s, expected %s", text, problem.Error(), want[i])
			}
		}
	}
}
