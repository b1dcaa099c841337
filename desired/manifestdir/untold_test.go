// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired"
)

// everything is what a new look at everything says.
func (tr *tree) everything() *desired.Snapshot {
	tr.t.Helper()
	m := tr.dir.Memory()
	m.Broken, m.Gone = nil, nil
	s, err := New(Options{Path: filepath.Join(tr.top, "m"), Settle: time.Nanosecond, BootID: "boot", Once: true, Memory: &m}).Load(context.Background())
	tr.must(err)
	return s
}

// agrees waits until the directory, which is looked at when it tells of something, says
// what a look at everything does.
func (tr *tree) agrees(what string) {
	tr.t.Helper()
	end := time.After(time.Minute)
	have := tr.load()
	for {
		want := tr.everything()
		if said(have) == said(want) && have.Complete == want.Complete && have.Reason == want.Reason {
			return
		}
		select {
		case <-tr.dir.Changes():
			have = tr.load()
		case <-end:
			tr.t.Fatalf("%s: not noticed:\n%s%v %s\na look at everything:\n%s%v %s", what, said(have), have.Complete, have.Message, said(want), want.Complete, want.Message)
		}
	}
}

// quiet loads until nothing is told of any more.
func (tr *tree) quiet() {
	tr.t.Helper()
	for {
		tr.settled()
		select {
		case <-tr.dir.Changes():
		case <-time.After(5 * settle):
			return
		}
	}
}

func (tr *tree) at(f string) string { return filepath.Join(tr.top, "m", f) }

// A directory is watched from when it counts: also one that an ignore file named, and
// one that something was mounted over or unmounted from.
func TestDirectoryComesToCount(t *testing.T) {
	t.Parallel()
	write := func(tr *tree, text string) { tr.write(desired.IgnoreFile, text) }
	mount := func(tr *tree) {
		if err := unix.Mount("manifests", tr.at("deep"), "tmpfs", 0, "mode=755"); err != nil {
			hosttest.Lacks(tr.t, "mounting needs root: %v", err)
		}
		tr.t.Cleanup(func() { _ = unix.Unmount(tr.at("deep"), unix.MNT_DETACH) })
	}
	for name, c := range map[string]struct {
		before, do func(*tree)
		poll       time.Duration // 0: nothing but notifications may tell
	}{
		"ignore file removed":      {func(tr *tree) { write(tr, "deep/\n") }, func(tr *tree) { tr.must(os.Remove(tr.at(desired.IgnoreFile))) }, 0},
		"ignore file renamed over": {func(tr *tree) { write(tr, "deep/\n") }, func(tr *tree) { write(tr, "#\n") }, 0},
		"ignore file written":      {func(tr *tree) { write(tr, "deep/\n") }, func(tr *tree) { tr.must(os.WriteFile(tr.at(desired.IgnoreFile), []byte("#\n"), 0o644)) }, 0},
		"mounted over":             {func(*tree) {}, mount, 2 * settle},
		"unmounted":                {mount, func(tr *tree) { tr.must(unix.Unmount(tr.at("deep"), 0)) }, 2 * settle},
	} {
		for _, holds := range []bool{false, true} {
			if holds && c.poll != 0 {
				continue // that a directory with manifests is another one is a disaster of its own
			}
			t.Run(fmt.Sprintf("%s, holds %v", name, holds), func(t *testing.T) {
				t.Parallel()
				tr := newTree(t, Options{PollEvery: time.Hour, Resync: time.Hour, Once: true})
				if c.poll != 0 {
					tr.dir.opts.PollEvery = c.poll
				}
				tr.write("a.yaml", named("a"))
				tr.must(os.MkdirAll(tr.at("deep"), 0o755))
				if holds {
					tr.write("deep/d.yaml", named("d"))
				}
				c.before(tr)
				tr.load()
				tr.watching()
				tr.quiet()
				c.do(tr)
				tr.agrees(name)
				if c.poll != 0 {
					time.Sleep(4 * c.poll) // nothing notifies of a mount
				}
				tr.quiet()
				for i := range 3 {
					tr.write("deep/d.yaml", manifestOf("d", fmt.Sprint("edited", i)))
					tr.agrees("an edit below it")
				}
			})
		}
	}
}

// A directory that goes away while the watches are made ends nothing but its own.
func TestDirectoryGoesWhileWatched(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{PollEvery: time.Hour, Resync: time.Hour, Once: true})
	for i := range 200 {
		tr.must(os.MkdirAll(tr.at(fmt.Sprintf("d%03d", i)), 0o755))
	}
	tr.write("zz/z.yaml", named("z"))
	tr.load()
	tr.watching()
	tr.quiet()
	for i := range 30 {
		tr.must(os.Mkdir(tr.at("tmp.x"), 0o755))
		time.Sleep(time.Duration(i%10) * 300 * time.Microsecond)
		tr.must(os.Remove(tr.at("tmp.x")))
		tr.write("zz/z.yaml", manifestOf("z", fmt.Sprintf("e%d", i)))
		tr.agrees(fmt.Sprint("edit ", i))
	}
}

