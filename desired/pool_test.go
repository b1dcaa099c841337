// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/desired/objects"
)

const poolHead = "apiVersion: sandboxctl.dev/v1alpha1\nkind: SandboxPool\nmetadata: {name: python}\nspec:\n"

const claimHead = "apiVersion: sandboxctl.dev/v1alpha1\nkind: SandboxClaim\nmetadata: {name: job}\nspec:\n"

// Each mistake is told with its place in the document of the pool or claim.
func TestPoolProblems(t *testing.T) {
	t.Parallel()
	const template = "  template: {root: {host: {}}, command: [sleep, '1']}\n"
	for text, want := range map[string]string{
		poolHead:                                                                              "f.yaml:4:6: spec: expected an object, got nothing",
		poolHead + "  size: 1\n":                                                              "f.yaml:5:3: spec.template: is missing: expected the spec of a Sandbox",
		poolHead + template + "  size: 65\n":                                                  "f.yaml:6:3: spec.size: expected 0 to 64, got 65",
		poolHead + template + "  size: -1\n":                                                  "f.yaml:6:3: spec.size: expected 0 to 64, got -1",
		poolHead + template + "  size: 3\n  max: 2\n":                                         "f.yaml:7:3: spec.max: expected at least size, which is 3, got 2",
		poolHead + template + "  updateStrategy: OnReplenis\n":                                `f.yaml:6:3: spec.updateStrategy: expected one of OnReplenish, Recreate, got "OnReplenis"; did you mean "OnReplenish"?`,
		poolHead + "  template:\n    root: {host: {}}\n    comand: [sleep]\n":                 "f.yaml:7:5: spec.template.comand: ",
		poolHead + "  template:\n    root: {host: {}}\n    command: []\n":                     "f.yaml:7:5: spec.template.command: ",
		poolHead + "  template:\n    root: {host: {}}\n    command: [a]\n    suspend: true\n": "f.yaml:8:5: spec.template.suspend: is for claims; remove it",
		poolHead + "  template:\n    command: [a]\n":                                          "f.yaml:6:5: spec.template.root: is missing: expected one of host, dir, bundle, image",
		poolHead + template + "  replicas: 2\n":                                               "f.yaml:6:3: spec.replicas: replicas has another name here; use size: 2",

		claimHead + "  command: [a]\n":                                             "f.yaml:5:3: spec.pool: is missing: expected the name of a SandboxPool",
		claimHead + "  pool: No_Name\n":                                            "f.yaml:5:3: spec.pool: expected a DNS label",
		claimHead + "  pool: p\n  env: [{name: '1', value: x}]\n":                  "f.yaml:6:10: spec.env[0].name: expected the name of an environment variable",
		claimHead + "  pool: p\n  ttl: 1ms\n":                                      "f.yaml:6:3: spec.ttl: expected at least 1s, got 1ms",
		claimHead + "  pool: p\n  volumes: [{name: a, mountPath: b, tmpfs: {}}]\n": "f.yaml:6:23: spec.volumes[0].mountPath: ",
		claimHead + "  pool: p\n  root: {host: {}}\n":                              "f.yaml:6:3: spec.root: ",
		claimHead + "  pool: p\n  activeDeadline: 1h\n":                            "f.yaml:6:3: spec.activeDeadline: activeDeadline has another name here; use ttl: 1h",
		strings.Replace(claimHead, "{name: job}", "{name: job, annotations: {sandboxctl.dev/pool: x}}", 1) + "  pool: p\n": "sandboxctl.dev/pool",
		strings.Replace(claimHead, "{name: job}", "{name: Job}", 1) + "  pool: p\n":                                        "f.yaml:3:12: metadata.name: expected a DNS label",
		// What a sandbox was made of is on record, and nobody else's to say.
		strings.Replace(poolHead, "{name: python}", "{name: python, annotations: {sandboxctl.dev/claim: x}}", 1) + template:  "f.yaml:3:40: metadata.annotations[\"sandboxctl.dev/claim\"]: is what sandboxctl says of the sandbox of a claim; remove it",
		strings.Replace(minimal, "{name: web}", "{name: web, annotations: {sandboxctl.dev/pool: python}}", 1):                "metadata.annotations[\"sandboxctl.dev/pool\"]: is what sandboxctl says of the sandbox of a claim; remove it",
		strings.Replace(minimal, "{name: web}", "{name: web, annotations: {sandboxctl.dev/template-deadline: 1s}, x: y}", 1): "sandboxctl.dev/template-deadline\"]: is what",
		// A claim has the name of its sandbox.
		claimHead + "  pool: p\n---\n" + strings.Replace(minimal, "web", "job", 1): "metadata.name: sandbox \"job\" is also defined at",
	} {
		_, ps := Decode("f.yaml", []byte(text))
		var lines []string
		for _, p := range ps {
			lines = append(lines, p.Error())
		}
		if got := strings.Join(lines, "\n"); !strings.Contains(got, want) {
			t.Errorf("%s\n%v\nexpected %s", text, got, want)
		}
	}
}

// A pool has the defaults of what is used once, and a claim is a sandbox of its name.
func TestPool(t *testing.T) {
	t.Parallel()
	docs, ps := Decode("f.yaml", []byte(poolHead+"  template: {root: {host: {}}, command: [a]}\n---\n"+claimHead+"  pool: python\n  ttl: 1m\n  env: [{name: A, value: b}]\n"))
	if len(ps) > 0 || len(docs) != 2 {
		t.Fatalf("%v %v", docs, ps)
	}
	p := docs[0].Pool
	if docs[0].Name != "pool/python" || docs[0].Object.Name() != "pool/python" || p == nil || *p.Size != 1 || p.UpdateStrategy != UpdateOnReplenish || p.Max != 0 {
		t.Fatalf("%+v", docs[0])
	}
	if s := p.Template; s.RestartPolicy != RestartNever || *s.MinReadySeconds != 0 || time.Duration(*s.TTLAfterFinished) != 0 || s.Hostname != "" {
		t.Errorf("%+v", s)
	}
	if p.Value("size") != "1" || p.Value("template.command") != `["a"]` || OwnFile(docs[0].Name) != "python.pool.yaml" || Described(docs[0].Name) != `SandboxPool "python"` {
		t.Errorf("%q %q %q", p.Value("template.command"), OwnFile(docs[0].Name), Described(docs[0].Name))
	}
	e := docs[1].Entry()
	if e.Claim == nil || e.Claim.Pool != "python" || e.Sandbox.Metadata.Name != "job" || e.Digest != "" || time.Duration(*e.Sandbox.Spec.ActiveDeadline) != time.Minute || OwnFile(docs[1].Name) != "job.yaml" {
		t.Errorf("%+v", e)
	}
	if kind, name, ok := objects.Split("pool/python"); kind != objects.Pool || name != "python" || !ok {
		t.Errorf("%s %s %v", kind, name, ok)
	}
}
