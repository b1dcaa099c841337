// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/sentry"
)

// This test binary is also whatever process a violation needs: it waits until
// its standard input ends.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case companion.SentryName, gofer.Argv0, "stranger":
		if len(os.Args) > 1 && os.Args[1] == "fork" {
			// A sentry has processes that look like it.
			c := exec.Command("/proc/self/exe")
			c.Args = []string{os.Args[0], "child"}
			c.Stdin, c.ExtraFiles = os.Stdin, []*os.File{os.NewFile(3, "file")}
			if err := c.Start(); err != nil {
				panic(err)
			}
			fmt.Println(c.Process.Pid)
			_ = c.Wait()
			os.Exit(0)
		}
		fmt.Println("ready")
		var b [1]byte
		_, _ = os.Stdin.Read(b[:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a state directory with one record.
type world struct {
	t     *testing.T
	store *actual.Store
	rec   *actual.Record
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	uid := actual.NewUID()
	boot, err := process.BootID()
	must(t, err)
	w := &world{t: t, store: store, rec: &actual.Record{
		Version: actual.RecordVersion, Name: "web", UID: uid, Attempt: 1, Generation: 1, Phase: actual.PhaseStopped, BootID: boot,
		Spec: json.RawMessage(`{}`), SpecHash: "v1:0", CreatedAt: time.Now(),
		Containers: []actual.Container{{Name: actual.AppName}},
	}}
	must(t, store.Claim("web"))
	w.put()
	w.expect(Options{Settled: true})
	return w
}

func (w *world) put() { w.t.Helper(); must(w.t, w.store.Put(w.rec)) }

func (w *world) path(p string) string { return filepath.Join(w.store.Path(), p) }

func (w *world) write(p string) string {
	w.t.Helper()
	must(w.t, os.MkdirAll(filepath.Dir(w.path(p)), 0o700))
	must(w.t, os.WriteFile(w.path(p), nil, 0o600))
	return w.path(p)
}

// expect checks that what is found is exactly of these kinds.
func (w *world) expect(opts Options, kinds ...Kind) {
	w.t.Helper()
	found, err := Check(w.t.Context(), w.store, opts)
	must(w.t, err)
	var got []Kind
	for _, v := range found {
		got = append(got, v.Kind)
	}
	slices.Sort(kinds)
	if !slices.Equal(got, kinds) {
		w.t.Errorf("found %v, expected %v", found, kinds)
	}
	if (Err(found) == nil) != (len(kinds) == 0) {
		w.t.Errorf("as an error: %v", Err(found))
	}
}

// start starts a process called argv0 that has a file open, as its 3rd.
func (w *world) start(argv0, file string, args ...string) *exec.Cmd {
	w.t.Helper()
	f, err := os.Open(file)
	must(w.t, err)
	defer f.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{argv0}, args...)
	cmd.ExtraFiles = []*os.File{f}
	in, err := cmd.StdinPipe()
	must(w.t, err)
	out, err := cmd.StdoutPipe()
	must(w.t, err)
	must(w.t, cmd.Start())
	w.t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	var line string
	_, err = fmt.Fscanln(out, &line)
	must(w.t, err)
	return cmd
}

func identify(t *testing.T, pid int) *process.Identity {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	must(t, err)
	defer unix.Close(fd)
	id, err := process.Identify(fd, pid)
	must(t, err)
	return &id
}

func TestFiles(t *testing.T) {
	t.Parallel()
	tmp := atomicfile.TempPrefix + "0011"
	for path, want := range map[string]Kind{
		tmp: LeftoverTemp, "sandboxes/web/" + tmp: LeftoverTemp, "sandboxes/web/logs/" + tmp: LeftoverTemp, "requests/" + tmp: LeftoverTemp,
		"trash/web.0123/exit.json": LeftoverTrash,
	} {
		w := newWorld(t)
		w.write(path)
		w.expect(Options{}, want)
		w.expect(Options{Settled: true}, want)
	}
	// The logs of a deleted sandbox are where they should be, anything else there is
	// not.
	for path, want := range map[string][]Kind{
		"deleted/web.3.1764186227000000000/3/app.log": nil, "deleted/gone.1.5/1/app.log.1": nil,
		"deleted/web.3.1764186227000000000": {LeftoverForeign}, "deleted/web.3.x/3/app.log": {LeftoverForeign}, "deleted/web/3/app.log": {LeftoverForeign},
		"deleted/web.03.5/app.log": {LeftoverForeign}, "deleted/notes": {LeftoverForeign}, "deleted/gone.1.5/1/" + tmp: {LeftoverTemp},
	} {
		w := newWorld(t)
		w.write(path)
		w.expect(Options{}, want...)
	}
	// One with something in it is held, and told with the records.
	w := newWorld(t)
	must(t, os.Mkdir(w.path("sandboxes/other"), 0o700))
	w.expect(Options{}, LeftoverDirectory)
}

func TestSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("sandboxes/web/" + sentry.ControlSocket)
	w.expect(Options{}, LeftoverSocket)
	w.rec.Phase = actual.PhaseRunning
	w.put()
	w.expect(Options{})
}

func TestRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rec.Network = &actual.Network{Path: "/run/netns/web", Config: json.RawMessage(`{}`)}
	w.put()
	w.expect(Options{}, LeftoverNetwork)
	w.rec.Network, w.rec.CNI = nil, &actual.CNI{Network: "lab", Config: json.RawMessage(`{}`)}
	w.put()
	w.expect(Options{}, LeftoverNetwork)
	w.rec.CNI = nil
	for _, p := range []actual.Phase{actual.PhaseCreating, actual.PhaseStarting, actual.PhaseStopping} {
		w.rec.Phase = p
		w.put()
		w.expect(Options{})
		w.expect(Options{Settled: true}, Unsettled)
	}
	// One that says that it runs, with both processes dead.
	w.rec.Phase = actual.PhaseRunning
	w.put()
	w.expect(Options{Settled: true}, Unsettled, Unsettled)
	w.rec.Phase, w.rec.Gofer = actual.PhaseStopped, identify(t, os.Getpid())
	w.put()
	w.expect(Options{Settled: true}, Unsettled)
}

// A sentry or gofer is found by the files that it has open, wherever they are by
// now, unless it is on record.
func TestOrphans(t *testing.T) {
	t.Parallel()
	for _, argv0 := range []string{companion.SentryName, gofer.Argv0} {
		w := newWorld(t)
		cmd := w.start(argv0, w.write("sandboxes/web/exit.json"))
		w.expect(Options{}, OrphanProcess)
		found, err := Check(t.Context(), w.store, Options{Settled: true})
		if err != nil || len(found) != 1 || !strings.Contains(found[0].Message, fmt.Sprintf("pid %d ", cmd.Process.Pid)) {
			t.Errorf("%v, %v: expected pid %d", found, err, cmd.Process.Pid)
		}
		must(t, os.Remove(w.path("sandboxes/web/exit.json")))
		w.expect(Options{}, OrphanProcess)
		must(t, os.Rename(w.path("sandboxes/web"), w.path("trash/web.0123")))
		w.expect(Options{}, LeftoverTrash, OrphanProcess)
		must(t, os.RemoveAll(w.path("trash/web.0123")))
		w.expect(Options{}, OrphanProcess)
	}
	// Another program that reads a file is none.
	w := newWorld(t)
	w.start("stranger", w.write("sandboxes/web/exit.json"))
	w.expect(Options{Settled: true})
	// Nor is a sentry of another state directory.
	other := newWorld(t)
	other.start(companion.SentryName, other.write("sandboxes/web/exit.json"))
	w.expect(Options{Settled: true})
}

// The state directory may have another name in the process that started it.
func TestOtherName(t *testing.T) {
	requireRoot(t)
	w := newWorld(t)
	file := w.write("sandboxes/web/exit.json")
	other := t.TempDir()
	must(t, unix.Mount(w.store.Path(), other, "", unix.MS_BIND, ""))
	w.start(companion.SentryName, filepath.Join(other, "sandboxes/web/exit.json"))
	must(t, unix.Unmount(other, unix.MNT_DETACH))
	w.expect(Options{}, OrphanProcess)
	// Another file may get the inode of one that has been removed since the walk.
	root, err := w.store.Root()
	must(t, err)
	defer root.Close()
	tree, err := readTree(root)
	must(t, err)
	must(t, os.Rename(file, filepath.Join(t.TempDir(), "f")))
	if ps, err := findProcesses(tree); err != nil || len(ps) != 0 {
		t.Errorf("%v, %v: a file that is elsewhere now tells whose a process is", ps, err)
	}
}

// Those on record are no orphans, those about to be are none while an operation
// may be under way, and those whose record can't be read are not known.
func TestNoOrphans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := w.write("sandboxes/web/exit.json")
	sentry, gof := w.start(companion.SentryName, file), w.start(gofer.Argv0, file)
	w.rec.Phase = actual.PhaseCreating
	w.put()
	w.expect(Options{})
	w.expect(Options{Settled: true}, Unsettled, OrphanProcess, OrphanProcess)
	w.rec.Phase, w.rec.Sentry, w.rec.Gofer = actual.PhaseRunning, identify(t, sentry.Process.Pid), identify(t, gof.Process.Pid)
	w.put()
	w.expect(Options{Settled: true})
	// The number alone is nobody's.
	w.rec.Sentry.Inode++
	w.rec.Sentry.StartTime++
	w.put()
	w.expect(Options{}, OrphanProcess)
	must(t, os.WriteFile(w.path("sandboxes/web/meta.json"), []byte("{"), 0o600))
	w.expect(Options{Settled: true})
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := w.write("sandboxes/web/exit.json")
	first := w.start(companion.SentryName, file)
	w.start(gofer.Argv0, file)
	w.start(companion.SentryName, file)
	w.rec.Phase, w.rec.Sentry = actual.PhaseCreating, identify(t, first.Process.Pid)
	w.put()
	w.expect(Options{}, DuplicateProcess)
}

