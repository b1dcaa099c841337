// SPDX-License-Identifier: Apache-2.0

package needs_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/reconcile/needs"
)

var hostKey = objects.HostKey(strings.Repeat("k", objects.HostKeySize))

// snapshot is what a directory says with these manifests.
func snapshot(t *testing.T, texts ...string) *desired.Snapshot {
	t.Helper()
	docs, problems := desired.Decode("m.yaml", []byte(strings.Join(texts, "---\n")))
	s := &desired.Snapshot{Complete: len(problems) == 0, Problems: problems}
	if len(problems) > 0 {
		s.Reason = desired.ReasonInvalidManifests
	}
	for i := range docs {
		if d := &docs[i]; d.Sandbox != nil {
			s.Entries = append(s.Entries, d.Entry())
		} else if d.Object != nil {
			s.Objects = append(s.Objects, desired.Object{Object: d.Object, Source: d.Position})
		}
	}
	slices.SortFunc(s.Objects, func(a, b desired.Object) int { return strings.Compare(a.Name(), b.Name()) })
	return s
}

const head = "apiVersion: " + desired.APIVersion + "\n"

func sandbox(fields string) string {
	return head + "kind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [a]\n  " + fields + "\n"
}

func config(fields string) string {
	return head + "kind: Config\nmetadata: {name: c}\n" + fields + "\n"
}

// A start waits for what is not there, and for what can't be told; it is told where the
// mistake is.
func TestObjectMissing(t *testing.T) {
	t.Parallel()
	const key, whole, volume = "env: [{name: A, valueFrom: {config: {name: c, key: a}}}]", "envFrom: [{config: c}]", "volumes: [{name: v, mountPath: /v, config: {name: c, items: [{key: a, path: b}]}}]"
	maybe := func(s string) string {
		return strings.NewReplacer("key: a}}", "key: a, optional: true}}", "{config: c}", "{config: c, optional: true}", "{name: c, items", "{name: c, optional: true, items").Replace(s)
	}
	files := map[string]needs.File{"/there": {ID: "1"}, "/gone": {Missing: true}, "/hangs": {Problem: "does not answer"}}
	for name, c := range map[string]struct {
		docs []string
		want string
	}{
		"key":                  {[]string{sandbox(key), config("data: {a: x}")}, ""},
		"whole":                {[]string{sandbox(whole), config("data: {a: x}")}, ""},
		"empty":                {[]string{sandbox(whole), config("data: {}")}, ""},
		"volume":               {[]string{sandbox(volume), config("data: {a: x}")}, ""},
		"no document":          {[]string{sandbox(whole)}, `spec.envFrom[0].config: Config "c" does not exist`},
		"no document, volume":  {[]string{sandbox(volume)}, `spec.volumes[0].config.items[0].key: Config "c" does not exist`},
		"no document, maybe":   {[]string{sandbox(maybe(whole))}, ""},
		"another kind":         {[]string{sandbox(whole), strings.Replace(config("stringData: {a: x}"), "Config", "Secret", 1)}, `Config "c" does not exist`},
		"no key":               {[]string{sandbox(key), config("data: {b: x}")}, `spec.env[0].valueFrom.config: Config "c" (m.yaml:9:1) has no key "a"`},
		"no key, volume":       {[]string{sandbox(volume), config("data: {b: x}")}, `has no key "a"`},
		"no key, maybe":        {[]string{sandbox(maybe(key)), config("data: {b: x}")}, ""},
		"no key, volume maybe": {[]string{sandbox(maybe(volume)), config("data: {b: x}")}, ""},
		"file":                 {[]string{sandbox(key), config("files: {a: /there}")}, ""},
		"file gone":            {[]string{sandbox(key), config("files: {a: /gone}")}, `/gone, which has its a, does not exist`},
		"file gone, maybe":     {[]string{sandbox(maybe(key)), config("files: {a: /gone}")}, ""},
		"file gone, other key": {[]string{sandbox(key), config("data: {a: x}\nfiles: {b: /gone}")}, ""},
		"file hangs, maybe":    {[]string{sandbox(maybe(whole)), config("files: {a: /hangs}")}, "/hangs, which has its a, can't be used: does not answer"},
		"broken":               {[]string{sandbox(key), config("data: {a: 1}")}, `spec.env[0].valueFrom.config: m.yaml:12:11: data.a: expected a string`},
		"broken, maybe":        {[]string{sandbox(maybe(key)), config("data: {a: 1}")}, `m.yaml:12:11: data.a: expected a string`},
		"another broken":       {[]string{sandbox(maybe(whole)), strings.Replace(config("data: {a: 1}"), "name: c", "name: d", 1)}, ""},
		"something broken":     {[]string{sandbox(maybe(whole)), "apiVersion: " + desired.APIVersion + "\nkind: Config\n"}, "it may be in a file with a problem"},
	} {
		s := snapshot(t, c.docs...)
		got, help := needs.Missing(&s.Entries[0], needs.AddObjects(maps.Clone(files), s, nil, hostKey))
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, expected %q", name, got, c.want)
		}
		if hangs := strings.Contains(c.want, "does not answer"); help != (c.want != "" && !hangs) {
			t.Errorf("%s: somebody has to help: %t", name, help)
		}
	}
	// What a directory says that is not whole is no evidence, also for what may be missing.
	s := snapshot(t, sandbox(maybe(whole)))
	s.Complete, s.Reason, s.Message = false, desired.ReasonUnsettled, "a moment ago"
	if got, help := needs.Missing(&s.Entries[0], needs.AddObjects(nil, s, nil, hostKey)); help || !strings.Contains(got, "as far as can be told: a moment ago") {
		t.Errorf("unsettled: %q", got)
	}
	if why, _ := needs.Missing(nil, nil); why != "" {
		t.Error("nothing needs something")
	}
}

