// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/wire"
)

// silent is a process that says nothing in its arguments, with a child, in a group.
func silent(t *testing.T, g *cgroup.Group) process.Identity {
	t.Helper()
	pidfd := -1
	cmd := exec.Command("/bin/sh", "-c", "read go; exec 3<&0; (read x <&3; :) & echo; wait")
	cmd.SysProcAttr = &unix.SysProcAttr{PidFD: &pidfd}
	in, err := cmd.StdinPipe()
	out, oerr := cmd.StdoutPipe()
	if err := errors.Join(err, oerr); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // both end with it
		_ = cmd.Wait()
		unix.Close(pidfd)
	})
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	_, err = in.Write([]byte("\n"))
	if _, rerr := io.ReadFull(out, make([]byte, 1)); err != nil || rerr != nil {
		t.Fatal(err, rerr)
	}
	id, err := process.Identify(pidfd, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ownGroup makes the cgroup of a sandbox as a launcher does, marked for a state.
func ownGroup(t *testing.T, state, name, uid string) *cgroup.Group {
	t.Helper()
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || h.Version() == "none" {
		hosttest.Lacks(t, "needs root and cgroups; uid %d, cgroups %s", os.Geteuid(), h.Version())
	}
	h.Mark(state)
	g, _, err := h.Create(name+"-"+uid, cgroup.Limits{}, cgroup.Limits{PIDs: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(g.Remove(ctx), g.Close()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// What hides its arguments is found by its cgroup: it is in no other. What is
// another state's, on record, held, under way, or has ended, keeps nobody.
func TestStraysByGroup(t *testing.T) {
	t.Parallel()
	l := newStrayHost(t)
	store := l.store
	uids := map[string]string{}
	in := func(name, state string) process.Identity {
		uid := actual.NewUID()
		uids[name] = uid
		return silent(t, ownGroup(t, state, name, uid))
	}
	mine := store.Marker()
	stray := in("stray", mine)
	in("elsewhere", mine+"x")
	for _, name := range []string{"recorded", "creating", "held"} {
		in(name, mine)
		rec := actual.Record{Name: name, Version: actual.RecordVersion, UID: uids[name], Attempt: 1, Phase: actual.PhaseStopped, Containers: []actual.Container{{Name: actual.AppName}}}
		if name == "creating" {
			rec.Phase = actual.PhaseCreating
		}
		if err := errors.Join(store.Claim(name), store.Put(&rec)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(store.Path(), "sandboxes", "held", actual.RecordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A record that was put back from a copy, of another sandbox of the name.
	in("restored", mine)
	old := actual.Record{Name: "restored", Version: actual.RecordVersion, UID: strings.Repeat("0", 32), Attempt: 1, Phase: actual.PhaseStopped, Containers: []actual.Container{{Name: actual.AppName}}}
	if err := errors.Join(store.Claim("restored"), store.Put(&old)); err != nil {
		t.Fatal(err)
	}
	unused := actual.NewUID()
	ownGroup(t, mine, "empty", unused)

	found, err := SearchHost()
	if err != nil {
		t.Fatal(err)
	}
	left, err := found.Strays(store)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range left {
		names = append(names, left[i].Role+" of "+left[i].Sandbox)
	}
	if got := strings.Join(names, ", "); got != "process of restored, process of stray" {
		t.Errorf("%s: %+v", got, left)
	}
	for _, name := range []string{"elsewhere", "recorded", "creating", "held", "empty", "nosuch"} {
		if err := l.CheckStrays(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"stray", "restored"} {
		if err := l.CheckStrays(name); !errors.Is(err, process.ErrUnknownProcess) || !strings.Contains(err.Error(), "its process (pid ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The child of one that was ended is still there.
	p, err := process.Open(stray)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := errors.Join(p.Signal(unix.SIGKILL), p.Wait(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := l.CheckStrays("stray"); !errors.Is(err, process.ErrUnknownProcess) {
		t.Errorf("with its child: %v", err)
	}
}

// A sentry that says in its arguments what it is, is told as one, and once.
func TestStraysOnce(t *testing.T) {
	t.Parallel()
	l := newStrayHost(t)
	uid := actual.NewUID()
	group := ownGroup(t, l.store.Marker(), "web2", uid)
	id := pretend(t, false, "--"+wire.FlagState+"="+l.store.Marker(), "web2")
	if err := group.Add(id.PID); err != nil {
		t.Fatal(err)
	}
	found, err := SearchHost()
	if err != nil {
		t.Fatal(err)
	}
	for what, look := range map[string]func() ([]Marked, error){
		"with a state":    func() ([]Marked, error) { return found.Strays(l.store) },
		"without a state": func() ([]Marked, error) { return found.Of(l.store.Marker()) },
	} {
		if left, err := look(); err != nil || len(left) != 1 || left[0].Role != RoleSentry || left[0].Identity != id {
			t.Errorf("%s: %+v %v", what, left, err)
		}
	}
}

// fakeHost has one sentry that says who it is and one group with one process in it,
// both of the state and name given.
func fakeHost(state string, self process.Identity) host {
	return host{
		pids: func() ([]int, error) { return []int{1, self.PID}, nil },
		read: func(pid int, file string) ([]byte, error) {
			switch {
			case file == "cgroup":
				return []byte("0::/\n"), nil
			case file == "status":
				return fmt.Appendf(nil, "PPid:\t1\nNSpid:\t%d\t1\n", pid), nil
			case pid == self.PID:
				return []byte(companion.SentryName + "\x00--" + wire.FlagState + "=" + state + "\x00web\x00"), nil
			}
			return []byte("init\x00"), nil
		},
		pidfd:    func(int) (int, error) { return unix.PidfdOpen(self.PID, 0) },
		identify: func(int, int) (process.Identity, error) { return self, nil },
		groups: func([]string) ([]cgroup.Marked, error) {
			return []cgroup.Marked{{Name: "web", UID: "1", State: state}}, nil
		},
		members: func(*cgroup.Marked) ([]int, error) { return []int{self.PID}, nil },
	}
}

// A group that is found while its launcher makes it has no mark yet. It is of the state
// directory that it is marked for by the time that it has processes.
func TestMarkedSinceFound(t *testing.T) {
	t.Parallel()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	self := pretend(t, false, "x")
	for later, want := range map[string]int{store.Marker(): 1, store.Marker() + "x": 0, "": 1} {
		h := fakeHost("", self)
		read := h.read
		h.read = func(pid int, file string) ([]byte, error) {
			if file == "cmdline" {
				return []byte("application\x00"), nil
			}
			return read(pid, file)
		}
		h.members = func(g *cgroup.Marked) ([]int, error) {
			g.State = later
			return []int{self.PID}, nil
		}
		s, err := search(h)
		if err != nil {
			t.Fatal(err)
		}
		if found, err := s.Strays(store); err != nil || len(found) != want || want > 0 && found[0].State != later {
			t.Errorf("marked for %q: %+v %v", later, found, err)
		}
	}
}

// What can't be looked at may live: whatever fails, at whichever look, nothing is
// started. What has ended while it was looked at does not.
func TestSearchErrors(t *testing.T) {
	t.Parallel()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	self := pretend(t, false, "x")
	strays := func(h host) ([]Marked, error) {
		s, err := search(h)
		if err != nil {
			return nil, err
		}
		return s.Strays(store)
	}
	silentHost := func() host { // its sentry has overwritten its arguments
		h := fakeHost(store.Marker(), self)
		read := h.read
		h.read = func(pid int, file string) ([]byte, error) {
			if file == "cmdline" {
				return []byte{0}, nil
			}
			return read(pid, file)
		}
		return h
	}
	for _, h := range []host{fakeHost(store.Marker(), self), silentHost()} {
		if found, err := strays(h); err != nil || len(found) != 1 || found[0].Identity != self {
			t.Fatalf("%+v %v: expected the one process", found, err)
		}
	}
	// nth fails the call of that number, and all after it.
	nth := func(n int, err error) func() error {
		calls := 0
		return func() error {
			if calls++; calls >= n {
				return err
			}
			return nil
		}
	}
	steps := map[string]func(h *host, fail func() error){
		"list": func(h *host, fail func() error) {
			was := h.pids
			h.pids = func() ([]int, error) { return failing(fail, was) }
		},
		"cmdline": func(h *host, fail func() error) { h.failRead("cmdline", fail) },
		"cgroup":  func(h *host, fail func() error) { h.failRead("cgroup", fail) },
		"status":  func(h *host, fail func() error) { h.failRead("status", fail) },
		"pidfd": func(h *host, fail func() error) {
			was := h.pidfd
			h.pidfd = func(p int) (int, error) { return failing(fail, func() (int, error) { return was(p) }) }
		},
		"identify": func(h *host, fail func() error) {
			h.identify = func(int, int) (process.Identity, error) { return self, fail() }
		},
		"groups": func(h *host, fail func() error) {
			was := h.groups
			h.groups = func(in []string) ([]cgroup.Marked, error) {
				return failing(fail, func() ([]cgroup.Marked, error) { return was(in) })
			}
		},
		"members": func(h *host, fail func() error) {
			was := h.members
			h.members = func(g *cgroup.Marked) ([]int, error) { return failing(fail, func() ([]int, error) { return was(g) }) }
		},
	}
	for step, hurt := range steps {
		for _, cause := range []error{unix.EACCES, unix.EPERM, unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR, unix.ENOTDIR, unix.ESRCH, fs.ErrNotExist} {
			ended := errors.Is(cause, unix.ESRCH) || errors.Is(cause, fs.ErrNotExist)
			for n := 1; n <= 3; n++ {
				for kind, h := range map[string]host{"marked": fakeHost(store.Marker(), self), "silent": silentHost()} {
					hurt(&h, nth(n, cause))
					found, err := strays(h)
					lists := step == "list" || step == "groups" || step == "members" // of which ENOENT is no answer here
					switch {
					case err == nil && len(found) == 0 && (!ended || lists):
						t.Errorf("%s fails at call %d with %v, %s: nothing is said to live", step, n, cause, kind)
					case err != nil && ended && !lists:
						t.Errorf("%s fails at call %d with %v, %s: %v, expected that it has ended", step, n, cause, kind, err)
					}
				}
			}
		}
	}
}

func failing[T any](fail func() error, was func() (T, error)) (T, error) {
	if err := fail(); err != nil {
		var zero T
		return zero, err
	}
	return was()
}

func (h *host) failRead(what string, fail func() error) {
	was := h.read
	h.read = func(pid int, file string) ([]byte, error) {
		if file == what {
			return failing(fail, func() ([]byte, error) { return was(pid, file) })
		}
		return was(pid, file)
	}
}

// A process of a group in a pid namespace that is not seen from here lives, and is
// nobody who could be judged.
func TestStrayOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	l := newStrayHost(t)
	h := fakeHost(l.store.Marker(), process.Identity{})
	h.pids = func() ([]int, error) { return nil, nil }
	h.members = func(*cgroup.Marked) ([]int, error) { return []int{0}, nil }
	s, err := search(h)
	if err != nil {
		t.Fatal(err)
	}
	l.strays.found, l.strays.at = s, time.Now()
	if err := l.CheckStrays("web"); !errors.Is(err, process.ErrUnknownProcess) || !strings.Contains(err.Error(), "in a pid namespace that is not seen from here") {
		t.Error(err)
	}
}

// A start looks closer only at what claims to be of its sandbox, however many sandboxes
// the host has: of every other process it reads two files, once.
func TestSearchOfFullHost(t *testing.T) {
	t.Parallel()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	self := pretend(t, false, "x")
	const others = 1000
	for wanted, closer := range map[string]int{"web": 1, "web-7": 1, "nosuch": 0} {
		h := fakeHost(store.Marker(), self)
		h.groups = func([]string) ([]cgroup.Marked, error) { return nil, nil }
		h.pids = func() (pids []int, err error) {
			for i := range others {
				pids = append(pids, self.PID+1+i)
			}
			return append(pids, self.PID), nil
		}
		read, reads, looks := h.read, map[string]int{}, 0
		h.read = func(pid int, file string) ([]byte, error) {
			reads[file]++
			if file == "cmdline" && pid > self.PID {
				return fmt.Appendf(nil, "%s\x00--%s=%s\x00web-%d\x00", companion.SentryName, wire.FlagState, store.Marker(), pid-self.PID), nil
			}
			return read(pid, file)
		}
		pidfd := h.pidfd
		h.pidfd = func(pid int) (int, error) {
			looks++
			return pidfd(pid)
		}
		s, err := search(h)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // one look at the host serves several starts
			left, err := s.strays(store, func(n string) bool { return n == wanted })
			if err != nil || len(left) != closer {
				t.Errorf("%s: %+v, %v", wanted, left, err)
			}
		}
		if looks != closer || reads["status"] != closer || reads["cmdline"] != others+1+closer || reads["cgroup"] != others+1 {
			t.Errorf("%s: %d closer looks, %v read; expected %d", wanted, looks, reads, closer)
		}
	}
}

// What the search costs a start, beside as many processes as there are.
func BenchmarkSearch(b *testing.B) {
	for b.Loop() {
		if _, err := SearchHost(); err != nil {
			b.Fatal(err)
		}
	}
}

// Where groups carry no marks, as in a user namespace or of an earlier version, what
// hides its arguments in the group of a sandbox may be of any state that does not know
// the sandbox; what says whose it is, is of that one.
func TestStraysUnmarked(t *testing.T) {
	// Alone: to the other tests, what has no mark may be of their states.
	l := newStrayHost(t)
	mine := l.store.Marker()
	for name, args := range map[string][]string{
		"hidden": nil, "recorded": nil, "speaks": {"--" + wire.FlagState + "=" + mine, "speaks"}, "theirs": {"--" + wire.FlagState + "=" + mine + "x", "theirs"},
	} {
		uid := actual.NewUID()
		group := ownGroup(t, "", name, uid)
		if args == nil {
			silent(t, group)
		} else if err := group.Add(pretend(t, false, args...).PID); err != nil {
			t.Fatal(err)
		}
		if name == "recorded" {
			rec := actual.Record{Name: name, Version: actual.RecordVersion, UID: uid, Attempt: 1, Phase: actual.PhaseStopped, Containers: []actual.Container{{Name: actual.AppName}}}
			if err := errors.Join(l.store.Claim(name), l.store.Put(&rec)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, want := range map[string]string{"hidden": "its process (pid ", "speaks": "its sentry (pid ", "theirs": "", "recorded": "", "nosuch": ""} {
		err := l.CheckStrays(name)
		if want == "" && err != nil || want != "" && (!errors.Is(err, process.ErrUnknownProcess) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	found, err := SearchHost()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(found.States(), "") {
		t.Errorf("states %q", found.States())
	}
	left, err := found.Strays(l.store)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range left {
		if m.Sandbox == "hidden" && m.State != "" || m.Sandbox == "theirs" || m.Sandbox == "recorded" {
			t.Errorf("%+v", m)
		}
	}
}
