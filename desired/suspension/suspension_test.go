// SPDX-License-Identifier: Apache-2.0

package suspension

import (
	"strings"
	"testing"
)

// Whatever form a manifest has, nothing but the one word changes.
func TestSetSuspend(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: web}\n"
	for name, c := range map[string]struct {
		text, want string
		suspend    bool
	}{
		"block": {head + "spec:\n  # why\n  root: {host: {}}\n  command: [a]\n", head + "spec:\n  # why\n  suspend: true\n  root: {host: {}}\n  command: [a]\n", true},
		"deep":  {head + "spec:\n      root: {host: {}}\n      command: [a]\n", head + "spec:\n      suspend: true\n      root: {host: {}}\n      command: [a]\n", true},
		"flow":  {head + "spec: {root: {host: {}}, command: [a]}\n", head + "spec: {\"suspend\": true, root: {host: {}}, command: [a]}\n", true},
		"there": {head + "spec:\n  root: {host: {}}\n  suspend: false # for now\n  command: [a]\n", head + "spec:\n  root: {host: {}}\n  suspend: true # for now\n  command: [a]\n", true},
		"back":  {head + "spec:\n  root: {host: {}}\n  suspend: true\n  command: [a]\n", head + "spec:\n  root: {host: {}}\n  suspend: false\n  command: [a]\n", false},
		"same":  {head + "spec:\n  root: {host: {}}\n  command: [a]\n", head + "spec:\n  root: {host: {}}\n  command: [a]\n", false},
		"JSON": {
			`{"apiVersion":"sandboxctl.dev/v1alpha1","kind":"Sandbox","metadata":{"name":"web"},"spec":{"root":{"host":{}},"command":["a"]}}`,
			`{"apiVersion":"sandboxctl.dev/v1alpha1","kind":"Sandbox","metadata":{"name":"web"},"spec":{"suspend": true, "root":{"host":{}},"command":["a"]}}`, true,
		},
		"one of many": {
			strings.Replace(head, "web", "a", 1) + "spec: {root: {host: {}}, command: [a]}\n---\n# web\n" + head + "spec:\n  root: {host: {}}\n  command: [a]\n---\n" + strings.Replace(head, "web", "z", 1) + "spec: {root: {host: {}}, command: [a]}\n",
			strings.Replace(head, "web", "a", 1) + "spec: {root: {host: {}}, command: [a]}\n---\n# web\n" + head + "spec:\n  suspend: true\n  root: {host: {}}\n  command: [a]\n---\n" + strings.Replace(head, "web", "z", 1) + "spec: {root: {host: {}}, command: [a]}\n", true,
		},
		"a command that says suspend": {head + "spec:\n  command: [sh, -c, 'suspend: false']\n  root: {host: {}}\n", head + "spec:\n  suspend: true\n  command: [sh, -c, 'suspend: false']\n  root: {host: {}}\n", true},
		"letters before":              {head + "spec: {hostname: x, env: [{name: Ä, value: ö}], suspend: false, root: {host: {}}, command: [a]}\n", "", true},
	} {
		got, err := Set("f.yaml", []byte(c.text), "web", c.suspend)
		if c.want == "" {
			if err != nil && !strings.Contains(err.Error(), "by hand") && !strings.Contains(err.Error(), "not valid") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	for _, text := range []string{"", "kind: [\n", head, head + "spec: {root: {host: {}}, command: [a], suspend: nonsense}\n", strings.Replace(head, "web", "other", 1) + "spec: {root: {host: {}}, command: [a]}\n"} {
		if got, err := Set("f.yaml", []byte(text), "web", true); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
}
