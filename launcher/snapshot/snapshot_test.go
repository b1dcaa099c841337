// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/resumption"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/fromsnapshot"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/checkpoint"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// source stands for a sentry.
type source func(ctx context.Context, to *os.File) error

func (s source) Write(ctx context.Context, leave bool, to *os.File) error {
	if !leave {
		return errors.New("the sandbox would end")
	}
	return s(ctx, to)
}

// writes is a source that writes this.
func writes(text string) source {
	return func(_ context.Context, to *os.File) error {
		_, err := to.WriteString(text)
		return err
	}
}

func sampleSetup() *setup.Setup {
	return &setup.Setup{Containers: []setup.Container{{Overlay: "memory", Spec: &specs.Spec{
		Root: &specs.Root{Path: "/"}, Process: &specs.Process{Args: []string{"a"}, Cwd: "/", Env: []string{"TOKEN=of-the-sandbox"}}, Mounts: setup.DefaultMounts(),
	}}}}
}

func sampleInfo() *checkpoint.Info {
	st := sampleSetup()
	return &checkpoint.Info{
		Version: 1, Name: "web", TakenAt: time.Now(), GVisor: "v1", Arch: runtime.GOARCH, Network: st.Network(), Overlay: st.App().Overlay, Mounts: st.MountConfs(), Spec: st.App().Spec,
	}
}

// world is a state directory.
type world struct {
	*testing.T
	state *actual.Store
	*Store
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	state, err := actual.OpenStore(dir)
	must(t, err)
	t.Cleanup(func() { state.Close() })
	return &world{t, state, (&world{T: t, state: state}).open()}
}

// open opens the store once more, as another program does.
func (w *world) open() *Store {
	w.Helper()
	s, err := Open(w.state.RootDir())
	must(w.T, err)
	w.Cleanup(s.Close)
	return s
}

func (w *world) path(p ...string) string {
	return filepath.Join(append([]string{w.state.Path(), Directory}, p...)...)
}

func (w *world) make(name, text string) {
	w.Helper()
	_, err := w.open().Create(w.Context(), name, sampleInfo(), writes(text), Limits{Sum: 1 << 30})
	must(w.T, err)
}

// holds looks what is in the directory.
func (w *world) holds(want ...string) {
	w.Helper()
	var names []string
	all, err := os.ReadDir(w.path())
	must(w.T, err)
	for _, e := range all {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		w.Errorf("there is %q, expected %q", names, want)
	}
}

// A snapshot is there as a whole, private, and as it was written; its secrets are not shown.
func TestCreate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	large := strings.Repeat("0123456789abcdef", 200_000)
	e, err := w.Create(t.Context(), "ready", sampleInfo(), writes(large), Limits{Sum: 1 << 30})
	must(t, err)
	if e.Name != "ready" || e.Sandbox != "web" || e.Bytes != int64(len(large)) || e.Problem != "" {
		t.Errorf("%+v", e)
	}
	must(t, w.Verify(t.Context(), "ready"))
	w.holds("ready")
	b, err := os.ReadFile(w.path("ready", "state.img"))
	must(t, err)
	if string(b) != large {
		t.Errorf("%d bytes are not what was written", len(b))
	}
	for p, mode := range map[string]os.FileMode{".": 0o700, "ready": 0o700, "ready/state.img": 0o600, "ready/checkpoint.json": 0o600} {
		st, err := os.Stat(w.path(p))
		must(t, err)
		if st.Mode().Perm() != mode {
			t.Errorf("%s has the mode %o, expected %o", p, st.Mode().Perm(), mode)
		}
	}
	if _, err := w.open().Create(t.Context(), "ready", sampleInfo(), writes("x"), Limits{Sum: 1 << 30}); !errors.Is(err, ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	for _, name := range []string{"", "..", "a/b", ".new-x", "A"} {
		if _, err := w.open().Create(t.Context(), name, sampleInfo(), writes("x"), Limits{Sum: 1 << 30}); err == nil || !strings.Contains(err.Error(), "is not the name of a snapshot") {
			t.Errorf("%q: %v", name, err)
		}
	}
	all, err := w.List()
	must(t, err)
	if len(all) != 1 || all[0].Name != "ready" {
		t.Errorf("%+v", all)
	}
}

