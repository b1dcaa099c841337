// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/reconcile"
)

// What people type for documents is understood, and no sandbox is hidden by a word.
func TestParse(t *testing.T) {
	t.Parallel()
	w := &world.World{Statuses: []reconcile.Status{{Name: "web"}, {Name: "secret"}}}
	for args, want := range map[string]string{
		"":                            "sandboxes []",
		"web":                         "sandboxes [web]",
		"web secret":                  "sandboxes [web secret]",
		"secret":                      "sandboxes [secret]", // one is called so
		"secret web":                  "sandboxes [secret web]",
		"sandboxes":                   "sandboxes []",
		"sandbox web":                 "sandboxes [web]",
		"sandbox/web":                 "sandboxes [sandbox/web]", // told with what is meant
		"other/web":                   "sandboxes [other/web]",
		"secrets":                     "Secret []",
		"configs":                     "Config []",
		"configs a b a":               "Config [config/a config/b]",
		"cm a":                        "Config [config/a]",
		"configmap a":                 "Config [config/a]",
		"config config/a":             "Config [config/a]",
		"secrets a":                   "Secret [secret/a]",
		"secret/a":                    " [secret/a]",
		"secrets/a configmaps/b cm/b": " [secret/a config/b]",
		"config/a web":                "expected sandboxes or documents, got both: web and config/a",
		"web config/a":                "expected sandboxes or documents, got both: web and config/a",
		"new config/a":                "expected sandboxes or documents, got both: new and config/a",
	} {
		q, rest, err := Parse(w, strings.Fields(args))
		got := fmt.Sprintf("sandboxes %v", rest)
		switch {
		case err != nil:
			got = err.Error()
		case q != nil:
			got = fmt.Sprintf("%s %v", q.kind, q.names)
		}
		if got != want {
			t.Errorf("%s: %s, expected %s", args, got, want)
		}
	}
}

// No format shows a value of a Secret, wherever it is, and all show those of a Config.
func TestNoSecretShown(t *testing.T) {
	t.Parallel()
	values := map[string][]byte{"text": []byte("hidden-1"), "lines": []byte("hidden-2\nhidden-3\n"), "binary": []byte("hidden-4\xff"), "empty": nil}
	files := map[string]string{"file": "/srv/hidden"}
	w := &world.World{}
	for _, kind := range []string{objects.Config, objects.Secret} {
		w.In.Desired = &desired.Snapshot{Objects: desired.Objects{{Object: objects.New(kind, "a", values, files), Source: desired.Position{File: "a.yaml", Line: 1}}}}
		for _, output := range []string{"", "wide", "json", "yaml", "name", "describe", "describe json", "describe yaml"} {
			for _, args := range [][]string{{kindOf(kind) + "s"}, {kindOf(kind), "a"}} {
				var out, warnings bytes.Buffer
				h := &world.Host{Stdout: &out, Stderr: &warnings}
				q, _, err := Parse(w, args)
				if err == nil {
					if format, isDescribe := strings.CutPrefix(output, "describe"); isDescribe {
						err = q.Describe(h, w, strings.TrimSpace(format))
					} else {
						err = q.Get(h, w, output)
					}
				}
				if err != nil || out.Len() == 0 {
					t.Fatalf("%s %v: %v, %q", output, args, err, &out)
				}
				shown := strings.Contains(strings.ReplaceAll(out.String()+warnings.String(), files["file"], ""), "hidden") || strings.Contains(out.String(), "aGlkZGVu")
				full := slices.Contains([]string{"json", "yaml", "describe", "describe json", "describe yaml"}, output)
				if shown != (kind == objects.Config && full) {
					t.Errorf("%s of a %s: shown: %v\n%s", output, kind, shown, &out)
				}
				if full && !strings.Contains(out.String(), files["file"]) {
					t.Errorf("%s of a %s: where is the file?\n%s", output, kind, &out)
				}
			}
		}
	}
}

// A document with hundreds of keys does not make a table of lines that nobody can read; those
// who want all of them get all.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, mostKeys, mostKeys + 1, mostKeys + 2, objects.MaxKeys} {
		values := map[string][]byte{}
		for i := range n {
			values[fmt.Sprintf("KEY_%03d", i)] = nil
		}
		w := &world.World{}
		w.In.Desired = &desired.Snapshot{Objects: desired.Objects{{Object: objects.New(objects.Secret, "a", values, nil)}}}
		for output, all := range map[string]bool{"": n <= mostKeys+1, "wide": true, "json": true} {
			var out bytes.Buffer
			q, _, err := Parse(w, []string{"secrets"})
			if err == nil {
				err = q.Get(&world.Host{Stdout: &out}, w, output)
			}
			if err != nil {
				t.Fatal(err)
			}
			shown := strings.Count(out.String(), "KEY_")
			if all && shown != n || !all && (shown != mostKeys || !strings.Contains(out.String(), fmt.Sprintf("… (%d more)", n-mostKeys))) {
				t.Errorf("%d keys, %q: %d shown\n%.300s", n, output, shown, &out)
			}
		}
	}
}

// Who uses a document is told once for each, in whatever way it is used, also by one of two
// documents of one name and another kind.
func TestUsers(t *testing.T) {
	t.Parallel()
	w := &world.World{}
	w.In.Desired = &desired.Snapshot{}
	for name, spec := range map[string]string{
		"a": "volumes: [{name: x, mountPath: /x, volume: {name: data}}, {name: z, mountPath: /z, volume: {name: data}, subPath: sub}, {name: c, mountPath: /c, config: {name: data}}]",
		"b": "envFrom: [{secret: data}, {config: other}]",
		"c": "env: [{name: A, valueFrom: {secret: {name: data, key: A}}}, {name: B, valueFrom: {secret: {name: data, key: B}}}]",
		"d": "args: [a]",
	} {
		docs, problems := desired.Decode("f.yaml", []byte("apiVersion: "+desired.APIVersion+"\nkind: Sandbox\nmetadata: {name: "+name+"}\nspec:\n  root: {host: {}}\n  command: [a]\n  "+spec+"\n"))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		w.In.Desired.Entries = append(w.In.Desired.Entries, docs[0].Entry())
	}
	slices.SortFunc(w.In.Desired.Entries, func(a, b desired.Entry) int {
		return strings.Compare(a.Sandbox.Metadata.Name, b.Sandbox.Metadata.Name)
	})
	for _, n := range []string{"a", "b", "c", "d"} {
		w.Statuses = append(w.Statuses, reconcile.Status{Name: n})
	}
	used := usersOfAll(w)
	for object, want := range map[string]string{"volume/data": "a", "config/data": "a", "secret/data": "b c", "config/other": "b", "secret/other": ""} {
		if got := strings.Join(used[object], " "); got != want {
			t.Errorf("%s: %q, expected %q", object, got, want)
		}
		for i := range w.In.Desired.Entries {
			sb := w.In.Desired.Entries[i].Sandbox
			if refers := len(world.References(sb, object)) > 0; refers != slices.Contains(used[object], sb.Metadata.Name) {
				t.Errorf("%s of %s: %t", object, sb.Metadata.Name, refers)
			}
		}
	}
}

func kindOf(kind string) string { return strings.ToLower(kind) }