// The processes of a sentry's own look like it and are part of it.
func TestChildren(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := w.write("sandboxes/web/exit.json")
	sentry, gof := w.start(companion.SentryName, file, "fork"), w.start(gofer.Argv0, file)
	w.rec.Phase, w.rec.Sentry, w.rec.Gofer = actual.PhaseRunning, identify(t, sentry.Process.Pid), identify(t, gof.Process.Pid)
	w.put()
	w.expect(Options{Settled: true})
}

// A zombie is nobody.
func TestZombie(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cmd := w.start(companion.SentryName, w.write("sandboxes/web/exit.json"))
	must(t, cmd.Process.Kill())
	id := identify(t, cmd.Process.Pid)
	p, err := process.Open(*id)
	must(t, err)
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, p.Wait(ctx))
	w.expect(Options{Settled: true})
}

func requireRoot(t *testing.T) {
	t.Helper()
	host, err := cgroup.Detect()
	must(t, err)
	if os.Geteuid() == 0 && host.Version() != "none" {
		return
	}
	hosttest.Lacks(t, "needs root and cgroups; uid %d, cgroups %s", os.Geteuid(), host.Version())
}

// A cgroup is told by its name: that of a stopped sandbox, one that is not on
// its sandbox's record, that of one in the trash, and that of one that the
// caller knows of. Every process in it must belong to the sandbox.
func TestCgroups(t *testing.T) {
	requireRoot(t)
	host, err := cgroup.Detect()
	must(t, err)
	w := newWorld(t)
	// A group without a mark may be of any state directory: daemons of other tests would not
	// start their sandbox of this name beside its processes.
	host.Mark(w.store.Marker())
	own := w.rec.Name + "-" + w.rec.UID
	g, _, err := host.Create(own, cgroup.Limits{PIDs: 100}, cgroup.Limits{})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must(t, g.Remove(ctx))
		must(t, g.Close())
	})
	all := make([]Kind, len(g.Dirs()))
	for i := range all {
		all[i] = LeftoverCgroup
	}
	past, err := Groups(w.store)
	must(t, err)
	w.expect(Options{}, all...)
	w.rec.Phase = actual.PhaseCreating
	w.put()
	w.expect(Options{})
	w.expect(Options{Settled: true}, append(all, Unsettled)...)
	w.rec.Phase, w.rec.Cgroups = actual.PhaseStopping, g.Dirs()
	w.put()
	w.expect(Options{})
	w.rec.Cgroups = g.Dirs()[:1]
	w.put()
	w.expect(Options{}, all[1:]...)

	w.rec.Cgroups = g.Dirs()
	w.put()
	in := w.start("stranger", w.write("note"))
	must(t, g.Add(in.Process.Pid))
	w.expect(Options{}, OrphanProcess)
	w.rec.Sentry = identify(t, in.Process.Pid)
	w.put()
	w.expect(Options{})
	must(t, in.Process.Signal(syscall.SIGKILL))
	_, _ = in.Process.Wait()

	must(t, os.Rename(w.path("sandboxes/web"), w.path("trash/web.0123")))
	w.expect(Options{}, append(all, LeftoverTrash)...)
	must(t, os.RemoveAll(w.path("trash/web.0123")))
	w.expect(Options{})
	w.expect(Options{Past: past}, all...)
}

func TestMounts(t *testing.T) {
	requireRoot(t)
	w := newWorld(t)
	mount := func(at string) func() {
		must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m"))
		done := false
		undo := func() {
			if !done {
				done = true
				must(t, unix.Unmount(at, 0))
			}
		}
		t.Cleanup(undo)
		return undo
	}
	undo := mount(w.path("sandboxes/web"))
	w.expect(Options{}, LeftoverDirectory, LeftoverMount)
	undo()
	undo = mount(w.store.Path())
	w.expect(Options{}, LeftoverMount)
	undo()
	w.expect(Options{Settled: true})
}

// Beside operations, only what stays is a violation.
func TestConfirms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	dir, err := w.store.Dir("web")
	must(t, err)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := atomicfile.Write(dir, "f", nil, 0o600); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	defer func() { close(stop); <-done; dir.Close() }()
	for range 5 {
		w.expect(Options{})
	}
	w.write("trash/web.0123/f")
	w.expect(Options{}, LeftoverTrash)
}