// Whatever keeps a snapshot from being whole, nothing of it is left, and no sentry writes on.
func TestCreateFails(t *testing.T) {
	t.Parallel()
	endless := func(_ context.Context, to *os.File) error {
		for b := make([]byte, 64<<10); ; {
			if _, err := unix.Write(int(to.Fd()), b); err != nil {
				return err
			}
		}
	}
	for want, c := range map[string]struct {
		from   source
		limits Limits
		cancel bool
	}{
		"more than the host policy allows: 1Mi (snapshots.maxSize)": {from: endless, limits: Limits{Sum: 1 << 20}},
		"more than the host policy allows: 0 (snapshots.maxSize)":   {from: writes("x"), limits: Limits{}},
		"the sentry has refused": {from: func(_ context.Context, to *os.File) error {
			_, _ = to.WriteString("half")
			return errors.New("the sentry has refused")
		}, limits: Limits{Sum: 1 << 20}},
		"the sentry wrote no state": {from: writes(""), limits: Limits{Sum: 1 << 20}},
		"context canceled": {from: func(ctx context.Context, to *os.File) error {
			_, _ = to.WriteString("half")
			<-ctx.Done()
			return ctx.Err()
		}, limits: Limits{Sum: 1 << 20}, cancel: true},
	} {
		w := newWorld(t, t.TempDir()+"/s")
		ctx, cancel := context.WithCancel(t.Context())
		if c.cancel {
			time.AfterFunc(20*time.Millisecond, cancel)
		}
		_, err := w.Create(ctx, "ready", sampleInfo(), c.from, c.limits)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expected %q, got %v", want, err)
		}
		w.holds()
	}
}

// What others take counts: the sum is bounded, and not each alone.
func TestSum(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	w.make("a", strings.Repeat("x", 600<<10))
	if _, err := w.Create(t.Context(), "b", sampleInfo(), writes(strings.Repeat("x", 600<<10)), Limits{Sum: 1 << 20}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
	must(t, w.Remove("a", func() error { return nil }))
	if _, err := w.open().Create(t.Context(), "b", sampleInfo(), writes(strings.Repeat("x", 600<<10)), Limits{Sum: 1 << 20}); err != nil {
		t.Error(err)
	}
}

// The disk stays free enough for sandboxes to be stopped and removed.
func TestDiskLimit(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		hosttest.Lacks(t, "not root")
	}
	dir := t.TempDir() + "/s"
	must(t, os.Mkdir(dir, 0o700))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	w := newWorld(t, dir)
	if _, err := w.Create(t.Context(), "ready", sampleInfo(), writes(strings.Repeat("x", 16<<20)), Limits{Sum: 1 << 30}); !errors.Is(err, room.ErrNone) {
		t.Errorf("%v", err)
	}
	w.holds()
}

// Who still has the end of the pipe when all was written is not waited for, and nothing that is
// in it is lost.
func TestDuplicatedEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	text := strings.Repeat("0123456789", 300_000)
	e, err := w.Create(t.Context(), "ready", sampleInfo(), source(func(_ context.Context, to *os.File) error {
		kept, err := unix.Dup(int(to.Fd()))
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(kept) })
		_, err = to.WriteString(text)
		return err
	}), Limits{Sum: 1 << 30})
	must(t, err)
	if e.Bytes != int64(len(text)) {
		t.Errorf("%d bytes, expected %d", e.Bytes, len(text))
	}
}

// One is made at a time; what is being made is left by a sweep.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	begun, end := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := w.Create(t.Context(), "slow", sampleInfo(), source(func(_ context.Context, to *os.File) error {
			close(begun)
			<-end
			_, err := to.WriteString("x")
			return err
		}), Limits{Sum: 1 << 20})
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	must(t, Sweep(t.Context(), w.state.RootDir()))
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, ErrBusy)
	if _, err := w.open().Create(ctx, "other", sampleInfo(), writes("x"), Limits{Sum: 1 << 20}); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	cancel()
	close(end)
	wg.Wait()
	w.make("other", "x")
	w.holds("other", "slow")
}

// What a killed program has left is removed, and nothing else.
func TestSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	must(t, Sweep(t.Context(), w.state.RootDir()))
	w.make("ready", "x")
	must(t, os.MkdirAll(w.path(".new-1"), 0o700))
	must(t, os.WriteFile(w.path(".new-1", "state.img"), []byte("half"), 0o600))
	names, err := w.Unfinished()
	if err != nil || !slices.Equal(names, []string{".new-1"}) {
		t.Errorf("%v %v", names, err)
	}
	must(t, Sweep(t.Context(), w.state.RootDir()))
	w.holds("ready")
}

