// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/desired/objects"
)

const objectHead = "apiVersion: " + APIVersion + "\nkind: %s\nmetadata: {name: web}\n"

// Values are what their documents say, as in Kubernetes.
func TestObjects(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ kind, text, key, want string }{
		"text":           {"Config", "data: {a: \"1\"}", "a", "1"},
		"empty":          {"Config", "data: {a: \"\"}", "a", ""},
		"block":          {"Config", "data:\n  app.conf: |\n    listen 80\n", "app.conf", "listen 80\n"},
		"binary":         {"Config", "binaryData: {a: AP8=}", "a", "\x00\xff"},
		"secret":         {"Secret", "data: {a: c2VjcmV0}", "a", "secret"},
		"wrapped":        {"Secret", "data:\n  a: |\n    c2Vj\n    cmV0\n", "a", "secret"},
		"string":         {"Secret", "stringData: {a: c2VjcmV0}\ntype: Opaque", "a", "c2VjcmV0"},
		"dots and dash":  {"Config", "data: {_A-b.c: x}", "_A-b.c", "x"},
		"a hidden file":  {"Config", "data: {.env: x}", ".env", "x"},
		"nothing at all": {"Config", "metadata_: x", "", ""},
	} {
		text := strings.TrimSuffix(fmt.Sprintf(objectHead, c.kind)+c.text, "metadata_: x")
		docs, ps := Decode("f.yaml", []byte(text))
		if len(ps) > 0 || len(docs) != 1 || docs[0].Object == nil || docs[0].Sandbox != nil {
			t.Errorf("%s: %v", name, ps)
			continue
		}
		o := docs[0].Object
		if o.Has(c.key) != (c.key != "") || string(o.Value(c.key)) != c.want || docs[0].Name != strings.ToLower(c.kind)+"/web" || o.Name() != docs[0].Name {
			t.Errorf("%s: %q is %q", name, docs[0].Name, o.Value(c.key))
		}
	}
}

