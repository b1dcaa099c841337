// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/wire"
)

// pretend starts a process with the arguments of a sentry, in a pid namespace of
// its own or in one in that.
func pretend(t *testing.T, deep bool, args ...string) process.Identity {
	t.Helper()
	pidfd := -1
	script := "read x"
	if deep {
		script = "unshare --pid --fork --kill-child sh -c 'exec \"$@\"' sh sh -c 'read x'; :"
	}
	cmd := &exec.Cmd{
		Path: "/bin/sh", Args: append([]string{companion.SentryName, "-c", script + "; :", "sh"}, args...),
		SysProcAttr: &syscall.SysProcAttr{PidFD: &pidfd, Cloneflags: unix.CLONE_NEWPID},
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); errors.Is(err, unix.EPERM) {
		hosttest.Lacks(t, "no pid namespace can be made here: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		unix.Close(pidfd)
	})
	id, err := process.Identify(pidfd, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// strayHost is a store with one sandbox, and what looks for strays of it.
type strayHost struct {
	store   *actual.Store
	strays  Strays
	cgroups *cgroup.Host
}

func newStrayHost(t *testing.T) *strayHost {
	t.Helper()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if err := store.Claim("web"); err != nil {
		t.Fatal(err)
	}
	host, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	host.Mark(store.Marker())
	return &strayHost{store: store, cgroups: host}
}

func (h *strayHost) CheckStrays(name string) error { return h.strays.Check(h.store, h.cgroups, name) }

// A name is not created while something of it lives that no record knows; what is
// another's, is on record, or ends, keeps nobody.
func TestStrays(t *testing.T) {
	t.Parallel()
	l := newStrayHost(t)
	store := l.store
	flag := "--" + wire.FlagState + "="
	mine := flag + store.Marker()
	stray := pretend(t, false, mine, "stray")
	recorded := pretend(t, false, mine, "recorded")
	pretend(t, false, mine+"x", "elsewhere")
	pretend(t, false, "unmarked")
	pretend(t, false, mine, "a\x1b[2J")
	pretend(t, false, mine, "held")
	pretend(t, false, mine, "creating")
	old := recorded.Bare() // as an earlier version recorded it
	for _, rec := range []actual.Record{
		{Name: "recorded", Phase: actual.PhaseRunning, Sentry: &old, Containers: []actual.Container{{Name: actual.AppName}}},
		{Name: "creating", Phase: actual.PhaseCreating, Containers: []actual.Container{{Name: actual.AppName}}},
	} {
		rec.Version, rec.UID, rec.Attempt = actual.RecordVersion, "0123", 1
		if err := errors.Join(store.Claim(rec.Name), store.Put(&rec)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(store.Claim("held"), os.WriteFile(filepath.Join(store.Path(), "sandboxes", "held", actual.RecordFile), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	found, err := SearchHost()
	if err != nil {
		t.Fatal(err)
	}
	left, err := found.Strays(store)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0].Sandbox != "stray" || left[0].Identity != stray || left[0].Role != RoleSentry {
		t.Errorf("%+v", left)
	}
	for _, name := range []string{"recorded", "elsewhere", "unmarked", "creating", "nosuch"} {
		if err := l.CheckStrays(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := l.CheckStrays("stray"); !errors.Is(err, process.ErrUnknownProcess) || !strings.Contains(err.Error(), "doctor") {
		t.Errorf("stray: %v", err)
	}
	// What this launcher has started it knows without a look.
	l.strays.Note("own", recorded)
	if err := l.CheckStrays("own"); !errors.Is(err, process.ErrUnknownProcess) {
		t.Errorf("own: %v", err)
	}
	p, err := process.Open(stray)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.CheckStrays("stray"); err != nil {
		t.Errorf("one that has ended: %v", err)
	}
}

// The processes in a sentry, and those of daemons in containers, are not taken for
// sentries of ours.
func TestMarkedDepth(t *testing.T) {
	t.Parallel()
	state := "--" + wire.FlagState + "=" + t.TempDir()
	pretend(t, true, state, "deep")
	// Its child has another name; the point is that a process that is not the first
	// of a namespace directly below ours is passed over.
	cmd := &exec.Cmd{Path: "/bin/sh", Args: []string{companion.SentryName, "-c", "read x; :", "sh", state, "flat"}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = cmd.Wait()
	}()
	found, err := SearchHost()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found.truly(func(*Marked) bool { return true }) {
		if "--"+wire.FlagState+"="+m.State == state && m.Sandbox != "deep" {
			t.Errorf("%+v", m)
		}
	}
}

// What is no argument list of ours names nobody.
func TestMarks(t *testing.T) {
	t.Parallel()
	line := func(args ...string) []byte { return []byte(strings.Join(args, "\x00") + "\x00") }
	state := "--" + wire.FlagState + "=/s"
	if m, ok := marks(line(gofer.Argv(7, "web", "/s")...)); !ok || m.Role != roleGofer || m.Sandbox != "web" || m.State != "/s" {
		t.Errorf("gofer: %+v", m)
	}
	if m, ok := marks(line(companion.SentryName, "--exit-fd=3", state, "boot", "web")); !ok || m.Role != RoleSentry || m.Sandbox != "web" || m.State != "/s" {
		t.Errorf("sentry: %+v", m)
	}
	for _, bad := range [][]byte{
		nil,
		{0},
		line("sh"), line(companion.SentryName), line(companion.SentryName, "web"), line(gofer.Argv0, "7", "web"), line(gofer.Argv0, "7", "../web", "/s"),
		line(companion.SentryName, state, "a\nb"), line(companion.SentryName, state, ""), line(companion.SentryName+"x", state, "web"), line(gofer.Argv0, "7", "web", ""),
	} {
		if m, ok := marks(bad); ok {
			t.Errorf("%q is %+v", bad, m)
		}
	}
}

// A state directory that was moved, removed or replaced is not believed.
func TestStateLost(t *testing.T) {
	t.Parallel()
	for what, lose := range map[string]func(p string) error{
		"moved":          func(p string) error { return os.Rename(p, p+".away") },
		"removed":        func(p string) error { return os.RemoveAll(p) },
		"replaced":       func(p string) error { return errors.Join(os.Rename(p, p+".away"), os.Mkdir(p, 0o700)) },
		"by a file":      func(p string) error { return errors.Join(os.Rename(p, p+".away"), os.WriteFile(p, nil, 0o600)) },
		"by a dead link": func(p string) error { return errors.Join(os.Rename(p, p+".away"), os.Symlink("nowhere", p)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			obs := actual.NewObserver(store)
			defer obs.Close()
			if _, err := obs.Observe(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := lose(store.Path()); err != nil {
				t.Fatal(err)
			}
			if _, err := obs.Observe(t.Context()); err == nil || !strings.Contains(err.Error(), "removed, moved or replaced") {
				t.Errorf("%v", err)
			}
			if what == "removed" {
				return
			}
			// Back again, it is as before.
			if what != "moved" {
				_ = os.Remove(store.Path())
			}
			if err := os.Rename(store.Path()+".away", store.Path()); err != nil {
				t.Fatal(err)
			}
			if _, err := obs.Observe(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
