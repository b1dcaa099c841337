// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/desired"

	"sandboxctl.dev/desired/desiredtest"
)

const minimal = desiredtest.Minimal

func with(lines ...string) string { return desiredtest.With(lines...) }

const settle = 20 * time.Millisecond

// tree is a manifests directory under test.
type tree struct {
	t   *testing.T
	top string // parent of the directory
	dir *Dir
}

func newTree(t *testing.T, opts Options) *tree {
	t.Helper()
	top := t.TempDir()
	tr := &tree{t: t, top: top}
	tr.must(os.Mkdir(filepath.Join(top, "m"), 0o755))
	opts.Path, opts.Settle, opts.BootID = filepath.Join(top, "m"), settle, "boot"
	tr.dir = New(opts)
	return tr
}

func (tr *tree) must(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func named(name string) string { return strings.Replace(minimal, "web", name, 1) }

// write puts a file into the directory, whole.
func (tr *tree) write(name, text string) {
	tr.t.Helper()
	p := filepath.Join(tr.top, "m", name)
	tr.must(os.MkdirAll(filepath.Dir(p), 0o755))
	tr.must(os.WriteFile(p+".tmp", []byte(text), 0o644))
	tr.must(os.Rename(p+".tmp", p))
}

func (tr *tree) load() *desired.Snapshot {
	tr.t.Helper()
	s, err := tr.dir.Load(tr.t.Context())
	tr.must(err)
	return s
}

// settled loads until nothing is on its way any more.
func (tr *tree) settled() *desired.Snapshot {
	tr.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		s := tr.load()
		if s.Reason != desired.ReasonUnsettled {
			return s
		}
		if time.Now().After(deadline) {
			tr.t.Fatalf("never settled: %s", s.Message)
		}
		time.Sleep(settle / 4)
	}
}

func names(s *desired.Snapshot) string {
	var out []string
	for i := range s.Entries {
		out = append(out, s.Entries[i].Sandbox.Metadata.Name)
	}
	return strings.Join(out, " ")
}

func (tr *tree) expect(s *desired.Snapshot, wantNames, wantReason string) {
	tr.t.Helper()
	if names(s) != wantNames || s.Reason != wantReason || s.Complete != (wantReason == "") {
		tr.t.Errorf("names %q reason %q complete %v (%s), expected %q %q", names(s), s.Reason, s.Complete, s.Message, wantNames, wantReason)
	}
}

func TestDirFiles(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	tr.write("sub/deeper/b.yml", named("b")+"---\n"+named("c"))
	tr.write("d.json", `{"apiVersion":"sandboxctl.dev/v1alpha1","kind":"Sandbox","metadata":{"name":"d"},"spec":{"root":{"host":{}},"command":["a"]}}`)
	for _, ignored := range []string{".hidden.yaml", ".git/x.yaml", "a.yaml~", "a.yaml.bak", ".a.yaml.swp", "4913", "README.md", "#a.yaml#"} {
		tr.write(ignored, "not: [yaml")
	}
	s := tr.settled()
	tr.expect(s, "a b c d", "")
	if e := s.Lookup("c"); e == nil || e.Source.String() != "sub/deeper/b.yml:7:1" && e.Source.String() != "sub/deeper/b.yml:8:1" {
		t.Errorf("source of c: %v", e)
	}
	if again := tr.load(); again != s {
		t.Error("nothing changed, and the snapshot is another")
	}
	if f, ok := desired.FileFor(s, "c"); f != "sub/deeper/b.yml" || !ok {
		t.Errorf("file of c: %s", f)
	}
	if f, ok := desired.FileFor(s, "new"); f != "new.yaml" || ok {
		t.Errorf("file of new: %s", f)
	}
}

