// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"encoding/json"
	"reflect"
	"testing"

	"sandboxctl.dev/actual/ownjson"
)

// Manifests on record are read without encoding/json: that takes several times as long,
// and a verb reads those of all sandboxes.
func TestRecallOwn(t *testing.T) {
	t.Parallel()
	for _, more := range []string{
		"", "  init: false\n  terminal: true\n  user: {uid: 1, gid: 2, groups: [3]}\n", "  env: [{name: A, value: '<\"é'}, {name: B}]\n  args: [b]\n",
		"  resources: {cpu: 500m, memory: 1.2Gi, pids: 100}\n  volumes: [{name: v, mountPath: /v, tmpfs: {size: 1Mi}}, {name: w, mountPath: /w, hostPath: /srv/w, readOnly: true, options: [nosuid]}]\n",
		"  network: {mode: netns, netns: lan}\n  capabilities: {add: [NET_ADMIN], drop: [ALL]}\n  rlimits: [{type: NOFILE, soft: 1, hard: 2}]\n  hostname: h\n",
		"  restartPolicy: OnFailure\n  backoff: {initial: 1s, max: 1m30s, resetAfter: 1h, limit: 3}\n  stopSignal: RTMIN+3\n  suspend: true\n  minReadySeconds: 0\n  terminationGracePeriod: 0s\n",
		"  idMappings: {uids: [{containerID: 0, hostID: 100000, size: 10}], gids: [{containerID: 0, hostID: 100000, size: 10}]}\n",
	} {
		docs, problems := Decode("f.yaml", []byte(minimal+more))
		if len(docs) != 1 || len(problems) != 0 {
			t.Fatalf("%q: %v %v", more, docs, problems)
		}
		docs[0].Sandbox.Metadata.Labels = map[string]string{"a": "b"}
		b, err := Canonical(docs[0].Sandbox)
		if err != nil {
			t.Fatal(err)
		}
		got, want := new(Sandbox), new(Sandbox)
		if !ownjson.Try(b, got) {
			t.Errorf("it was left to encoding/json: %s", b)
		} else if err := json.Unmarshal(b, want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got\n%+v\nexpected (%v)\n%+v", b, got, err, want)
		}
	}
}

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
