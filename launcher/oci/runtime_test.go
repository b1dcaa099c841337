// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
)

// runtime is a Runtime on a state directory of its own. Its sentry is none:
// nothing can be started.
type runtime struct {
	*Runtime
	root string

	mu     sync.Mutex
	warned []string
}

func newRuntime(t *testing.T) *runtime {
	t.Helper()
	r := &runtime{root: filepath.Join(t.TempDir(), "state")}
	var err error
	r.Runtime, err = Open(Options{Root: r.root, SentryPath: "/nonexistent/sentry", Warn: func(format string, args ...any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.warned = append(r.warned, fmt.Sprintf(format, args...))
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// put makes the record of a container.
func (r *runtime) put(t *testing.T, id string, phase actual.Phase, sentry *process.Identity) *actual.Record {
	t.Helper()
	rec := &actual.Record{
		Version: actual.RecordVersion, Name: id, UID: "0123456789abcdef0123456789abcdef", Attempt: 1, Generation: 1, Phase: phase, Sentry: sentry,
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),

		Containers: []actual.Container{{Name: actual.AppName, OCI: &actual.OCIContainer{Bundle: "/bundle", Annotations: map[string]string{"a": "b"}}}},
	}
	boot, err := process.BootID()
	if err != nil {
		t.Fatal(err)
	}
	rec.BootID = boot
	if err := r.store.Claim(id); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if err := r.store.Put(rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

// file writes a file into the directory of a container.
func (r *runtime) file(t *testing.T, id, name, content string) {
	t.Helper()
	write(t, filepath.Join(r.root, "sandboxes", id, name), content)
}

// names are the containers on disk, the trash included.
func (r *runtime) names(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{"sandboxes", "trash"} {
		entries, err := os.ReadDir(filepath.Join(r.root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
	}
	return out
}

// child is a process that stands for a sentry.
func child(t *testing.T) *process.Identity {
	t.Helper()
	fd := -1
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		unix.Close(fd)
	})
	id, err := process.Identify(fd, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return &id
}

// identities are of the processes that a record may name.
func identities(t *testing.T) (live, reused, rebooted *process.Identity) {
	t.Helper()
	live = child(t)
	r, b := *live, *live
	r.Inode, r.StartTime = r.Inode+1, r.StartTime+1
	b.BootID = "another"
	return live, &r, &b
}

func TestStatus(t *testing.T) {
	t.Parallel()
	live, reused, rebooted := identities(t)
	r := newRuntime(t)
	phases := []actual.Phase{
		actual.PhaseCreating, actual.PhaseCreated, actual.PhaseStarting, actual.PhaseRunning, actual.PhaseStopping, actual.PhaseStopped,
	}
	stopped := []string{StatusCreating, StatusStopped, StatusStopped, StatusStopped, StatusStopped, StatusStopped}
	for _, tc := range []struct {
		name   string
		sentry *process.Identity
		paused bool
		want   []string // by phase
	}{
		{"alive", live, false, []string{StatusCreating, StatusCreated, StatusRunning, StatusRunning, StatusRunning, StatusRunning}},
		{"paused", live, true, []string{StatusCreating, StatusCreated, StatusPaused, StatusPaused, StatusPaused, StatusPaused}},
		{"none", nil, false, stopped},
		{"reused", reused, false, stopped},
		{"rebooted", rebooted, true, stopped},
	} {
		for i, phase := range phases {
			rec := r.put(t, tc.name, phase, tc.sentry)
			rec.App().OCI.Paused = tc.paused
			if err := r.store.Put(rec); err != nil {
				t.Fatal(err)
			}
			st, _, err := r.look(tc.name)
			if st != tc.want[i] || err != nil {
				t.Errorf("%s, %s: %q, %v, expected %q", tc.name, phase, st, err, tc.want[i])
				continue
			}
			s, err := r.State(tc.name)
			pid := 0
			if st != StatusStopped && tc.sentry != nil {
				pid = tc.sentry.PID
			}
			if err != nil || string(s.Status) != st || s.Pid != pid {
				t.Errorf("%s, %s: state is %+v, %v, expected pid %d", tc.name, phase, s, err, pid)
			}
		}
	}
	// Not knowing is neither.
	if st, err := status(&actual.Record{Name: "web", Phase: actual.PhaseRunning, Sentry: &process.Identity{PID: 1, BootID: live.BootID}, Containers: []actual.Container{{Name: actual.AppName}}}); err == nil {
		t.Errorf("of a process that can't be looked at: %q", st)
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	rec := r.put(t, "web", actual.PhaseRunning, nil)
	// Without a config.json there is a state as well.
	for _, tc := range []struct{ config, rootfs string }{
		{"", ""},
		{"{", ""},
		{"{}", ""},
		{`{"root": {"path": "rootfs"}}`, "/bundle/rootfs"},
		{`{"root": {"path": "/rootfs"}}`, "/rootfs"},
	} {
		config, rootfs := tc.config, tc.rootfs
		if config != "" {
			r.file(t, "web", "config.json", config)
		}
		s, err := r.State("web")
		if err != nil {
			t.Fatal(err)
		}
		if s.Rootfs != rootfs {
			t.Errorf("config.json %s: root is %q, expected %q", config, s.Rootfs, rootfs)
		}
		if s.Version != specs.Version || s.ID != "web" || s.Bundle != "/bundle" || s.Annotations["a"] != "b" || !s.Created.Equal(rec.CreatedAt) {
			t.Errorf("config.json %s: state is %+v", config, s)
		}
	}
	// What hooks get is the same.
	s, err := r.State("web")
	if err != nil {
		t.Fatal(err)
	}
	got := r.stateOf(&specs.Spec{Annotations: rec.App().OCI.Annotations}, "web", "/bundle", StatusStopped, 0)
	if fmt.Sprint(got) != fmt.Sprint(s.State) {
		t.Errorf("hooks get %v, state is %v", got, s.State)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	if l, err := r.List(); err != nil || l == nil || len(l) != 0 {
		t.Errorf("of none: %v, %v", l, err)
	}
	r.put(t, "b", actual.PhaseStopped, nil)
	r.put(t, "a", actual.PhaseCreating, nil)
	r.put(t, "damaged", actual.PhaseStopped, nil)
	r.file(t, "damaged", "meta.json", "{}")
	if err := r.store.Claim("aborted"); err != nil {
		t.Fatal(err)
	}
	// Its owner is the owner of the directory, with or without a name.
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(r.root, "sandboxes", "b"), 4000000, -1); err != nil {
			t.Fatal(err)
		}
	}
	l, err := r.List()
	if err != nil || len(l) != 2 || l[0].ID != "a" || l[1].ID != "b" {
		t.Errorf("listed %+v, %v", l, err)
	}
	if os.Geteuid() == 0 && (l[0].Owner != "root" || l[1].Owner != "4000000") {
		t.Errorf("owners are %q and %q", l[0].Owner, l[1].Owner)
	}
	if len(r.warned) != 1 || !strings.Contains(r.warned[0], "damaged") {
		t.Errorf("warnings: %q", r.warned)
	}
}

// operations are all that need a container that is there.
func (r *runtime) operations(t *testing.T) map[string]func(id string) error {
	ctx := t.Context()
	return map[string]func(id string) error{
		"state":      func(id string) error { _, err := r.State(id); return err },
		"process":    func(id string) error { _, err := r.Process(id); return err },
		"wait":       func(id string) error { _, err := r.Wait(ctx, id); return err },
		"delete":     func(id string) error { return r.Delete(ctx, id, false) },
		"start":      func(id string) error { return r.Start(ctx, id) },
		"update":     func(id string) error { return r.Update(ctx, id, &specs.LinuxResources{}) },
		"checkpoint": func(id string) error { return r.Checkpoint(ctx, id, "/nonexistent", false) },
		"restore":    func(id string) error { return r.Restore(ctx, id, "/nonexistent") },
		"kill":       func(id string) error { return r.Kill(ctx, id, unix.SIGKILL, false) },
		"kill all":   func(id string) error { return r.Kill(ctx, id, unix.SIGTERM, true) },
		"pause":      func(id string) error { return r.Pause(ctx, id) },
		"resume":     func(id string) error { return r.Resume(ctx, id) },
		"processes":  func(id string) error { _, err := r.Processes(ctx, id); return err },
		"exec":       func(id string) error { _, _, err := r.Exec(ctx, id, &specs.Process{}, true); return err },
		"events": func(id string) error {
			return r.Events(ctx, id, true, time.Second, func(any) error { return errors.New("an event") })
		},
	}
}

func TestNotExist(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	// What a create left that died before its record is no container.
	if err := r.store.Claim("aborted"); err != nil {
		t.Fatal(err)
	}
	for op, do := range r.operations(t) {
		for _, id := range []string{"nobody", "aborted", "", ".", "..", "../sandboxes/aborted", "-rf", "a/b", "a\x00b", "a b", strings.Repeat("a", 129)} {
			if err := do(id); !errors.Is(err, ErrNotExist) {
				t.Errorf("%s %q: %v", op, id, err)
			}
		}
	}
	// The text is what clients look for.
	if _, err := r.State("nobody"); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v", err)
	}
	if got := r.names(t); !slices.Equal(got, []string{"aborted"}) {
		t.Errorf("on disk: %q", got)
	}
	for _, id := range []string{"nobody", "aborted", ".."} {
		if err := r.Delete(t.Context(), id, true); err != nil {
			t.Errorf("delete --force %q: %v", id, err)
		}
	}
	if got := r.names(t); len(got) > 0 {
		t.Errorf("left on disk: %q", got)
	}
}

func TestStopped(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	_, reused, _ := identities(t)
	r.put(t, "ended", actual.PhaseRunning, reused)
	r.put(t, "creating", actual.PhaseCreating, nil)
	ops := r.operations(t)
	for _, id := range []string{"ended", "creating"} {
		if err := ops["kill all"](id); err != nil {
			t.Errorf("kill --all %s: %v", id, err) // as with runc
		}
		if err := r.Kill(t.Context(), id, 0, false); !errors.Is(err, ErrNotRunning) {
			t.Errorf("kill %s 0: %v", id, err)
		}
		for _, op := range []string{"kill", "pause", "resume", "processes", "exec", "events"} {
			if err := ops[op](id); !errors.Is(err, ErrNotRunning) {
				t.Errorf("%s %s: %v", op, id, err)
			}
		}
		for _, op := range []string{"start", "restore", "update", "checkpoint"} {
			if err := ops[op](id); err == nil || !strings.Contains(err.Error(), "state") {
				t.Errorf("%s %s: %v", op, id, err)
			}
		}
	}
	if rec, _, err := r.store.Get("ended"); err != nil || rec.Phase != actual.PhaseRunning {
		t.Errorf("the record became %v, %v", rec, err)
	}
}

// A created container has no application: only what would end it does anything.
func TestKillCreated(t *testing.T) {
	t.Parallel()
	for sig, ends := range map[unix.Signal]bool{0: false, unix.SIGUSR1: false, unix.SIGCHLD: false, unix.SIGTERM: true, unix.SIGKILL: true} {
		r := newRuntime(t)
		r.put(t, "web", actual.PhaseCreated, child(t))
		if err := r.Kill(t.Context(), "web", sig, false); err != nil {
			t.Errorf("%s: %v", unix.SignalName(sig), err)
		}
		want := StatusCreated
		if ends {
			want = StatusStopped
		}
		if st, _, err := r.look("web"); err != nil || st != want {
			t.Errorf("after %s it is %q, %v, expected %q", unix.SignalName(sig), st, err, want)
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	live, reused, rebooted := identities(t)
	for _, tc := range []struct {
		name    string
		phase   actual.Phase
		sentry  *process.Identity
		force   bool
		refused bool
	}{
		{"never started", actual.PhaseCreating, nil, false, false},
		{"died while created", actual.PhaseCreated, reused, false, false},
		{"ended", actual.PhaseRunning, reused, false, false},
		{"of another boot", actual.PhaseRunning, rebooted, false, false},
		{"stopped", actual.PhaseStopped, nil, true, false},
		{"created", actual.PhaseCreated, live, false, true},
		{"running", actual.PhaseRunning, live, false, true},
		{"running, by force", actual.PhaseRunning, live, true, false},
	} {
		r := newRuntime(t)
		r.put(t, "web", tc.phase, tc.sentry)
		err := r.Delete(t.Context(), "web", tc.force)
		if (err != nil) != tc.refused {
			t.Errorf("%s: %v", tc.name, err)
		}
		if got := r.names(t); (len(got) == 1) != tc.refused {
			t.Errorf("%s: on disk: %q", tc.name, got)
		}
		want := process.Alive
		if tc.sentry == live && tc.force {
			want = process.Dead
		}
		if got, err := process.LivenessOf(live); got != want {
			t.Errorf("%s: the process is %v, %v, expected %v", tc.name, got, err, want)
		}
	}
}

// The hooks of a container outlive it. One that fails does not bring it back.
func TestDeletePoststop(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	r.put(t, "web", actual.PhaseRunning, nil)
	out := filepath.Join(t.TempDir(), "out")
	r.file(t, "web", "config.json", fmt.Sprintf(
		`{"hooks": {"poststop": [{"path": "/bin/false"}, {"path": "/bin/sh", "args": ["sh", "-c", "ls %s/sandboxes > %s; cat >> %s"]}]}}`, r.root, out, out))
	if err := r.Delete(t.Context(), "web", false); err != nil {
		t.Fatal(err)
	}
	if got := content(t, out); !strings.HasPrefix(got, "{") || !strings.Contains(got, `"status":"stopped"`) || !strings.Contains(got, `"bundle":"/bundle"`) {
		t.Errorf("the hook has seen %s", got)
	}
	if len(r.warned) != 1 || !strings.Contains(r.warned[0], "poststop hook #0") {
		t.Errorf("warnings: %q", r.warned)
	}
}

// bundle makes a bundle.
func bundle(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.json"), config)
	return dir
}

// create creates a container as clients do.
func (r *runtime) create(t *testing.T, id, bundle string, c Create) (err error) {
	t.Helper()
	p, err := r.Prepare(id, bundle)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Release()) }()
	return p.Create(t.Context(), c)
}

func TestCreateExists(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	r.put(t, "web", actual.PhaseStopped, nil)
	before := content(t, filepath.Join(r.root, "sandboxes", "web", "meta.json"))
	// Another process that is about to write its record.
	lock, err := r.store.ClaimLocked("held")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	for _, id := range []string{"web", "held"} {
		err := r.create(t, id, bundle(t, "{}"), Create{})
		if !errors.Is(err, ErrExist) || !strings.Contains(err.Error(), "already exists") {
			t.Errorf("%s: %v", id, err)
		}
	}
	if got := content(t, filepath.Join(r.root, "sandboxes", "web", "meta.json")); got != before {
		t.Errorf("the record became %s", got)
	}
	if got := r.names(t); !slices.Equal(got, []string{"held", "web"}) {
		t.Errorf("on disk: %q", got)
	}
}

// An id whose container was not created is free: its client found no streams for it.
func TestCreateWithoutStreams(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for range 2 {
		p, err := r.Prepare("web", bundle(t, "{}"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Prepare("web", bundle(t, "{}")); !errors.Is(err, ErrExist) {
			t.Errorf("an id that is claimed: %v", err)
		}
		if err := p.Release(); err != nil {
			t.Error(err)
		}
		if got := r.names(t); len(got) > 0 {
			t.Errorf("on disk: %q", got)
		}
	}
}

// A create that is refused leaves nothing.
func TestCreateRefused(t *testing.T) {
	t.Parallel()
	const terminal = `{"process": {"terminal": true}}`
	for _, tc := range []struct {
		name, id, bundle string
		c                Create
		want             string
	}{
		{"no bundle", "web", "/nonexistent", Create{}, "no such file"},
		{"bad bundle", "web", bundle(t, "x"), Create{}, "decode"},
		{"empty configuration", "web", bundle(t, "{}"), Create{}, "create container web"},
		{"terminal without socket", "web", bundle(t, terminal), Create{}, "--console-socket is needed"},
		{"socket nobody serves", "web", bundle(t, terminal), Create{ConsoleSocket: "/nonexistent"}, "console socket"},
		{"socket without terminal", "web", bundle(t, "{}"), Create{ConsoleSocket: "/nonexistent"}, "process.terminal is not set"},
		{"id: empty", "", bundle(t, "{}"), Create{}, "name"},
		{"id: dots", "..", bundle(t, "{}"), Create{}, "name"},
		{"id: option", "-rf", bundle(t, "{}"), Create{}, "name"},
		{"id: slash", "a/b", bundle(t, "{}"), Create{}, "name"},
		{"id: escape", "../b", bundle(t, "{}"), Create{}, "name"},
		{"id: too long", strings.Repeat("a", 129), bundle(t, "{}"), Create{}, "name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRuntime(t)
			tc.c.PIDFile = filepath.Join(t.TempDir(), "pid")
			err := r.create(t, tc.id, tc.bundle, tc.c)
			if err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, ErrExist) {
				t.Errorf("got %v, expected an error with %q", err, tc.want)
			}
			if got := r.names(t); len(got) > 0 {
				t.Errorf("on disk: %q", got)
			}
			root, err := os.ReadDir(r.root)
			if err != nil || len(root) != 3 { // sandboxes, trash, requests
				t.Errorf("in the state directory: %v, %v", root, err)
			}
			if _, err := os.Lstat(tc.c.PIDFile); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pid file: %v", err)
			}
		})
	}
}

// The hooks run in the order of the specification, then the pid file is written;
// the first that fails ends it.
func TestAfterCreate(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for _, tc := range []struct {
		name, fails string
		want        string
	}{
		{"all", "none", "prestart createRuntime createContainer "},
		{"second fails", "createRuntime", "prestart createRuntime "},
	} {
		dir := t.TempDir()
		log := filepath.Join(dir, "log")
		hook := func(kind string) []specs.Hook {
			return []specs.Hook{script(`printf '%s ' >> %s; test ! -e %s/pid && grep -q '"status":"created","pid":4711' && test %s != %s`, kind, log, dir, kind, tc.fails)}
		}
		cfg := &specs.Spec{Hooks: &specs.Hooks{
			//nolint:staticcheck // Prestart is deprecated in the spec and still in bundles
			Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"),
			Poststart: hook("poststart"), Poststop: hook("poststop"),
		}}
		p := &Prepared{r: r.Runtime, id: "web", bundle: "/bundle", cfg: cfg}
		err := p.afterCreate(t.Context(), filepath.Join(dir, "pid"), 4711)
		fails := tc.fails != "none"
		if (err != nil) != fails || fails && !strings.Contains(err.Error(), tc.fails+" hook #0") {
			t.Errorf("%s: %v", tc.name, err)
		}
		if got := content(t, log); got != tc.want {
			t.Errorf("%s: these ran: %q, expected %q", tc.name, got, tc.want)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "pid")); (err != nil) != fails || !fails && string(b) != "4711" {
			t.Errorf("%s: pid file: %q, %v", tc.name, b, err)
		}
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	_, reused, _ := identities(t)
	for _, tc := range []struct {
		name   string
		status int // a wait status; -1: no exit record
		stale  bool
		want   int
	}{
		{"completed", 0, false, 0},
		{"failed", 3 << 8, false, 3},
		{"signal", int(unix.SIGTERM), false, 143},
		{"sentry-killed", -1, false, 137},
		{"of-another-attempt", 3 << 8, true, 137},
	} {
		rec := r.put(t, tc.name, actual.PhaseRunning, reused)
		if tc.status >= 0 {
			x := actual.ExitRecord{UID: rec.UID, Attempt: rec.Attempt, Status: uint32(tc.status)}
			if tc.stale {
				x.Attempt++
			}
			b, err := actual.EncodeExit(x)
			if err != nil {
				t.Fatal(err)
			}
			r.file(t, tc.name, actual.ExitFile, string(b))
		}
		if code, err := r.Wait(t.Context(), tc.name); err != nil || code != tc.want {
			t.Errorf("%s: %d, %v, expected %d", tc.name, code, err, tc.want)
		}
	}
}

// The state of a daemon is no state of containers: a user who gives one for the other
// ends and removes nothing of it.
func TestDaemonsState(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	live := child(t)
	rec := r.put(t, "web", actual.PhaseRunning, live)
	rec.App().OCI = nil // as the daemon writes it
	if err := r.store.Put(rec); err != nil {
		t.Fatal(err)
	}
	for what, do := range r.operations(t) {
		if err := do("web"); err == nil {
			t.Errorf("%s is done", what)
		}
	}
	if err := r.Delete(t.Context(), "web", true); err == nil || !strings.Contains(err.Error(), "sandbox of a manifest") {
		t.Errorf("delete --force: %v", err)
	}
	if names := r.names(t); !slices.Equal(names, []string{"web"}) {
		t.Errorf("there are %v", names)
	}
	if l, err := process.LivenessOf(live); l != process.Alive {
		t.Errorf("its process is %v: %v", l, err)
	}
	// The other way round.
	r.put(t, "box", actual.PhaseRunning, live)
	s, err := actual.OpenStoreReadOnly(r.root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.List()
	if err != nil || len(list.Records) != 1 || list.Records[0].Name != "web" || len(list.Quarantined) != 1 || list.Quarantined[0].Reason != actual.QuarantinedForeign {
		t.Errorf("a daemon sees %+v %v", list, err)
	}
}