// Each damage is found: what is cheap to see at once, a single bit by reading all.
func TestDamage(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		damage func(w *world)
		seen   bool // without reading all
	}{
		"a bit": {func(w *world) {
			f, err := os.OpenFile(w.path("ready", "state.img"), os.O_RDWR, 0)
			must(w.T, err)
			defer f.Close()
			_, err = f.WriteAt([]byte("y"), 5)
			must(w.T, err)
		}, false},
		"cut":         {func(w *world) { must(w.T, os.Truncate(w.path("ready", "state.img"), 3)) }, true},
		"no state":    {func(w *world) { must(w.T, os.Remove(w.path("ready", "state.img"))) }, true},
		"no words":    {func(w *world) { must(w.T, os.Remove(w.path("ready", "checkpoint.json"))) }, true},
		"other words": {func(w *world) { must(w.T, os.WriteFile(w.path("ready", "checkpoint.json"), []byte("{}"), 0o600)) }, true},
		"link": {func(w *world) {
			must(w.T, os.Remove(w.path("ready", "state.img")))
			must(w.T, os.Symlink("/etc/passwd", w.path("ready", "state.img")))
		}, true},
		"fifo": {func(w *world) {
			must(w.T, os.Remove(w.path("ready", "state.img")))
			must(w.T, unix.Mkfifo(w.path("ready", "state.img"), 0o600))
		}, true},
	} {
		w := newWorld(t, t.TempDir()+"/s")
		w.make("ready", "0123456789")
		c.damage(w)
		if err := w.Verify(t.Context(), "ready"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		all, err := w.List()
		must(t, err)
		if len(all) != 1 || (all[0].Problem != "") != c.seen {
			t.Errorf("%s: %+v", what, all)
		}
		must(t, w.Remove("ready", func() error { return nil }))
		w.holds()
	}
	// What others may write is not believed.
	w := newWorld(t, t.TempDir()+"/s")
	w.make("ready", "x")
	must(t, os.Chmod(w.path("ready"), 0o777))
	if _, err := w.Load("ready"); err == nil {
		t.Error("a directory that everybody may write is believed")
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	w.make("ready", "x")
	used := errors.New("used")
	if err := w.Remove("ready", func() error { return used }); !errors.Is(err, used) {
		t.Error(err)
	}
	w.holds("ready")
	img, err := w.Load("ready")
	must(t, err)
	defer img.Close()
	must(t, w.Remove("ready", func() error { return nil }))
	w.holds()
	trash, err := os.ReadDir(filepath.Join(w.state.Path(), actual.TrashDir))
	if err != nil || len(trash) > 0 {
		t.Errorf("%v %v", trash, err)
	}
	// Who has opened it goes on.
	must(t, verify(t.Context(), img))
	if err := w.Remove("ready", func() error { return nil }); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := w.Verify(t.Context(), "ready"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// beginning is a start with a snapshot in its manifest.
func (w *world) beginning(c *Chooser, rec *actual.Record, change func(sb *desired.Sandbox, st *setup.Setup)) (*Saved, error) {
	w.Helper()
	sb, st := &desired.Sandbox{}, sampleSetup()
	sb.Spec.Snapshot = &fromsnapshot.Snapshot{From: "ready"}
	if change != nil {
		change(sb, st)
	}
	rec.Warnings = nil
	saved, err := c.Begin(w.Context(), rec, sb, nil, st)
	if (saved != nil) != st.App().Restores {
		w.Errorf("the set-up says %v", st.App().Restores)
	}
	return saved, err
}

// A start begins from its snapshot, or is a fresh one with the reason; nothing of that is an error.
func TestBegin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	c := &Chooser{Store: w.state, Version: func(context.Context) (string, error) { return "v1", nil }}
	rec := &actual.Record{Containers: []actual.Container{{}}}
	fresh := func(what, reason string, change func(sb *desired.Sandbox, st *setup.Setup)) {
		t.Helper()
		saved, err := w.beginning(c, rec, change)
		if err != nil || saved != nil || len(rec.Warnings) != 1 || rec.Warnings[0].Reason != reason {
			t.Errorf("%s: %v %v %+v", what, saved, err, rec.Warnings)
		}
	}
	fresh("none yet", actual.WarningSnapshotMissing, nil)
	w.make("ready", "0123456789")
	saved, err := w.beginning(c, rec, func(sb *desired.Sandbox, _ *setup.Setup) {
		sb.Spec.Snapshot.OnRestore = &fromsnapshot.OnRestore{Exec: []string{"x"}, Timeout: new(scalar.Duration(time.Minute))}
	})
	must(t, err)
	if saved == nil || len(rec.Warnings) > 0 || !rec.App().Resumption.Pending() || saved.Timeout() < time.Minute {
		t.Fatalf("%+v %+v", saved, rec)
	}
	// The sentry reads from where the file begins.
	b := make([]byte, 10)
	if n, err := saved.State.Read(b); err != nil || string(b[:n]) != "0123456789" {
		t.Errorf("%q %v", b[:n], err)
	}
	// Any number at a time.
	again, err := w.beginning(c, rec, func(_ *desired.Sandbox, st *setup.Setup) { st.App().Spec.Process.Env = []string{"TOKEN=another"} })
	must(t, err)
	if len(rec.Warnings) != 1 || rec.Warnings[0].Reason != actual.WarningSnapshotEnvironment || strings.Contains(rec.Warnings[0].Message, "another") {
		t.Errorf("another environment: %+v", rec.Warnings)
	}
	if again == nil || rec.App().Resumption.Pending() {
		t.Fatalf("%+v", rec)
	}
	again.Close()
	saved.Close()
	fresh("another command", actual.WarningSnapshotUnfit, func(_ *desired.Sandbox, st *setup.Setup) { st.App().Spec.Process.Args = []string{"b"} })
	c.Version = func(context.Context) (string, error) { return "v2", nil }
	fresh("another gVisor", actual.WarningSnapshotUnfit, nil)
	c.Version = func(context.Context) (string, error) { return "v1", nil }
	// It is not in every start that all of it is read, and a write is noticed.
	f, err := os.OpenFile(w.path("ready", "state.img"), os.O_RDWR, 0)
	must(t, err)
	time.Sleep(20 * time.Millisecond) // the clock of file times has ticks
	_, err = f.WriteAt([]byte("y"), 5)
	must(t, errors.Join(err, f.Close()))
	fresh("damaged", actual.WarningSnapshotDamaged, nil)
	fresh("damaged, as is known", actual.WarningSnapshotDamaged, nil)
}

// What the sentry could not restore is not tried again by itself; another snapshot is.
func TestBeginAfterFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	c := &Chooser{Store: w.state, Version: func(context.Context) (string, error) { return "v1", nil }}
	w.make("ready", "0123456789")
	rec := &actual.Record{Containers: []actual.Container{{}}}
	saved, err := w.beginning(c, rec, nil)
	must(t, err)
	saved.Close()
	rec.App().Resumption = rec.App().Resumption.Fails("it can't be read")
	for range 2 {
		saved, err := w.beginning(c, rec, nil)
		if err != nil || saved != nil || len(rec.Warnings) != 1 || rec.Warnings[0].Reason != actual.WarningSnapshotFailed || !strings.Contains(rec.Warnings[0].Message, "it can't be read") {
			t.Fatalf("%v %v %+v", saved, err, rec.Warnings)
		}
	}
	must(t, w.Remove("ready", func() error { return nil }))
	w.make("ready", "0123456789")
	saved, err = w.beginning(c, rec, nil)
	must(t, err)
	if saved == nil {
		t.Fatalf("%+v", rec.Warnings)
	}
	saved.Close()
	if (&resumption.Resumption{}).Refuses("") {
		t.Error("a checkpoint is refused")
	}
}

// One whose file is too slow to be compared leaves a fresh start half of the time.
func TestBeginSlowly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	w.make("ready", "x")
	c := &Chooser{Store: w.state, Version: func(context.Context) (string, error) { return "v1", nil }}
	c.compare = func(ctx context.Context, _ *checkpoint.Image) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	rec, sb := &actual.Record{Containers: []actual.Container{{}}}, &desired.Sandbox{}
	sb.Spec.Snapshot = &fromsnapshot.Snapshot{From: "ready"}
	for range 2 { // nothing is remembered of it
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		begun := time.Now()
		rec.Warnings = nil
		saved, err := c.Begin(ctx, rec, sb, nil, sampleSetup())
		if took := time.Since(begun); err != nil || saved != nil || took < 900*time.Millisecond || ctx.Err() != nil {
			t.Errorf("after %s: %v %v", took, saved, err)
		}
		cancel()
		if len(rec.Warnings) != 1 || rec.Warnings[0].Reason != actual.WarningSnapshotUnfit || !strings.Contains(rec.Warnings[0].Message, "half of the time that was left") {
			t.Errorf("%+v", rec.Warnings)
		}
	}
}