func TestDirNotFiles(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	m := filepath.Join(tr.top, "m")
	tr.must(unix.Mkfifo(filepath.Join(m, "fifo.yaml"), 0o600))
	tr.must(os.Symlink("/etc/passwd", filepath.Join(m, "out.yaml")))
	tr.must(os.Symlink("../secret.yaml", filepath.Join(m, "up.yaml")))
	tr.must(os.WriteFile(filepath.Join(tr.top, "secret.yaml"), []byte("secret: value"), 0o600))
	tr.must(os.Symlink("loop.yaml", filepath.Join(m, "loop.yaml")))
	tr.must(os.Symlink("/etc", filepath.Join(m, "dir.yaml")))
	tr.must(os.Mkdir(filepath.Join(m, "real.yaml"), 0o755))
	tr.must(os.WriteFile(filepath.Join(m, "\xff\xfe.yaml"), nil, 0o600))
	tr.must(os.Symlink("gone.yaml", filepath.Join(m, "dangling.yaml")))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	tr.must(err)
	defer unix.Close(fd)
	tr.must(unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(m, "s.yaml")}))
	s := tr.settled()
	tr.expect(s, "a", desired.ReasonInvalidManifests)
	var told []string
	for _, p := range s.Problems {
		told = append(told, p.File)
		if strings.Contains(p.Message, "secret") || strings.Contains(p.Message, "root:x") {
			t.Errorf("something outside is shown: %s", p.Error())
		}
	}
	if got := strings.Join(told, " "); got != "?.yaml dangling.yaml dir.yaml fifo.yaml loop.yaml out.yaml real.yaml s.yaml up.yaml" && got != "??.yaml dangling.yaml dir.yaml fifo.yaml loop.yaml out.yaml real.yaml s.yaml up.yaml" {
		t.Errorf("problems of %s", got)
	}
}

// Links that lead back multiply the paths without end; each directory is read
// once, and the link is what is wrong.
func TestDirLinksBack(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	for i := range 20 {
		tr.must(os.Symlink(".", filepath.Join(tr.top, "m", fmt.Sprintf("link%d", i))))
	}
	s := tr.settled()
	tr.expect(s, "a", desired.ReasonInvalidManifests)
	if len(s.Problems) != 20 || !strings.Contains(s.Problems[0].Error(), "link0: it is the directory . again; remove the link") {
		t.Errorf("%d problems, the first: %v", len(s.Problems), s.Problems[0])
	}
}

// The end of the program does not wait for the end of a walk.
func TestDirCancelled(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tr.dir.Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	tr.expect(tr.settled(), "a", "")
}

func TestDirDuplicates(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("x"))
	tr.write("b.yaml", named("x"))
	tr.write("c.yaml", named("c"))
	s := tr.settled()
	tr.expect(s, "c", desired.ReasonInvalidManifests)
	if len(s.Problems) != 2 || !strings.Contains(s.Problems[0].Error(), "b.yaml") || !strings.Contains(s.Problems[1].Error(), "a.yaml") {
		t.Errorf("each names the other: %v", s.Problems)
	}
}

// An absence counts when it has lasted, a presence at once.
func TestDirAbsenceWaits(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	tr.write("b.yaml", named("b"))
	tr.settled()
	tr.write("c.yaml", named("c"))
	tr.expect(tr.load(), "a b c", "")
	tr.must(os.Remove(filepath.Join(tr.top, "m", "a.yaml")))
	tr.expect(tr.load(), "b c", desired.ReasonUnsettled)
	// Back within the time, as an editor does it: never absent.
	tr.write("a.yaml", named("a"))
	tr.expect(tr.load(), "a b c", "")
	tr.must(os.Remove(filepath.Join(tr.top, "m", "a.yaml")))
	tr.expect(tr.load(), "b c", desired.ReasonUnsettled)
	time.Sleep(settle)
	tr.expect(tr.load(), "b c", "")
}

// So must the absence of a file that does not tell which sandbox is meant: it is
// being mended, perhaps.
func TestDirAbsenceOfNamelessWaits(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	tr.write("b.yaml", named("b"))
	tr.settled()
	tr.write("a.yaml", "")
	tr.expect(tr.load(), "b", desired.ReasonInvalidManifests)
	time.Sleep(settle)
	tr.expect(tr.load(), "b", desired.ReasonInvalidManifests)
	tr.must(os.Remove(filepath.Join(tr.top, "m", "a.yaml")))
	tr.expect(tr.load(), "b", desired.ReasonUnsettled)
	tr.write("a.yaml", named("a"))
	tr.expect(tr.load(), "a b", "")
	tr.write("a.yaml", "")
	tr.expect(tr.load(), "b", desired.ReasonInvalidManifests)
	time.Sleep(settle)
	tr.must(os.Remove(filepath.Join(tr.top, "m", "a.yaml")))
	tr.expect(tr.load(), "b", desired.ReasonUnsettled)
	time.Sleep(settle)
	tr.expect(tr.load(), "b", "")
}

