// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"
	"testing"
)

// What is recalled is what decoding gives, position included; another text, or
// one whose beginning is not plain to see, is decoded.
func TestKnown(t *testing.T) {
	t.Parallel()
	for text, recalled := range map[string]bool{
		minimal: true,
		"# a comment\n\n---\n# another\n" + minimal: true,
		"--- # a comment\n" + minimal:               false,
		"\"apiVersion\": sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: web}\nspec: {root: {host: {}}, command: [a]}\n":         false,
		`{"apiVersion":"sandboxctl.dev/v1alpha1","kind":"Sandbox","metadata":{"name":"web"},"spec":{"root":{"host":{}},"command":["a"]}}`: false,
	} {
		docs, problems := Decode("f.yaml", []byte(text))
		if len(docs) != 1 || len(problems) != 0 || docs[0].digest == "" {
			t.Fatalf("%q: %v %v", text, docs, problems)
		}
		asked := 0
		recorded := &Entry{Sandbox: docs[0].Sandbox, Hash: docs[0].hash}
		known := func(digest string) *Entry {
			asked++
			if digest != docs[0].digest {
				return nil
			}
			return recorded
		}
		// It survives the record.
		canonical, err := Canonical(docs[0].Sandbox)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := Recall(canonical, docs[0].hash, docs[0].digest); err != nil || !reflect.DeepEqual(e.Sandbox, docs[0].Sandbox) || e.Hash != Hash(e.Sandbox) {
			t.Errorf("%q: recalled %+v %v", text, e, err)
		}
		again, problems := (Decoder{Known: known}).Decode("f.yaml", []byte(text))
		if len(problems) != 0 || !reflect.DeepEqual(again, docs) || asked > 0 != recalled || (again[0].Sandbox == docs[0].Sandbox) != recalled {
			t.Errorf("%q: asked %d times, got %+v, expected %+v", text, asked, again, docs)
		}
		changed, problems := (Decoder{Known: known}).Decode("f.yaml", []byte(text+"\n# changed\n"))
		if len(problems) != 0 || changed[0].Sandbox == docs[0].Sandbox || changed[0].digest == docs[0].digest {
			t.Errorf("%q: a changed text is taken for the recorded one", text)
		}
	}
}

// A file that has a known document and a broken one loses neither.
func TestKnownBesideBroken(t *testing.T) {
	t.Parallel()
	docs, _ := Decode("f.yaml", []byte(minimal))
	known := func(string) *Entry { return &Entry{Sandbox: docs[0].Sandbox, Hash: docs[0].hash} }
	text := minimal + "---\nkind: Sandbox\nmetadata: {name: b}\n"
	got, problems := (Decoder{Known: func(d string) *Entry {
		if d == docs[0].digest {
			return known(d)
		}
		return nil
	}}).Decode("f.yaml", []byte(text))
	want, wantProblems := Decode("f.yaml", []byte(text))
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(problems, wantProblems) || len(problems) == 0 {
		t.Errorf("got %v %v, expected %v %v", got, problems, want, wantProblems)
	}
}
