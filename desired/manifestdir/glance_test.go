// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sandboxctl.dev/desired"
)

// world is a directory that one Dir watches, as the daemon does, while it is changed.
type world struct {
	t    *rapid.T
	m    string
	d    *Dir
	stop func()
}

func newWorld(t *rapid.T, top string) *world {
	m, err := os.MkdirTemp(top, "m")
	if err != nil {
		t.Fatal(err)
	}
	for file, name := range map[string]string{"keep.yaml": "keep", "sub/keep.yaml": "sub", "sub/deep/keep.yaml": "deep", "other/keep.yaml": "other"} {
		p := filepath.Join(m, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(named(name)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing but notifications and what they lead to may tell of a change.
	w := &world{t: t, m: m, d: New(Options{Path: m, Settle: 5 * time.Millisecond, PollEvery: time.Hour, BootID: "boot", Once: true})}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.d.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	w.stop = func() { cancel(); wg.Wait() }
	return w
}

var someFiles = []string{"a.yaml", "b.yaml", "c.json", "sub/a.yaml", "sub/d.yaml", "sub/deep/e.yaml", "other/f.yaml", ".hidden.yaml", "notes", "run.log", "sub/.sandboxctlignore", ".sandboxctlignore"}

// change makes one change at random. That it can't be made is no failure: what it is
// about may not be there.
func (w *world) change() {
	t := w.t
	file := rapid.SampledFrom(someFiles).Draw(t, "file")
	p := filepath.Join(w.m, file)
	text := func() string {
		if filepath.Base(file) == desired.IgnoreFile {
			return rapid.SampledFrom([]string{"a.yaml\n", "deep/\n", "*.json\n!c.json\n", ""}).Draw(t, "patterns")
		}
		name := named(rapid.SampledFrom([]string{"one", "two", "three"}).Draw(t, "name"))
		return rapid.SampledFrom([]string{
			name, name, name, strings.Replace(name, "[sh]", "[edited]", 1), name + "---\n" + named("four"), "not: [yaml",
			strings.Replace(name, "command", "comand", 1), "", "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\n",
		}).Draw(t, "text")
	}
	other := filepath.Join(w.m, rapid.SampledFrom(someFiles).Draw(t, "other"))
	var err error
	// Most changes are of single files.
	switch max(0, rapid.IntRange(-20, 12).Draw(t, "change")) {
	case 0, 1, 2:
		err = errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p+".tmp", []byte(text()), 0o644), os.Rename(p+".tmp", p))
	case 3:
		err = os.WriteFile(p, []byte(text()), 0o644)
	case 4:
		err = os.Remove(p)
	case 5:
		err = os.Rename(p, other)
	case 6:
		err = os.Link(p, other)
	case 7:
		err = os.Symlink(rapid.SampledFrom([]string{"a.yaml", "sub", "nowhere", "../sub/a.yaml"}).Draw(t, "target"), p)
	case 8:
		err = os.Chmod(p, rapid.SampledFrom([]fs.FileMode{0o644, 0o666, 0o600}).Draw(t, "mode"))
	case 9:
		err = os.Chmod(filepath.Dir(p), rapid.SampledFrom([]fs.FileMode{0o755, 0o777}).Draw(t, "dir mode"))
	case 10:
		err = os.RemoveAll(filepath.Dir(p))
		if filepath.Dir(p) == w.m {
			err = os.Mkdir(w.m, 0o755)
		}
	case 11:
		err = unix.Renameat2(unix.AT_FDCWD, filepath.Dir(p), unix.AT_FDCWD, filepath.Dir(other), unix.RENAME_EXCHANGE)
	case 12:
		err = os.Rename(filepath.Dir(p), filepath.Dir(p)+"2")
	}
	if err != nil {
		t.Logf("not made: %v", err)
	}
}

// said is all that a snapshot says, but for what only a Dir that was there before can
// know.
func said(s *desired.Snapshot) string {
	var b strings.Builder
	for i := range s.Entries {
		e := &s.Entries[i]
		fmt.Fprintln(&b, "entry", e.Sandbox.Metadata.Name, e.Hash, e.Source, e.Sandbox.Spec.Command)
	}
	for _, p := range s.Problems {
		fmt.Fprintln(&b, "problem", p.Error(), p.Name, p.Opaque)
	}
	for _, w := range s.Warnings {
		fmt.Fprintln(&b, "warning", w.Error(), w.Names)
	}
	return b.String()
}

// sameAs waits until the one that is told of changes says what a fresh look says.
func (w *world) sameAs(fresh func() *desired.Snapshot) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		have, err := w.d.Load(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		want := fresh()
		got, expected := said(have), said(want)
		if have.Reason != desired.ReasonUnsettled && got == expected && have.Complete == want.Complete && have.Reason == want.Reason {
			w.index()
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("told of changes:\n%s%v %s %s\na look at everything:\n%s%v %s %s", got, have.Complete, have.Reason, have.Message, expected, want.Complete, want.Reason, want.Message)
		}
		select {
		case <-w.d.Changes():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// index compares what was kept up to date with what the same files give at once.
func (w *world) index() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	x, anew := w.d.index, newIndex()
	for p, f := range x.files {
		anew.put(p, f)
	}
	anew.walked(x.walk)
	for _, same := range []bool{
		slices.EqualFunc(sandboxes(x), sandboxes(anew), func(a, b desired.Entry) bool { return a.Sandbox == b.Sandbox && a.Source == b.Source }),
		slices.Equal(x.problems(), anew.problems()), fmt.Sprint(x.told) == fmt.Sprint(anew.told), len(x.defs) == len(anew.defs),
		len(x.odd) == len(anew.odd), len(x.dirs) == len(anew.dirs), len(x.twice) == len(anew.twice),
	} {
		if !same {
			w.t.Fatalf("kept up to date: %+v\nat once: %+v", x, anew)
		}
	}
	for p, n := range x.dirs {
		if *n != anew.below(p) {
			w.t.Fatalf("%s: %+v, at once %+v", p, *n, anew.below(p))
		}
	}
}

// Whatever happens to the directory, and however many changes come at once: looks at
// what notifications name end at what one look at everything says.
func TestGlanceProperty(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	rounds, glances := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, top)
		defer w.stop()
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			rounds++
			for range rapid.IntRange(1, 3).Draw(t, "changes") {
				w.change()
			}
			w.sameAs(func() *desired.Snapshot {
				memory := w.d.Memory()
				memory.Broken, memory.Gone = nil, nil
				s, err := New(Options{Path: w.m, Settle: time.Nanosecond, BootID: "boot", Once: true, Memory: &memory}).Load(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
			if w.d.lookedAtPart() {
				glances++
			}
		}
	})
	t.Logf("%d rounds, %d ended with a look at a part", rounds, glances)
	if glances < rounds/10 {
		t.Error("hardly any look was one at a part")
	}
}

// A change costs what changed: files are looked at that notifications name, and no
// others. An absence is decided on by one look at everything.
func TestGlanceCost(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{PollEvery: time.Hour, Once: true})
	const n = 200
	for i := range n {
		tr.write(fmt.Sprintf("sub%d/f%d.yaml", i%3, i), named(fmt.Sprintf("s%d", i)))
	}
	tr.write("broken.yaml", "not: [yaml")
	tr.watching()
	tr.eventually("all", func(s *desired.Snapshot) bool {
		return len(s.Entries) == n && s.Reason == desired.ReasonInvalidManifests
	})
	// Run asks for one look at everything when its watches are there.
	for !tr.dir.lookedAtPart() {
		tr.load()
	}
	at := func(file string) string { return filepath.Join(tr.top, "m", file) }
	for _, c := range []struct {
		name   string
		change func()
		seen   func(s *desired.Snapshot) bool
		most   int64
	}{
		{"put in", func() { tr.write("new.yaml", named("new")) }, func(s *desired.Snapshot) bool { return s.Lookup("new") != nil }, 10},
		{"renamed", func() { tr.must(os.Rename(at("new.yaml"), at("sub1/new.yaml"))) }, func(s *desired.Snapshot) bool {
			e := s.Lookup("new")
			return e != nil && e.Source.File == "sub1/new.yaml"
		}, 10},
		{"edited", func() { tr.write("sub1/f1.yaml", manifestOf("s1", "edited")) }, func(s *desired.Snapshot) bool { return s.Lookup("s1").Sandbox.Spec.Command[0] == "edited" }, 10},
		{"written in place", func() { tr.must(os.WriteFile(at("sub2/f2.yaml"), []byte(manifestOf("s2", "edited")), 0o644)) }, func(s *desired.Snapshot) bool {
			e := s.Lookup("s2")
			return e != nil && e.Sandbox.Spec.Command[0] == "edited"
		}, 20},
		{"broken", func() { tr.write("sub0/f0.yaml", "a: [") }, func(s *desired.Snapshot) bool { return len(s.Problems) == 2 }, n + 20},
		// The absence of what was broken may have lasted long enough to be decided on.
		{"mended", func() { tr.write("sub0/f0.yaml", named("s0")) }, func(s *desired.Snapshot) bool { return s.Lookup("s0") != nil && len(s.Problems) == 1 }, n + 20},
		{"defined twice", func() { tr.write("twice.yaml", named("s5")) }, func(s *desired.Snapshot) bool { return s.Lookup("s5") == nil && len(s.Problems) == 3 }, 10},
		{"defined once again", func() { tr.must(os.Remove(at("twice.yaml"))) }, func(s *desired.Snapshot) bool { return s.Lookup("s5") != nil }, 10},
		{"something else", func() { tr.must(os.WriteFile(at("README"), nil, 0o600)) }, nil, 10},
		{"removed", func() { tr.must(os.Remove(at("sub1/f4.yaml"))) }, func(s *desired.Snapshot) bool { return s.Removed("s4", "sub1/f4.yaml") }, n + 20},
	} {
		tr.settled()
		before := tr.dir.examined.Load()
		c.change()
		if c.seen != nil {
			tr.eventually(c.name, c.seen)
		}
		tr.load()
		if n := tr.dir.examined.Load() - before; n > c.most {
			t.Errorf("%s: %d looks at single files, expected at most %d", c.name, n, c.most)
		}
	}
}

func sandboxes(x *index) []desired.Entry {
	entries, _ := x.resolve()
	return entries
}