// What changes without a notification of its own is found all the same: a file by its
// other name, an ignore file behind a link, a hidden file behind the first link.
func TestUntoldChanges(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, o Options, files map[string]string) *tree {
		t.Parallel()
		o.PollEvery, o.Resync, o.Once = time.Hour, time.Hour, true
		tr := newTree(t, o)
		for name, text := range files {
			tr.write(name, text)
		}
		return tr
	}
	t.Run("hard link", func(t *testing.T) {
		tr := start(t, Options{}, map[string]string{"a.yaml": named("one"), "keep.yaml": named("keep")})
		tr.must(os.Link(tr.at("a.yaml"), tr.at("b.yaml")))
		tr.load()
		tr.watching()
		tr.quiet()
		tr.must(os.WriteFile(tr.at("b.yaml"), []byte(named("two")), 0o644))
		tr.agrees("written by its other name")
	})
	t.Run("ignore file behind a link", func(t *testing.T) {
		tr := start(t, Options{}, map[string]string{"a.yaml": named("a"), "b.yaml": named("b"), "patterns.txt": "b.yaml\n"})
		tr.must(os.Symlink("patterns.txt", tr.at(desired.IgnoreFile)))
		tr.load()
		tr.watching()
		tr.quiet()
		tr.write("patterns.txt", "a.yaml\n")
		tr.agrees("its target was replaced")
	})
	t.Run("hidden file", func(t *testing.T) {
		var during atomic.Pointer[func()]
		tr := start(t, Options{Known: func(string) *desired.Entry {
			if f := during.Swap(nil); f != nil {
				(*f)()
			}
			return nil
		}}, map[string]string{"keep.yaml": named("keep"), ".v1.yaml": named("v")})
		tr.load()
		tr.watching()
		tr.quiet()
		// It is replaced from elsewhere after it was read, and before it is known that a
		// link leads to it.
		next := filepath.Join(t.TempDir(), "next")
		tr.must(os.WriteFile(next, []byte(manifestOf("v", "edited")), 0o644))
		f := func() {
			if err := os.Rename(next, tr.at(".v1.yaml")); err != nil {
				t.Error(err)
			}
			time.Sleep(settle)
		}
		during.Store(&f)
		tr.must(os.Symlink(".v1.yaml", tr.at("link.yaml")))
		tr.agrees("replaced during the look that found the link")
		if during.Load() != nil {
			t.Error("nothing was read")
		}
	})
}

// A look at a part decides on no absence, however long it takes: the manifest may have
// moved to where nothing notifies of.
func TestGlanceDecidesNothing(t *testing.T) {
	t.Parallel()
	var slow atomic.Bool
	tr := newTree(t, Options{PollEvery: time.Hour, Resync: time.Hour, Once: true, Known: func(string) *desired.Entry {
		if slow.Load() {
			time.Sleep(3 * settle / 2)
		}
		return nil
	}})
	tr.write("a.yaml", named("a"))
	tr.write("b.yaml", named("b"))
	tr.load()
	tr.dir.notices.watch(true, nil)
	tr.settled()
	tr.load()
	tr.must(errors.Join(os.MkdirAll(tr.at("sub"), 0o755), os.Rename(tr.at("a.yaml"), tr.at("sub/a.yaml"))))
	tr.dir.notices.path("a.yaml")
	tr.load()
	tr.write("b.yaml", manifestOf("b", "edited"))
	tr.dir.notices.path("b.yaml")
	slow.Store(true)
	s := tr.load()
	slow.Store(false)
	if !tr.dir.lookedAtPart() {
		t.Fatal("it was no look at a part")
	}
	if s.Removed("a", "a.yaml") || s.Complete {
		t.Errorf("a look at a part says that a is removed: %+v", s)
	}
	if s := tr.settled(); s.Removed("a", "a.yaml") || s.Lookup("a") == nil {
		t.Errorf("a look at everything: %s", names(s))
	}
}

// A broken file that changed after a manifest was seen for certain may be where that has
// moved, in whatever order notifications tell of both.
func TestGlanceOrder(t *testing.T) {
	t.Parallel()
	for _, part := range []bool{false, true} {
		tr := newTree(t, Options{PollEvery: time.Hour, Resync: time.Hour, Once: true})
		tr.write("a.yaml", named("a"))
		tr.write("keep.yaml", named("keep"))
		tr.load()
		tr.dir.notices.watch(true, nil)
		tr.settled()
		tr.load()
		tr.must(os.Remove(tr.at("a.yaml")))
		tr.must(os.WriteFile(tr.at("b.yaml"), []byte("metadata: {\"n\\u0061me\": \"a\"}\n: ["), 0o644))
		tr.dir.notices.path("b.yaml")
		if !part {
			tr.dir.notices.anything()
		}
		tr.load()
		tr.dir.notices.path("a.yaml")
		tr.load()
		time.Sleep(2 * settle)
		if s := tr.settled(); s.Removed("a", "a.yaml") {
			t.Errorf("part %v: a is taken to be removed, gone %v", part, s.Gone)
		}
	}
}

// A reader that does not come is told once that it is time to look.
func TestToldOnce(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{PollEvery: time.Hour, Resync: time.Hour})
	tr.write("a.yaml", named("a"))
	f, err := os.OpenFile(tr.at("b.yaml"), os.O_CREATE|os.O_WRONLY, 0o644)
	tr.must(err)
	defer f.Close()
	tr.load() // b is being written: it is to be looked at again
	tr.watching()
	told := 0
	for end := time.After(10 * settle); end != nil; {
		select {
		case <-tr.dir.Changes():
			told++
		case <-end:
			end = nil
		}
	}
	if told == 0 || told > 5 {
		t.Errorf("told %d times", told)
	}
}