// A manifest on record that the directory does not have now needs the same as one that it
// has: no document is there while the directory is away, and which there are is not known.
func TestObjectOfRecord(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fields, config, reason string
		want                   string
		help                   bool
	}{
		"there":              {"envFrom: [{config: c}]", "data: {a: x}", desired.ReasonInvalidManifests, "", false},
		"gone":               {"envFrom: [{config: c}]", "", desired.ReasonInvalidManifests, `spec.envFrom[0].config: Config "c" does not exist`, true},
		"a file of it gone":  {"envFrom: [{config: c}]", "files: {a: /gone}", desired.ReasonInvalidManifests, "/gone, which has its a, does not exist", true},
		"directory away":     {"envFrom: [{config: c}]", "", desired.ReasonDirectoryMissing, "as far as can be told", false},
		"replaced, may be":   {"envFrom: [{config: c, optional: true}]", "", desired.ReasonDirectoryReplaced, "as far as can be told", false},
		"one key, untrusted": {"env: [{name: A, valueFrom: {config: {name: c, key: a}}}]", "", desired.ReasonDirectoryUntrusted, "as far as can be told", false},
		"a file, gone":       {"envFrom: [{file: /gone}]", "", desired.ReasonDirectoryMissing, "/gone does not exist", true},
	} {
		e := &snapshot(t, sandbox(c.fields)).Entries[0]
		s := &desired.Snapshot{}
		if c.config != "" {
			s = snapshot(t, config(c.config))
		}
		s.Complete, s.Reason, s.Message = false, c.reason, "a moment ago"
		recorded := map[string]*desired.Entry{"web": e, "undecodable": nil}
		files := map[string]needs.File{}
		for _, p := range needs.Paths(s, recorded) {
			files[p] = needs.File{Missing: true}
		}
		got, help := needs.Missing(e, needs.AddObjects(files, s, recorded, hostKey))
		if c.want == "" && got != "" || !strings.Contains(got, c.want) || help != c.help {
			t.Errorf("%s: %q %t, expected %q", name, got, help, c.want)
		}
	}
}