// A daemon that starts while an editor saves must not believe what it sees
// first; a program that looks once must.
func TestDirFirstLook(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	tr.expect(tr.load(), "a", desired.ReasonUnsettled)
	once := newTree(t, Options{Once: true})
	once.write("a.yaml", named("a"))
	once.expect(once.load(), "a", "")
}

// A file that somebody has open for writing keeps what it said before.
func TestDirBeingWritten(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	first := tr.settled()
	p := filepath.Join(tr.top, "m", "a.yaml")
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0)
	tr.must(err)
	s := tr.load()
	tr.expect(s, "a", desired.ReasonUnsettled)
	if s.Lookup("a").Hash != first.Lookup("a").Hash {
		t.Error("half a file is believed")
	}
	text := strings.Replace(named("a"), "[sh]", "[other]", 1)
	for i := range len(text) {
		_, err := f.WriteString(text[i : i+1])
		tr.must(err)
		if i%16 == 0 {
			if s := tr.load(); s.Lookup("a") == nil || s.Lookup("a").Hash != first.Lookup("a").Hash {
				t.Fatalf("after %d bytes: %v", i, s.Problems)
			}
		}
	}
	tr.must(f.Close())
	s = tr.settled()
	tr.expect(s, "a", "")
	if s.Lookup("a").Sandbox.Spec.Command[0] != "other" {
		t.Error("the new content is not believed when it is whole")
	}
}

func TestDirDisasters(t *testing.T) {
	t.Parallel()
	m := func(tr *tree) string { return filepath.Join(tr.top, "m") }
	for name, c := range map[string]struct {
		do   func(tr *tree)
		want string
		undo func(tr *tree)
	}{
		"removed": {func(tr *tree) { tr.must(os.RemoveAll(m(tr))) }, desired.ReasonDirectoryMissing, nil},
		"renamed": {func(tr *tree) { tr.must(os.Rename(m(tr), m(tr)+"2")) }, desired.ReasonDirectoryMissing, func(tr *tree) { tr.must(os.Rename(m(tr)+"2", m(tr))) }},
		"swapped for an empty one": {func(tr *tree) {
			tr.must(os.Rename(m(tr), m(tr)+"2"))
			tr.must(os.Mkdir(m(tr), 0o755))
		}, desired.ReasonDirectoryReplaced, func(tr *tree) {
			tr.must(os.Remove(m(tr)))
			tr.must(os.Rename(m(tr)+"2", m(tr)))
		}},
		"a file in its place": {func(tr *tree) {
			tr.must(os.Rename(m(tr), m(tr)+"2"))
			tr.must(os.WriteFile(m(tr), nil, 0o600))
		}, desired.ReasonDirectoryUnreadable, func(tr *tree) {
			tr.must(os.Remove(m(tr)))
			tr.must(os.Rename(m(tr)+"2", m(tr)))
		}},
		"a dangling link in its place": {func(tr *tree) {
			tr.must(os.Rename(m(tr), m(tr)+"2"))
			tr.must(os.Symlink("nowhere", m(tr)))
		}, desired.ReasonDirectoryMissing, func(tr *tree) {
			tr.must(os.Remove(m(tr)))
			tr.must(os.Rename(m(tr)+"2", m(tr)))
		}},
	} {
		tr := newTree(t, Options{})
		tr.write("a.yaml", named("a"))
		tr.settled()
		c.do(tr)
		s := tr.settled()
		tr.expect(s, "", c.want)
		time.Sleep(settle)
		tr.expect(tr.settled(), "", c.want)
		// Another daemon, that knows what this one remembered.
		mem := tr.dir.Memory()
		next := New(Options{Path: m(tr), Memory: &mem, BootID: "boot", Once: true})
		if s, err := next.Load(t.Context()); err != nil || s.Reason != c.want {
			t.Errorf("%s, after a restart: %s %v", name, s.Reason, err)
		}
		if c.undo != nil {
			c.undo(tr)
			tr.expect(tr.settled(), "a", "")
		}
	}
}