// What is wrong with a document is told with its place. Nothing of a secret is in it,
// whatever is wrong: neither in a field, nor in the syntax.
func TestObjectProblems(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Config\ndata: {a: 1}":                                         `f.yaml:4:11: data.a: expected a string, got the number 1; quote it: "1"`,
		"Config\ndata: [a]":                                            `f.yaml:4:7: data: expected an object of names and values, got a list`,
		"Config\ndata: {a/b: x}":                                       `f.yaml:4:8: data.a/b: expected a key of letters`,
		"Config\ndata: {\"..\": x}":                                    `expected a key of letters`,
		"Config\ndata: {\"\": x}":                                      `expected a key of letters`,
		"Config\ndata: {a: x}\nbinaryData: {a: eA==}":                  `f.yaml:5:14: binaryData.a: a is given twice, also as data.a`,
		"Config\nstringData: {a: x}":                                   `stringData has another name here; use data`,
		"Config\nimmutable: true":                                      `use onChange: ignore`,
		"Config\nspec: {a: x}":                                         `spec has another name here; use data`,
		"Config\nfiles: {a: b}":                                        `f.yaml:4:9: files.a: expected an absolute path, got "b"`,
		"Config\nbinaryData: {a: hello!}":                              `f.yaml:4:14: binaryData.a: expected base64; text that is not encoded belongs into data`,
		"Secret\ndata: {a: \"hunter2hunter2!\"}":                       `f.yaml:4:8: data.a: expected base64; text that is not encoded belongs into stringData`,
		"Secret\nstringData: {a: 47112233}":                            `f.yaml:4:17: stringData.a: expected a string, got a number; quote it`,
		"Secret\nstringData: {a: 4711.2233}":                           `expected a string, got a number; quote it`,
		"Secret\nstringData: {a: 2001-12-11}":                          `expected a string, got a date; quote it`,
		"Secret\nstringData: {a: true}":                                `expected a string, got a boolean; quote it`,
		"Secret\nstringData: {a: {b: hunter2}}":                        `expected a string, got an object`,
		"Secret\nstringData: {a: [hunter2]}":                           `expected a string, got a list`,
		"Secret\nstringData: hunter2":                                  `f.yaml:4:13: stringData: expected an object of names and values, got a text; for example`,
		"Secret\nstringData: {a: *hunter2}":                            `a value that begins with * is an alias`,
		"Secret\nstringData: {a: &hunter2 b}":                          `anchors and aliases are not allowed`,
		"Secret\nstringData: {a: \"hunter2}":                           `not YAML`,
		"Secret\nstringData: {a: %hunter2}":                            `not YAML`,
		"Secret\nstringData: {a: \"hunter2\", a: \"hunter2\"}":         `is given twice, first in line`,
		"Secret\nstringData: {a: hunter2}\ndata: {a: aHVudGVyMg==}":    `a is given twice, also as data.a`,
		"Secret\nstringData:\n\ta: hunter2":                            `not YAML`,
		"Secret\nstringData: {a: hunter2}\nmetadat: {b: hunter2}":      `unknown field`,
		"Secret\ntype: 12\nstringData: {a: hunter2}":                   `type: expected a string, got a number`,
		"Secret\nstringData: {a: !!binary hunter2}":                    `tags such as`,
		"Secret\nstringData: {a: !hunter2 }":                           `f.yaml:4:17: tags such as !!str are not allowed`,
		"Secret\nstringData: {a: !!hunter2 b}":                         `tags such as`,
		"Secret\nstringData:\n  a: !hunter2\n":                         `quote a value that begins with an exclamation mark`,
		"Secret\nstringData: {a:hunter2}":                              `f.yaml:4:14: stringData: a key has no value; write "" for an empty one, and quote one with a colon or comma in it`,
		"Secret\nstringData: {a: 12,hunter2}":                          `f.yaml:4:20: stringData: a key has no value`,
		"Secret\nstringData: {a: \"x\", 4711}":                         `f.yaml:4:22: stringData: a key has no value`,
		"Secret\ndata: {a: x, ? [hunter2]}":                            `a key has no value`,
		"Secret\nstringData: {4711: x}":                                `f.yaml:4:14: stringData: expected a field name, got a number; quote it`,
		"Secret\nfiles: {a: hunter2}":                                  `f.yaml:4:9: files.a: expected the absolute path of a file; a value itself belongs into stringData`,
		"Secret\nfiles: {a: /hunter2//x}":                              `files.a: expected the absolute path of a file`,
		"Secret\nstringData:\n  a: |\n    x\n---\nhunter2\n":           `f.yaml:8:1: expected a manifest with apiVersion, kind, metadata and spec, got a text`,
		"Secret\nstringData:\n  a: |\n    x\n---\n4711\n":              `got a number`,
		"Secret\nstringData: {a: hunter2}\nbinaryData: {b: aHVudGVy=}": `use data`,
		"Secrets\nstringData: {a: hunter2}":                            `f.yaml:2:7: kind: expected one of Sandbox, Config, Secret, Volume, Network, SandboxPool, SandboxClaim, got "Secrets"`,
	} {
		kind, body, _ := strings.Cut(text, "\n")
		docs, ps := Decode("f.yaml", []byte(fmt.Sprintf(objectHead, kind)+body))
		var got []string
		for _, p := range ps {
			got = append(got, p.Error())
			if kind == "Secret" && p.Name != "secret/web" && !strings.Contains(p.Message, "not YAML") && !strings.Contains(p.Message, "not allowed") && !strings.Contains(p.Message, "is an alias") && len(docs) == 1 {
				t.Errorf("%s: it is about %q", text, p.Name)
			}
		}
		all := strings.Join(got, "\n")
		if !strings.Contains(all, want) || docs[0].Object != nil && len(docs) == 1 {
			t.Errorf("%s: got\n%s\nexpected\n%s", text, all, want)
		}
		if kind != "Config" && (strings.Contains(all, "hunter") || strings.Contains(all, "aHVud") || strings.Contains(all, "4711") || strings.Contains(all, "12-11")) {
			t.Errorf("a secret is shown: %s", all)
		}
	}
}

// Kinds have names of their own: a Config is no Sandbox of the same name, also when it
// can't be read.
func TestObjectNames(t *testing.T) {
	t.Parallel()
	sandbox := "apiVersion: " + APIVersion + "\nkind: Sandbox\nmetadata: {name: web}\nspec: {root: {host: {}}, command: [a]}\n"
	config := fmt.Sprintf(objectHead, "Config") + "data: {a: x}\n"
	secret := fmt.Sprintf(objectHead, "Secret") + "stringData: {a: x}\n"
	all := strings.Join([]string{sandbox, config, secret}, "---\n")
	docs, ps := Decode("f.yaml", []byte(all))
	if len(ps) > 0 || len(docs) != 3 {
		t.Fatal(ps)
	}
	for name, left := range map[string]string{"web": config + "---\n" + secret, "config/web": sandbox + "---\n" + secret, "secret/web": sandbox + "---\n" + config} {
		got, err := Without("f.yaml", []byte(all), name)
		if err != nil || strings.TrimPrefix(string(got), "---\n") != left {
			t.Errorf("without %s: %v\n%s", name, err, got)
		}
	}
	_, ps = Decode("f.yaml", []byte(all+"---\n"+config))
	if len(ps) != 1 || ps[0].Name != "config/web" || !strings.Contains(ps[0].Message, `Config "web" is also defined at f.yaml:6:1`) {
		t.Errorf("%v", ps)
	}
	_, ps = Decode("f.yaml", []byte("apiVersion: "+APIVersion+"\nkind: Secret\nmetadata:\n  name: web\nstringData: {a: \"\n"))
	if len(ps) != 1 || ps[0].Name != "secret/web" {
		t.Errorf("%v", ps)
	}
	// What Kubernetes calls so is another program's.
	docs, ps = Decode("f.yaml", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: web}\ndata: {a: x}\n"))
	if len(ps) > 0 || docs[0].Foreign != "v1 Secret" || docs[0].Name != "" {
		t.Errorf("%+v %v", docs, ps)
	}
}