// Starts from one snapshot read it once between them, also when the one that reads gives up.
func TestCompareOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	w.make("ready", "x")
	c := &Chooser{Store: w.state}
	reads, goes := make(chan struct{}, 100), make(chan struct{})
	c.compare = func(ctx context.Context, _ *checkpoint.Image) error {
		reads <- struct{}{}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-goes:
			return nil
		}
	}
	img, err := w.Load("ready")
	must(t, err)
	defer img.Close()
	first, end := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.verify(first, img); !errors.Is(err, context.Canceled) {
			t.Errorf("the first one: %v", err)
		}
	})
	<-reads
	for range 5 {
		wg.Go(func() {
			if err := c.verify(t.Context(), img); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	if len(reads) > 0 {
		t.Errorf("%d more read it at the same time", len(reads))
	}
	end()
	<-reads
	close(goes)
	wg.Wait()
	if len(reads) > 0 {
		t.Errorf("%d more have read it", len(reads))
	}
}

// Who makes a snapshot gets to know what was made, however soon it is removed again. One whose
// name may not be on the disk is not there.
func TestCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	w.sync = func() error { return w.open().Remove("ready", func() error { return nil }) }
	e, err := w.Create(t.Context(), "ready", sampleInfo(), writes("0123456789"), Limits{Sum: 1 << 30})
	must(t, err)
	if e == nil || e.Name != "ready" || e.Sandbox != "web" || e.Bytes != 10 || e.GVisor != "v1" || e.Created.IsZero() {
		t.Errorf("%+v", e)
	}
	w.holds()
	w.sync = func() error { return unix.EIO }
	if _, err := w.Create(t.Context(), "ready", sampleInfo(), writes("x"), Limits{Sum: 1 << 30}); !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	w.holds()
	w.sync = func() error { return errors.Join(unix.EIO, w.open().Remove("ready", func() error { return nil })) }
	if _, err := w.Create(t.Context(), "ready", sampleInfo(), writes("x"), Limits{Sum: 1 << 30}); !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	w.holds()
	w.make("ready", "x")
	w.holds("ready")
}

// A restore keeps its worker, so that no more of them run than there are workers, and gives it up
// for the command of the author.
func TestRestoreKeepsWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir()+"/s")
	w.make("ready", "x")
	img, err := w.Load("ready")
	must(t, err)
	defer img.Close()
	var waits atomic.Int32
	ctx, cancel := operation.New(t.Context(), func() { waits.Add(1) })
	defer cancel(nil)
	dir, err := os.MkdirTemp("", "control") // the path of a socket is short
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, sentry.ControlSocket), Net: "unix"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if _, err := conn.Read(make([]byte, 64<<10)); err == nil {
				if n := waits.Load(); n > 0 {
					t.Errorf("the worker was given up before the restore")
				}
				_, _ = conn.Write([]byte(`{"success":true,"err":"","result":null}`))
			}
			conn.Close()
		}
	}()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	for _, hook := range []*fromsnapshot.OnRestore{nil, {Exec: []string{"x"}, Timeout: new(scalar.Duration(time.Minute))}} {
		control, err := sentry.Dial(ctx, int(d.Fd()), "web", os.Getpid())
		must(t, err)
		saved := &Saved{Image: img, store: w.state, hook: hook}
		rec := &actual.Record{Containers: []actual.Container{{Resumption: &resumption.Resumption{Unready: hook != nil}}}}
		err = saved.Restore(ctx, rec, control)
		_ = control.Close()
		switch n := waits.Load(); {
		case hook == nil && (err != nil || n != 0):
			t.Errorf("without a command: %v, and the worker was given up %d times", err, n)
		case hook != nil && (err == nil || n != 1 || !rec.App().Resumption.Pending()):
			t.Errorf("with a command: %v, and the worker was given up %d times", err, n)
		}
	}
}
