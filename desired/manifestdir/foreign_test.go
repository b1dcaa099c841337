// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"strings"
	"testing"

	"sandboxctl.dev/desired"
)

// Files of other programs that stand in real checkouts.
var foreignFiles = map[string]string{
	"cm.yaml":            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n",
	"deploy.yaml":        "# of the cluster\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: wiki\nspec: {replicas: 1}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: wiki}\n",
	"docker-compose.yml": "services:\n  db: {image: postgres:16}\n",
	"compose.yaml":       "x-common: &common\n  restart: always\nservices:\n  web:\n    <<: *common\n    command: [a, b]\n",
	"mkdocs.yml":         "site_name: runbook\nnav:\n- Home: index.md\n",
	"package.json":       `{"name":"site","private":true}`,
	"pretty.json":        "{\n  \"name\": \"site\",\n  \"scripts\": {\"kind\": \"x\"}\n}\n",
	"list.json":          "[1, 2]\n",
	"workflow.yml":       "name: ci\non: [push]\njobs:\n  build:\n    runs-on: debian\n",
	"playbook.yml":       "- hosts: all\n  tasks:\n  - debug: {msg: hello}\n",
	"chart.yaml":         "apiVersion: v2\nname: chart\nversion: 1.0.0\n",
	"template.yaml":      "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Values.name }}\n  {{- if .Values.x }}\n",
	"other-sandbox.yaml": "apiVersion: agents.x-k8s.io/v1beta1\nkind: Sandbox\nmetadata: {name: demo}\nspec: {}\n",
	"quoted.yaml":        "\"apiVersion\": \"v1\"\n'kind': 'Secret'\n",
	"pod.json":           `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}`,
	"lock.json":          `{"lockfileVersion": 3, "packages": {` + strings.Repeat(`"a": {"version": "1"}, `, 10000) + `"z": {}}}`,
	"crd.yaml":           "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec:\n" + strings.Repeat("  a: {b: c}\n", 10000),
	"huge.yaml":          "openapi: 3.0.0\npaths:\n" + strings.Repeat("  /a: {get: {}}\n", 80000),
	"embeds.yaml":        "apiVersion: v1\nkind: ConfigMap\ndata:\n  web.yaml: |\n    apiVersion: sandboxctl.dev/v1alpha1\n    kind: Sandbox\n",
}

// Each is one short warning, and nothing else: it blocks no removal.
func TestForeign(t *testing.T) {
	t.Parallel()
	for file, text := range foreignFiles {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			v := &scenery{newTree(t, Options{})}
			v.write("a.yaml", named("a"))
			v.write("b.yaml", named("b"))
			v.write(file, text)
			s := v.settled()
			v.expect(s, "a b", "")
			if len(s.Problems) != 0 || len(s.Warnings) != 1 {
				t.Fatalf("problems %v, warnings %v", s.Problems, s.Warnings)
			}
			w := s.Warnings[0].Error()
			if !strings.HasPrefix(w, file+":") || !strings.Contains(w, desired.IgnoreFile) || len(w) > 200 || strings.Contains(w, "\n") {
				t.Errorf("warning %q", w)
			}
			v.rm("a.yaml")
			if s := v.settled(); !s.Removed("a", "a.yaml") {
				t.Errorf("a is held back: %+v", s)
			}
			v.write(desired.IgnoreFile, file+"\n")
			if s := v.settled(); len(s.Warnings) != 0 {
				t.Errorf("ignored, and: %v", s.Warnings)
			}
		})
	}
}

// One word of a manifest is mistyped, so that it is for another program: its sandbox is
// not gone.
func TestForeignDisowned(t *testing.T) {
	t.Parallel()
	v := &scenery{newTree(t, Options{})}
	v.write("a.yaml", named("a"))
	v.write("b.yaml", named("b")+"---\n"+named("c"))
	v.settled()
	v.write("a.yaml", strings.Replace(named("a"), "sandboxctl.dev", "example.org", 1))
	v.write("b.yaml", strings.Replace(named("b"), "sandboxctl.dev", "example.org", 1))
	for range 3 {
		s := v.settled()
		if s.Removed("a", "a.yaml") || s.Removed("b", "b.yaml") {
			t.Fatalf("taken for removed: %+v", s)
		}
		if !s.Removed("c", "b.yaml") || !s.Removed("a", "elsewhere.yaml") {
			t.Fatalf("held back: %+v", s)
		}
	}
}