// No way of writing an object down by accident shows a value.
func TestObjectIsNotPrinted(t *testing.T) {
	t.Parallel()
	docs, ps := Decode("f.yaml", []byte(fmt.Sprintf(objectHead, "Secret")+"stringData: {a: hunter2}\n"))
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	o := Object{Object: docs[0].Object}
	b, err := json.Marshal([]any{o, docs[0].Object, Snapshot{Objects: Objects{o}}})
	text := string(b) + fmt.Sprintf("%v %+v %#v %s %d", docs[0].Object, docs[0].Object, docs[0].Object, o, o)
	if err != nil || strings.Contains(text, "hunter2") || strings.Contains(text, "104 117 110") {
		t.Errorf("%v %s", err, text)
	}
}

// An ID depends on the values it is about, and on the key of the host.
func TestObjectID(t *testing.T) {
	t.Parallel()
	key, other := objects.HostKey(strings.Repeat("k", objects.HostKeySize)), objects.HostKey(strings.Repeat("o", objects.HostKeySize))
	of := func(a, b string) *objects.Object {
		return objects.New(objects.Secret, "web", map[string][]byte{"a": []byte(a), "b": []byte(b)}, map[string]string{"f": "/f"})
	}
	file := "1"
	id := func(o *objects.Object, key objects.HostKey, keys ...string) string {
		return o.ID(key, keys, func(string) string { return file })
	}
	one := id(of("x", "y"), key, "a", "b", "f")
	for name, got := range map[string]string{
		"a value": id(of("z", "y"), key, "a", "b", "f"), "a boundary": id(of("xy", ""), key, "a", "b", "f"), "fewer": id(of("x", "y"), key, "a", "b"), "another host": id(of("x", "y"), other, "a", "b", "f"),
	} {
		if got == one || got == "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if id(of("x", "y"), key, "a", "b", "f") != one || id(of("x", "z"), key, "a") != id(of("x", "y"), key, "a") || id(of("x", "y"), nil, "a") != "" {
		t.Error("the ID is about something else")
	}
	if file = "2"; id(of("x", "y"), key, "a", "b", "f") == one {
		t.Error("a change of the file is not seen")
	}
	if objects.Comparable(one, id(of("x", "y"), other, "a", "b", "f")) || objects.Comparable(one, "") || !objects.Comparable(one, id(of("q", "y"), key, "a")) {
		t.Error("the keys are not told apart")
	}
}

// A key of a host is written down and read again; what is none is no key.
func TestHostKey(t *testing.T) {
	t.Parallel()
	k := objects.NewHostKey()
	if again := objects.ParseHostKey(k.Digits()); !slices.Equal(again, k) || slices.Equal(objects.NewHostKey(), k) {
		t.Errorf("%x, before %x", again, k)
	}
	for _, s := range []string{"", "00", k.Digits()[2:], k.Digits() + "00", strings.Repeat("z", len(k.Digits()))} {
		if objects.ParseHostKey(s) != nil {
			t.Errorf("%q is a key", s)
		}
	}
}

// What is wrong with how a volume refers to a document.
func TestNamedFileSet(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"secret: {name: x, files: {a: /a}}":                                  `spec.volumes[0].secret: expected name, or data and files, got both`,
		"config: {items: [{key: a, path: a}]}":                               `spec.volumes[0].config.name: is missing: expected the name of a document with these keys`,
		"config: {name: x, items: [{key: a, path: ../a}]}":                   `f.yaml:7:73: spec.volumes[0].config.items[0].path: expected the name of a file in the volume`,
		"config: {name: x, items: [{key: a/b, path: a}]}":                    `spec.volumes[0].config.items[0].key: expected a key of`,
		"config: {name: x, items: [{key: a, path: a, mode: 999}]}":           `expected a string, got the number 999`,
		"config: {name: x, items: [{key: a, path: a, mode: \"999\"}]}":       `spec.volumes[0].config.items[0].mode: expected permissions such as`,
		"config: {name: x, items: [{key: a, path: a}, {key: b, path: a}]}":   `spec.volumes[0].config.items[1].path: a is given twice`,
		"config: {name: x, items: [{key: a, path: a}, {key: b, path: a/b}]}": `spec.volumes[0].config.items[1].path: a is a file of this volume, and can't be a directory too`,
		"config: {name: A}":          `spec.volumes[0].config.name: expected a DNS label`,
		"secret: {name: x, mode: 9}": `quote it`,
	} {
		if got := problems(t, with("volumes: [{name: a, mountPath: /a, "+source+"}]")); !strings.Contains(got, want) {
			t.Errorf("%s: got\n%s\nexpected\n%s", source, got, want)
		}
	}
}
