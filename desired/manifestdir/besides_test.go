// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whatever is wrong with a file, a sandbox that it can't be about is removed when its
// manifest is, and one that it may be about is not.
func TestDirBrokenBesides(t *testing.T) {
	t.Parallel()
	broken := map[string]func(v *scenery){
		"not YAML":       func(v *scenery) { v.write("bad.yaml", "metadata: [") },
		"unknown field":  func(v *scenery) { v.write("bad.yaml", named("bad")+"  bad: field\n") },
		"empty":          func(v *scenery) { v.write("bad.yaml", "") },
		"cut":            func(v *scenery) { v.write("bad.yaml", named("bad")[:40]) },
		"binary":         func(v *scenery) { v.write("bad.yaml", "\x00\x01") },
		"defined twice":  func(v *scenery) { v.write("bad.yaml", named("bad")); v.write("worse.yaml", named("bad")) },
		"a fifo":         func(v *scenery) { v.must(unix.Mkfifo(v.at("bad.yaml"), 0o600)) },
		"among valid":    func(v *scenery) { v.write("bad.yaml", named("good")+"---\n"+named("bad")+"  bad: field\n") },
		"in a directory": func(v *scenery) { v.write("dir/bad.yml", "a: b: c") },
	}
	for name, breakIt := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &scenery{newTree(t, Options{})}
			for _, n := range []string{"a", "b", "c"} {
				v.write(n+".yaml", named(n))
			}
			v.settled()
			breakIt(v)
			time.Sleep(2 * settle)
			v.load()
			v.rm("a.yaml")
			if s := v.load(); s.Removed("a", "a.yaml") {
				t.Error("its absence is believed at first sight")
			}
			gone := func(name string) bool {
				time.Sleep(2 * settle)
				v.load()
				return v.load().Removed(name, name+".yaml")
			}
			if !gone("a") {
				t.Errorf("a is held back: %+v", v.load())
			}
			// Others see the same, and a daemon that comes after.
			mem := v.dir.Memory()
			s, err := New(Options{Path: v.at(""), Once: true, BootID: "boot", Memory: &mem, Expected: true}).Load(t.Context())
			if err != nil || !s.Removed("a", "a.yaml") || s.Removed("b", "b.yaml") || s.Removed("zz", "") {
				t.Errorf("at one look: %+v %v", s, err)
			}
			// Moved: the broken file changes, and a manifest vanishes.
			v.write("bad.yaml", "metadata: [moved")
			v.rm("b.yaml")
			for range 2 {
				if gone("b") {
					t.Error("b may have been moved into the file")
				}
			}
			// Nor is what was believed before, since it may be in there now.
			v.write("a.yaml", named("a"))
			v.settled()
			if v.load().Removed("a", "a.yaml") {
				t.Error("a is there again")
			}
		})
	}
}

// What a broken file may be about stays.
func TestDirBrokenAbout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, after func(v *scenery) }{
		"it defined it":                   {func(v *scenery) { v.write("bad.yaml", named("x")) }, func(v *scenery) { v.write("bad.yaml", "metadata: [") }},
		"it defined it with others":       {func(v *scenery) { v.write("bad.yaml", named("y")+"---\n"+named("x")) }, func(v *scenery) { v.write("bad.yaml", named("y")+"  bad: 1\n") }},
		"it names it":                     {func(v *scenery) { v.write("x.yaml", named("x")); v.write("bad.yaml", named("x")+"  bad: 1\n") }, func(v *scenery) { v.rm("x.yaml") }},
		"it names it and can't be parsed": {func(v *scenery) { v.write("x.yaml", named("x")); v.write("bad.yaml", "metadata: {name: x\n[") }, func(v *scenery) { v.rm("x.yaml") }},
		"it names it as JSON":             {func(v *scenery) { v.write("x.yaml", named("x")); v.write("bad.json", `{"metadata": {"name" : "x"`) }, func(v *scenery) { v.rm("x.yaml") }},
		"moved and cut short":             {func(v *scenery) { v.write("x.yaml", named("x")) }, func(v *scenery) { v.write("moved.yaml", named("x")[:20]); v.rm("x.yaml") }},
		"moved and empty":                 {func(v *scenery) { v.write("x.yaml", named("x")) }, func(v *scenery) { v.rm("x.yaml"); v.write("moved.yaml", "") }},
		"a link that is filled later": {func(v *scenery) { v.write("x.yaml", named("x")); v.ln(".later", "bad.yaml") }, func(v *scenery) {
			v.rm("x.yaml")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &scenery{newTree(t, Options{PollEvery: settle})}
			v.write("other.yaml", named("other"))
			v.settled()
			c.before(v)
			v.settled()
			v.load()
			c.after(v)
			for range 12 {
				if s := v.load(); s.Removed("x", "") || s.Complete {
					t.Fatalf("x is taken for removed: %v", s.Problems)
				}
				time.Sleep(settle / 2)
			}
		})
	}
}

// What is remembered of broken files is bounded.
func TestDirManyBroken(t *testing.T) {
	t.Parallel()
	v := &scenery{newTree(t, Options{})}
	v.write("a.yaml", named("a"))
	for i := range maxBroken + 1 {
		v.must(os.WriteFile(filepath.Join(v.at(""), strings.Repeat("b", i%100+1)+string(rune('a'+i/100))+".yaml"), nil, 0o644))
	}
	v.settled()
	if m := v.dir.Memory(); m.Broken != nil {
		t.Errorf("%d are remembered", len(m.Broken))
	}
}