// The directory that its author has emptied is empty; AllowEmpty takes any
// other at its word.
func TestDirEmptied(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	tr.settled()
	tr.must(os.Remove(filepath.Join(tr.top, "m", "a.yaml")))
	tr.expect(tr.settled(), "", "")
	mem := tr.dir.Memory()
	if !mem.Emptied {
		t.Errorf("memory %+v", mem)
	}
	mem.Ino++
	mem.Emptied = false
	for _, allow := range []bool{false, true} {
		d := New(Options{Path: filepath.Join(tr.top, "m"), Memory: &mem, BootID: "boot", Once: true, AllowEmpty: allow})
		if s, err := d.Load(t.Context()); err != nil || s.Complete != allow {
			t.Errorf("allow %v: %+v %v", allow, s, err)
		}
	}
}

// inMountNS runs f on a thread of its own in a mount namespace of its own, so
// that nothing of it is seen, or left, outside.
func inMountNS(t *testing.T, f func()) {
	t.Helper()
	hosttest.NeedsRoot(t, "mounting needs root")
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not unlocked: the thread, and its namespace, end with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			t.Errorf("make mounts private: %v", err)
			return
		}
		f()
	}()
	<-done
}

// Something is mounted over the directory: the kernel tells nobody.
func TestDirMountedOver(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{})
	tr.write("a.yaml", named("a"))
	m := filepath.Join(tr.top, "m")
	inMountNS(t, func() {
		tr.settled()
		before := tr.dir.identity()
		tr.must(unix.Mount("tmpfs", m, "tmpfs", 0, "mode=0755"))
		if tr.dir.identity() == before {
			t.Error("the poll does not notice a mount")
		}
		tr.expect(tr.settled(), "", desired.ReasonDirectoryReplaced)
		tr.must(unix.Unmount(m, 0))
		tr.expect(tr.settled(), "a", "")
		// The same directory bound to itself is another mount, and holds the
		// manifests: fine.
		tr.must(unix.Mount(m, m, "", unix.MS_BIND, ""))
		tr.expect(tr.settled(), "a", "")
	})
}

// watching runs the watcher of a tree until the test ends.
func (tr *tree) watching() {
	tr.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.dir.Run(ctx) }()
	tr.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tr.t.Errorf("run: %v", err)
		}
	})
}

// eventually loads on every change until ok, as the loop does.
func (tr *tree) eventually(what string, ok func(*desired.Snapshot) bool) time.Duration {
	tr.t.Helper()
	start := time.Now()
	deadline := time.After(2 * time.Minute)
	for {
		if ok(tr.load()) {
			return time.Since(start)
		}
		select {
		case <-tr.dir.Changes():
		case <-deadline:
			s := tr.load()
			tr.t.Fatalf("%s: never noticed: %q %s %s", what, names(s), s.Reason, s.Message)
		}
	}
}

// Everything that is done to a directory is noticed, without a poll.
func TestWatch(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{PollEvery: time.Hour})
	tr.watching()
	is := func(want string) func(*desired.Snapshot) bool {
		return func(s *desired.Snapshot) bool { return names(s) == want && s.Reason == "" }
	}
	m := filepath.Join(tr.top, "m")
	tr.eventually("start", is(""))
	tr.write("a.yaml", named("a"))
	tr.eventually("rename into", is("a"))
	tr.must(os.WriteFile(filepath.Join(m, "b.yaml"), []byte(named("b")), 0o644))
	tr.eventually("written in place", is("a b"))
	tr.must(os.WriteFile(filepath.Join(m, "b.yaml"), []byte(named("bb")), 0o644))
	tr.eventually("rewritten in place", is("a bb"))
	tr.write("new/sub/c.yaml", named("c"))
	tr.eventually("new directories", is("a bb c"))
	tr.write("new/sub/d.yaml", named("d"))
	tr.eventually("in a new directory", is("a bb c d"))
	tr.must(os.RemoveAll(filepath.Join(m, "new")))
	tr.eventually("directories removed", is("a bb"))

	// vim: the file is moved away and written anew.
	tr.must(os.Rename(filepath.Join(m, "a.yaml"), filepath.Join(m, "a.yaml~")))
	tr.must(os.WriteFile(filepath.Join(m, "a.yaml"), []byte(named("vim")), 0o644))
	tr.must(os.Remove(filepath.Join(m, "a.yaml~")))
	tr.eventually("vim", is("bb vim"))

	// The directory is moved away, comes back, is replaced.
	tr.must(os.Rename(m, m+"2"))
	tr.eventually("moved away", func(s *desired.Snapshot) bool { return s.Reason == desired.ReasonDirectoryMissing })
	tr.must(os.Rename(m+"2", m))
	tr.eventually("back", is("bb vim"))
	tr.must(os.RemoveAll(m))
	tr.eventually("removed", func(s *desired.Snapshot) bool { return s.Reason == desired.ReasonDirectoryMissing })
	tr.must(os.Mkdir(m, 0o755))
	tr.write("x.yaml", named("x"))
	tr.eventually("made anew", is("x"))
	tr.write("z.yaml", named("z"))
	tr.eventually("in the one made anew", is("x z"))
}

