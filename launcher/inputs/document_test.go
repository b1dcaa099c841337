// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/setup"
)

var hostKey = objects.HostKey(strings.Repeat("k", objects.HostKeySize))

// withDocuments reads for a start of a sandbox with these fields.
func (f *fixture) withDocuments(fields string, documents ...string) (*Read, *desired.Sandbox, Documents, error) {
	f.t.Helper()
	text := "apiVersion: " + desired.APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [a]\n  " + fields + "\n"
	for _, d := range documents {
		kind, rest, _ := strings.Cut(d, " ")
		text += "---\napiVersion: " + desired.APIVersion + "\nkind: " + kind + "\nmetadata: {name: c}\n" + rest + "\n"
	}
	docs, problems := desired.Decode("m.yaml", []byte(text))
	if len(problems) > 0 {
		f.t.Fatal(problems)
	}
	given := Documents{HostKey: hostKey}
	for i := range docs[1:] {
		given.Objects = append(given.Objects, desired.Object{Object: docs[1+i].Object, Source: docs[1+i].Position})
	}
	got, err := ForStart(f.t.Context(), docs[0].Sandbox, given, f.policy, f.host)
	return got, docs[0].Sandbox, given, err
}

// Values of documents become variables and files, and what is noted of them is what the
// planner sees.
func TestDocuments(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("token", "in a file\n")
	fields := "envFrom: [{config: c}, {secret: c, prefix: S_}, {config: none, optional: true}]\n  env: [{name: E, valueFrom: {secret: {name: c, key: x}}}, {name: F, valueFrom: {config: {name: c, key: token}}}, {name: G, valueFrom: {config: {name: c, key: none, optional: true}}}]\n" +
		"  volumes: [{name: all, mountPath: /a, secret: {name: c, mode: \"0400\"}}, {name: one, mountPath: /b, config: {name: c, items: [{key: a, path: d/e, mode: \"0440\"}]}}, {name: opt, mountPath: /c, config: {name: none, optional: true}}]"
	got, sb, docs, err := f.withDocuments(fields, "Config data: {a: \"1\"}\nfiles: {token: "+f.path("token")+"}", "Secret data: {x: c2VjcmV0}\nstringData: {z: plain}")
	want := []envfile.Variable{{Name: "a", Value: "1"}, {Name: "token", Value: "in a file"}, {Name: "S_x", Value: "secret"}, {Name: "S_z", Value: "plain"}, {Name: "E", Value: "secret"}, {Name: "F", Value: "in a file"}}
	if err != nil || !slices.Equal(got.Variables, want) {
		t.Fatalf("%+v %v, expected %+v", got.Variables, err, want)
	}
	files := map[string][]setup.MemoryFile{
		"all": {{Name: "x", Mode: 0o400, Data: []byte("secret")}, {Name: "z", Mode: 0o400, Data: []byte("plain")}},
		"one": {{Name: "d/e", Mode: 0o440, Data: []byte("1")}}, "opt": nil,
	}
	if !reflect.DeepEqual(got.Files, files) {
		t.Errorf("%+v, expected %+v", got.Files, files)
	}
	noted := map[string]string{}
	for _, in := range got.Inputs {
		noted[in.File] = in.ID
	}
	id, err := hostfs.LookAtFile(f.path("token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range sb.Spec.FileRefs() {
		name, key, _ := objects.Referred(ref.Path)
		expected := ""
		if o := docs.Objects.Lookup(name); o != nil && (key == "" || o.Has(key)) {
			keys := []string{key}
			if key == "" {
				keys = o.Keys()
			}
			expected = o.ID(hostKey, keys, func(string) string { return id })
		}
		if got, there := noted[ref.Path]; !there || got != expected {
			t.Errorf("%s is noted as %q, expected %q", ref.Path, got, expected)
		}
	}
}

// What a start can't have is told with its field, and without a value; trying again can't
// help before somebody changes something.
func TestDocumentErrors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("large", strings.Repeat("x", desired.MaxFileSize+1))
	for name, c := range map[string]struct{ fields, document, want string }{
		"no document":   {"envFrom: [{secret: c}]", "", `spec.envFrom[0].secret: Secret "c" does not exist`},
		"no key":        {"env: [{name: A, valueFrom: {config: {name: c, key: a}}}]", "Config data: {b: hunter2}", `spec.env[0].valueFrom.config: Config "c" has no key "a"`},
		"no name":       {"envFrom: [{secret: c}]", "Secret stringData: {1.conf: hunter2}", `spec.envFrom[0].secret: "1.conf" can't be the name of a variable`},
		"NUL":           {"envFrom: [{secret: c}]", "Secret data: {a: aHVudGVyMgA=}", `spec.envFrom[0].secret: key a: byte 8 is a NUL`},
		"no text":       {"env: [{name: A, valueFrom: {secret: {name: c, key: a}}}]", "Secret data: {a: aHVudGVyMv8=}", `spec.env[0].valueFrom.secret: key a: expected UTF-8`},
		"not allowed":   {"envFrom: [{config: c}]", "Config files: {a: /etc/shadow}", `Config "c" (m.yaml:9:1), a: `},
		"file missing":  {"volumes: [{name: v, mountPath: /v, config: {name: c}}]", "Config files: {a: " + f.path("none") + "}", `spec.volumes[0].config.name: Config "c" (m.yaml:9:1), a: open`},
		"file is large": {"volumes: [{name: v, mountPath: /v, config: {name: c, items: [{key: a, path: b}]}}]", "Config files: {a: " + f.path("large") + "}", `spec.volumes[0].config.items[0].key: Config "c" (m.yaml:9:1), a: read`},
	} {
		documents := []string{c.document}
		if c.document == "" {
			documents = nil
		}
		got, _, _, err := f.withDocuments(c.fields, documents...)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || len(got.Variables) > 0 {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
		if name != "not allowed" && !operation.PreconditionFailed(err) {
			t.Errorf("%s: %v is no failed precondition", name, err)
		}
	}
	// However often a document is named, no more is read than a sandbox may have.
	f.write("full", strings.Repeat("x", desired.MaxFileSize))
	var items []string
	for i := range 20 {
		items = append(items, fmt.Sprintf("{key: a, path: f%d}", i))
	}
	_, _, _, err := f.withDocuments("volumes: [{name: v, mountPath: /v, config: {name: c, items: ["+strings.Join(items, ", ")+"]}}]", "Config files: {a: "+f.path("full")+"}")
	if err == nil || !strings.Contains(err.Error(), "have more than 8388608 bytes") {
		t.Errorf("%v", err)
	}
}

// A document that names a large file under hundreds of keys takes no more memory than a
// sandbox may have, however it is referred to.
func TestDocumentsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.write("full", strings.Repeat("x", desired.MaxFileSize))
	f.write("value", strings.Repeat("x", envfile.MaxValue))
	keys := func(file string) string {
		var out []string
		for i := range 300 {
			out = append(out, fmt.Sprintf("k%d: %s", i, f.path(file)))
		}
		return "Config files: {" + strings.Join(out, ", ") + "}"
	}
	for name, c := range map[string]struct{ fields, document string }{
		"volume":    {"volumes: [{name: v, mountPath: /v, config: {name: c}}]", keys("full")},
		"volumes":   {"volumes: [{name: v, mountPath: /v, config: {name: c}}, {name: w, mountPath: /w, config: {name: c}}]", keys("full")},
		"variables": {"envFrom: [{config: c}]", keys("value")},
		"many":      {"envFrom: [{config: c}, {config: c, prefix: A_}, {config: c, prefix: B_}]", keys("value")},
	} {
		got, _, _, err := f.withDocuments(c.fields, c.document)
		if !operation.PreconditionFailed(err) || !strings.Contains(err.Error(), "have more than 8388608 bytes") {
			t.Errorf("%s: %v", name, err)
		}
		taken := 0
		for _, v := range got.Variables {
			taken += len(v.Value)
		}
		for _, files := range got.Files {
			for _, file := range files {
				taken += len(file.Data)
			}
		}
		if taken > desired.MaxFileSets+desired.MaxFileSize || len(got.Inputs) > 0 {
			t.Errorf("%s: %d bytes were kept, %d inputs noted", name, taken, len(got.Inputs))
		}
	}
}