// Of a document that changes only those are restarted that use the value.
func TestObjectChanged(t *testing.T) {
	t.Parallel()
	const key, whole = "env: [{name: A, valueFrom: {config: {name: c, key: a}}}]", "envFrom: [{config: c}]"
	ignore := func(s string) string {
		return strings.NewReplacer("key: a}}", "key: a}, onChange: ignore}", "{config: c}", "{config: c, onChange: ignore}").Replace(s)
	}
	other := objects.HostKey(strings.Repeat("o", objects.HostKeySize))
	for name, c := range map[string]struct {
		spec, was, now string
		key            objects.HostKey
		want           bool
	}{
		"same":              {key, "data: {a: x}", "data: {a: x}", hostKey, false},
		"value":             {key, "data: {a: x}", "data: {a: z}", hostKey, true},
		"value, ignored":    {ignore(key), "data: {a: x}", "data: {a: z}", hostKey, false},
		"another key":       {key, "data: {a: x, b: x}", "data: {a: x, b: z}", hostKey, false},
		"whole":             {whole, "data: {a: x, b: x}", "data: {a: x, b: z}", hostKey, true},
		"whole, ignored":    {ignore(whole), "data: {a: x, b: x}", "data: {a: x, b: z}", hostKey, false},
		"a key came":        {whole, "data: {a: x}", "data: {a: x, b: \"\"}", hostKey, true},
		"file":              {key, "files: {a: /1}", "files: {a: /2}", hostKey, true},
		"value became file": {key, "data: {a: /1}", "files: {a: /1}", hostKey, true},
		"key lost":          {key, "data: {a: x}", "data: {a: z}", other, false},
		"no key of a host":  {key, "data: {a: x}", "data: {a: z}", nil, false},
		"removed":           {key, "data: {a: x}", "", hostKey, false},
		"it came":           {strings.Replace(key, "key: a", "key: a, optional: true", 1), "", "data: {a: x}", hostKey, true},
		"form only":         {key, "data: {a: x}", "binaryData: {a: eA==}", hostKey, false},
	} {
		files := map[string]needs.File{"/1": {ID: "1"}, "/2": {ID: "2"}}
		at := func(fields string, k objects.HostKey) (*desired.Snapshot, map[string]needs.File) {
			docs := []string{sandbox(c.spec)}
			if fields != "" {
				docs = append(docs, config(fields))
			}
			s := snapshot(t, docs...)
			return s, needs.AddObjects(maps.Clone(files), s, nil, k)
		}
		rec := &actual.Record{}
		was, f := at(c.was, hostKey)
		for _, ref := range was.Entries[0].Sandbox.Spec.FileRefs() {
			rec.Inputs = append(rec.Inputs, actual.Input{File: ref.Path, ID: f[ref.Path].ID})
		}
		now, f := at(c.now, c.key)
		if got := needs.Changed(&now.Entries[0], rec, f); got != c.want {
			t.Errorf("%s: changed: %v", name, got)
		}
	}
}

// Files that documents name are looked at, each once, and only those that are needed.
func TestPaths(t *testing.T) {
	t.Parallel()
	s := snapshot(t, sandbox("env: [{name: A, valueFrom: {config: {name: c, key: a}}}, {name: B, valueFrom: {file: /b}}]"), config("files: {a: /a, c: /c}"))
	if got := needs.Paths(s, nil); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("%q", got)
	}
	if got := needs.Paths(snapshot(t, sandbox("hostname: a"), config("files: {a: /a}")), nil); got != nil {
		t.Errorf("%q", got)
	}
}

// Another zone of the host restarts what has it, and nothing else.
func TestHostZoneChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fields string
		now    needs.File
		want   bool
	}{
		"same":           {"timezone: host", needs.File{ID: "Europe/Berlin:1"}, false},
		"another":        {"timezone: host", needs.File{ID: "Asia/Tokyo:2"}, true},
		"other rules":    {"timezone: host", needs.File{ID: "Europe/Berlin:3"}, true},
		"can't be told":  {"timezone: host", needs.File{Problem: "no data"}, false},
		"link removed":   {"timezone: host", needs.File{Missing: true}, false},
		"not the host's": {"timezone: Europe/Berlin", needs.File{ID: "Asia/Tokyo:2"}, false},
		"none":           {"hostname: a", needs.File{ID: "Asia/Tokyo:2"}, false},
	} {
		s := snapshot(t, sandbox(c.fields))
		rec := &actual.Record{Inputs: []actual.Input{{File: desired.HostZoneRef, ID: "Europe/Berlin:1"}}}
		if got := needs.Changed(&s.Entries[0], rec, map[string]needs.File{desired.HostZoneRef: c.now}); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
		if why, _ := needs.Missing(&s.Entries[0], map[string]needs.File{desired.HostZoneRef: c.now}); (why != "") != (c.now.Problem != "") {
			t.Errorf("%s: missing: %q", name, why)
		}
	}
	// A host that tells none is one of UTC, until it tells one.
	s := snapshot(t, sandbox("timezone: host"))
	rec := &actual.Record{Inputs: []actual.Input{{File: desired.HostZoneRef}}}
	for f, want := range map[needs.File]bool{{Missing: true}: false, {ID: "Asia/Tokyo:2"}: true} {
		if got := needs.Changed(&s.Entries[0], rec, map[string]needs.File{desired.HostZoneRef: f}); got != want {
			t.Errorf("%+v: %t", f, got)
		}
	}
}