// Links are swapped, as git-sync and Kubernetes do.
func TestWatchLinks(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	tr := &tree{t: t, top: top}
	for _, v := range []string{"v1", "v2"} {
		tr.must(os.MkdirAll(filepath.Join(top, v), 0o755))
		tr.must(os.WriteFile(filepath.Join(top, v, "a.yaml"), []byte(named(v)), 0o644))
	}
	tr.must(os.Symlink("v1", filepath.Join(top, "link")))
	tr.must(os.Symlink("link", filepath.Join(top, "m")))
	tr.dir = New(Options{Path: filepath.Join(top, "m"), Settle: settle, PollEvery: time.Hour, BootID: "boot"})
	tr.watching()
	is := func(want string) func(*desired.Snapshot) bool {
		return func(s *desired.Snapshot) bool { return names(s) == want && s.Reason == "" }
	}
	tr.eventually("start", is("v1"))
	tr.must(os.Symlink("v2", filepath.Join(top, "next")))
	tr.must(os.Rename(filepath.Join(top, "next"), filepath.Join(top, "link")))
	tr.eventually("a link in the middle swapped", is("v2"))
	tr.must(os.WriteFile(filepath.Join(top, "v2", "b.yaml"), []byte(named("b")), 0o644))
	tr.eventually("in the new target", is("b v2"))

	// Kubernetes: the files are links through ..data, which is swapped.
	k := filepath.Join(top, "k")
	for _, v := range []string{"..1", "..2"} {
		tr.must(os.MkdirAll(filepath.Join(k, v), 0o755))
		tr.must(os.WriteFile(filepath.Join(k, v, "a.yaml"), []byte(named("k"+v[2:])), 0o644))
	}
	tr.must(os.Symlink("..1", filepath.Join(k, "..data")))
	tr.must(os.Symlink("..data/a.yaml", filepath.Join(k, "a.yaml")))
	kt := &tree{t: t, top: top, dir: New(Options{Path: k, Settle: settle, PollEvery: time.Hour, BootID: "boot"})}
	kt.watching()
	kt.eventually("..data", is("k1"))
	tr.must(os.Symlink("..2", filepath.Join(k, "..data_tmp")))
	tr.must(os.Rename(filepath.Join(k, "..data_tmp"), filepath.Join(k, "..data")))
	kt.eventually("..data swapped", is("k2"))
}

// Without inotify the poll finds everything, and it is said.
func TestWatchPollOnly(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{PollEvery: 20 * time.Millisecond})
	tr.dir.newWatcher = func() (*fsnotify.Watcher, error) { return nil, unix.EMFILE }
	tr.watching()
	tr.write("a.yaml", named("a"))
	is := func(s *desired.Snapshot) bool { return s.Lookup("a") != nil && s.Complete }
	tr.eventually("a file", is)
	if !strings.Contains(tr.dir.Degraded(), "inotify") {
		t.Errorf("degraded: %q", tr.dir.Degraded())
	}
	tr.must(os.Remove(filepath.Join(tr.top, "m", "a.yaml")))
	tr.eventually("its removal", func(s *desired.Snapshot) bool { return len(s.Entries) == 0 && s.Complete })
}

