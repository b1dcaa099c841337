// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
)

func object(kind, name, fields string) string {
	return "apiVersion: " + desired.APIVersion + "\nkind: " + kind + "\nmetadata: {name: " + name + "}\n" + fields + "\n"
}

// Documents of other kinds come, change and go as sandboxes do, in the same files and in
// others, and none is taken for a sandbox of its name.
func TestObjectsOfDirectory(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{Once: true})
	value := func(want string) {
		t.Helper()
		s := tr.load()
		got := "none"
		if o := s.Objects.Lookup("config/web"); o != nil {
			got = o.Source.File + " " + string(o.Value("a"))
		}
		if got != want || len(s.Entries) != 1 || s.Lookup("web") == nil {
			t.Errorf("%q, expected %q; %d sandboxes, %v", got, want, len(s.Entries), s.Problems)
		}
	}
	tr.write("a.yaml", minimal+"---\n"+object("Config", "web", "data: {a: x}")+"---\n"+object("Secret", "web", "stringData: {a: s}"))
	value("a.yaml x")
	if s := tr.load(); len(s.Objects) != 2 || s.Objects[0].Name() != "config/web" || s.Objects[1].Name() != "secret/web" || tr.load() != s {
		t.Errorf("%v, and not the same again", s.Objects)
	}
	tr.write("a.yaml", minimal+"---\n"+object("Config", "web", "data: {a: w}"))
	value("a.yaml w")
	// Two are none, and both are told.
	tr.write("b.yaml", object("Config", "web", "data: {a: z}"))
	value("none")
	s := tr.load()
	if len(s.Problems) != 2 || s.Problems[0].Name != "config/web" || !strings.Contains(s.Problems[0].Error(), `metadata.name: Config "web" is also defined at b.yaml:1:1`) {
		t.Errorf("%v", s.Problems)
	}
	tr.write("a.yaml", minimal)
	value("b.yaml z")
	// One with a mistake says nothing, and nothing of the sandbox of its name.
	tr.write("b.yaml", object("Config", "web", "data: {a: 1}"))
	value("none")
	if s := tr.load(); len(s.Problems) != 1 || s.Problems[0].Name != "config/web" || s.Complete {
		t.Errorf("%v %v", s.Problems, s.Complete)
	}
	tr.must(os.Remove(filepath.Join(tr.top, "m", "b.yaml")))
	value("none")
}

// A document that vanishes for a moment, as editors have it, is not gone yet.
func TestObjectVanishes(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", minimal)
	tr.write("b.yaml", object("Config", "web", "data: {a: x}"))
	tr.settled()
	tr.must(os.Remove(filepath.Join(tr.top, "m", "b.yaml")))
	if s := tr.load(); s.Complete || s.Reason != desired.ReasonUnsettled || len(s.Objects) != 0 {
		t.Errorf("%v %s %v", s.Complete, s.Reason, s.Objects)
	}
	if s := tr.settled(); !s.Complete {
		t.Errorf("%s %s", s.Reason, s.Message)
	}
}

// A file with a Secret that every user may read is told of, and no other file.
func TestExposed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want int
	}{
		"open": {object("Secret", "a", "stringData: {a: x}"), 0o644, 1}, "closed": {object("Secret", "a", "stringData: {a: x}"), 0o600, 0},
		"for a group": {object("Secret", "a", "stringData: {a: x}"), 0o640, 0}, "files only": {object("Secret", "a", "files: {a: /x}"), 0o644, 1},
		"config": {object("Config", "a", "data: {a: x}"), 0o644, 0}, "companion": {minimal + "---\n" + object("Secret", "a", "data: {a: eA==}"), 0o604, 1},
	} {
		tr := newTree(t, Options{Once: true})
		tr.write("a.yaml", c.text)
		p := filepath.Join(tr.top, "m", "a.yaml")
		tr.must(os.Chmod(p, c.mode))
		if s := tr.load(); len(s.Warnings) != c.want || c.want > 0 && !strings.Contains(s.Warnings[0].Error(), "a.yaml: every user of this host may read it") || len(s.Problems) > 0 {
			t.Errorf("%s: %v %v", name, s.Warnings, s.Problems)
		}
		tr.must(os.Chmod(p, 0o600))
		if s := tr.load(); len(s.Warnings) > 0 {
			t.Errorf("%s: still %v", name, s.Warnings)
		}
	}
}

// Sizes of one volume that differ are told, in whatever files they are; the sandbox that
// differs from the document keeps what it has, and comes back when they agree.
func TestSizesOfDirectory(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{Once: true})
	sized := func(size string) string {
		return strings.TrimSpace(minimal) + "\n  volumes: [{mountPath: /d, volume: {name: data, size: " + size + "}}]\n"
	}
	is := func(sandboxes, sizes int, problems ...string) {
		t.Helper()
		s := tr.load()
		if len(s.Entries) != sandboxes || len(s.Sizes) != sizes || len(s.Problems) != len(problems) || s.Complete != (len(problems) == 0) {
			t.Fatalf("%d sandboxes, sizes %v, %v", len(s.Entries), s.Sizes, s.Problems)
		}
		for i, p := range problems {
			if !strings.Contains(s.Problems[i].Error(), p) {
				t.Errorf("%s, expected %s", s.Problems[i].Error(), p)
			}
		}
		if tr.load() != s {
			t.Error("not the same again")
		}
	}
	tr.write("a.yaml", sized("1Gi"))
	is(1, 1)
	tr.write("v.yaml", object("Volume", "data", "spec: {size: 2Gi}"))
	is(0, 2, `size: volume "data" has the size 1Gi here and 2Gi at v.yaml:4:8`)
	if s := tr.load(); s.Problems[0].Name != "web" || s.Problems[0].File != "a.yaml" || s.Removed("web", "a.yaml") {
		t.Errorf("%+v", s.Problems[0])
	}
	tr.write("v.yaml", object("Volume", "data", "spec: {size: 1Gi}"))
	is(1, 2)
	// In one file it is told once.
	tr.must(os.Remove(filepath.Join(tr.top, "m", "v.yaml")))
	tr.write("a.yaml", sized("1Gi")+"---\n"+object("Volume", "data", "spec: {size: 2Gi}"))
	is(0, 2, "has the size 1Gi here and 2Gi at a.yaml")
	tr.write("a.yaml", minimal)
	if s := tr.load(); len(s.Entries) != 1 || len(s.Sizes)+len(s.Problems) > 0 {
		t.Errorf("%d sandboxes, sizes %v, %v", len(s.Entries), s.Sizes, s.Problems)
	}
}