// The queue of notifications overflowed: anything may have changed, so it is
// looked at, and the watches are made anew.
func TestWatchOverflow(t *testing.T) {
	t.Parallel()
	tr := newTree(t, Options{PollEvery: time.Hour})
	watchers := make(chan *fsnotify.Watcher, 2)
	tr.dir.newWatcher = func() (*fsnotify.Watcher, error) {
		w, err := fsnotify.NewWatcher()
		watchers <- w
		return w, err
	}
	tr.watching()
	first := <-watchers
	<-tr.dir.Changes()
	first.Errors <- fsnotify.ErrEventOverflow
	<-tr.dir.Changes()
	if again := <-watchers; again == first {
		t.Error("the watches are the old ones")
	}
	if d := tr.dir.Degraded(); d != "" {
		t.Errorf("degraded: %s", d)
	}
}

// 10 000 files: a change is noticed at once, and an unchanged look is cheap. With
// SANDBOXCTL_REACTION set, a hundred changes are.
func TestManyFiles(t *testing.T) {
	tr := newTree(t, Options{PollEvery: time.Hour})
	n, changes := 2000, 10
	if os.Getenv("SANDBOXCTL_REACTION") != "" {
		n, changes = 10000, 100
	}
	file := func(i int, version string) (string, string) {
		return fmt.Sprintf("f%d.yaml", i), manifestOf(fmt.Sprintf("s%d", i), version)
	}
	for i := range n {
		tr.write(file(i, "sh"))
	}
	tr.watching()
	first := tr.eventually("all", func(s *desired.Snapshot) bool { return len(s.Entries) == n && s.Complete })
	start := time.Now()
	tr.load()
	unchanged := time.Since(start)
	var took []time.Duration
	for i := range changes {
		// Renamed in, and written in place.
		name, text := file(i*n/changes, "edited")
		at := time.Now()
		if i%2 == 0 {
			tr.write(name, text)
		} else {
			tr.must(os.WriteFile(filepath.Join(tr.top, "m", name), []byte(text), 0o644))
		}
		tr.eventually(name, func(s *desired.Snapshot) bool {
			e := s.Lookup(fmt.Sprintf("s%d", i*n/changes))
			return e != nil && e.Sandbox.Spec.Command[0] == "edited"
		})
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	t.Logf("%d files: first look %s, unchanged look %s, %d changes noticed: p50 %s, p99 %s", n, first, unchanged, changes, took[changes/2], took[(changes*99-1)/100])
}

func BenchmarkLoad50(b *testing.B) {
	top := b.TempDir()
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(top, fmt.Sprintf("f%d.yaml", i)), []byte(named(fmt.Sprintf("s%d", i))), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	d := New(Options{Path: top, Once: true})
	for b.Loop() {
		if _, err := d.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A directory whose name can't be shown is no reason to pass over what is in it:
// its sandboxes would be gone.
func TestUnprintableNames(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"a\x1b[2J", "a\nb", "a\u009bb", "a\x7f", "a\u202eb", "a\xffb"} {
		for name, put := range map[string]func(dir string) error{
			"directory": func(dir string) error { return os.Mkdir(filepath.Join(dir, bad), 0o700) },
			"file":      func(dir string) error { return os.WriteFile(filepath.Join(dir, bad+".yaml"), []byte(minimal), 0o600) },
			"link":      func(dir string) error { return os.Symlink("real", filepath.Join(dir, bad)) },
		} {
			dir := t.TempDir()
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o700), put(dir)); err != nil {
				t.Fatal(err)
			}
			snap, err := New(Options{Path: dir, Once: true}).Load(t.Context())
			if err != nil || snap.Complete || len(snap.Problems) != 1 || !strings.Contains(snap.Problems[0].Message, "not printable UTF-8") {
				t.Errorf("%s %q: %+v %v", name, bad, snap, err)
			}
		}
	}
}

// BenchmarkLoadUnchanged is a look at 10 000 files of which one has changed.
func BenchmarkLoadUnchanged(b *testing.B) {
	top := b.TempDir()
	file := func(i int) string { return filepath.Join(top, fmt.Sprintf("f%d.yaml", i)) }
	for i := range 10000 {
		if err := os.WriteFile(file(i), []byte(named(fmt.Sprintf("s%d", i))), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	d := New(Options{Path: top, Once: true})
	for b.Loop() {
		if err := os.Chmod(file(7), []os.FileMode{0o600, 0o644}[b.N%2]); err != nil {
			b.Fatal(err)
		}
		if _, err := d.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
