// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/salvage"
)

// actor is a process that calls itself something and has a file open.
type actor struct {
	cmd *exec.Cmd
	id  process.Identity
}

func act(t *testing.T, file string, args ...string) *actor {
	t.Helper()
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	// sleep takes no options but these; what a sentry has of them comes first.
	cmd := &exec.Cmd{Path: path, Args: args, SysProcAttr: &syscall.SysProcAttr{}}
	pidfd := -1
	cmd.SysProcAttr.PidFD = &pidfd
	if file != "" {
		f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		unix.Close(pidfd)
	})
	a := &actor{cmd: cmd}
	if a.id, err = process.Identify(pidfd, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *actor) alive(t *testing.T) bool {
	t.Helper()
	live, err := process.LivenessOf(&a.id)
	if live == process.Unknown {
		t.Fatal(err)
	}
	return live == process.Alive
}

func heldStore(t *testing.T, name string) (*actual.Store, string) {
	t.Helper()
	// A path without links, as /proc shows it.
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store, err := actual.OpenStore(filepath.Join(top, "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	dir := filepath.Join(store.Path(), "sandboxes", name)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "meta.json"), []byte("damage"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return store, dir
}

// What belongs to a quarantined name is found by what it has open and what it is called;
// nobody else is, and nobody else is signalled.
func TestRecoverStrangers(t *testing.T) {
	t.Parallel()
	store, dir := heldStore(t, "web")
	sentry := act(t, filepath.Join(dir, "exit.json"), companion.SentryName, "1000")
	goferLog := filepath.Join(dir, "logs", "gofer.log")
	if err := os.Mkdir(filepath.Dir(goferLog), 0o700); err != nil {
		t.Fatal(err)
	}
	server := act(t, goferLog, gofer.Argv0, "1000")
	if err := os.Remove(goferLog); err != nil { // it is still of the sandbox
		t.Fatal(err)
	}
	strangers := map[string]*actor{
		"a reader of its log":        act(t, filepath.Join(dir, "exit.json"), "sleep", "1000"),
		"the sentry of another":      act(t, filepath.Join(t.TempDir(), "exit.json"), companion.SentryName, "1000"),
		"a sentry with nothing open": act(t, "", companion.SentryName, "1000"),
		"one that is called like it": act(t, filepath.Join(dir, "exit.json"), companion.SentryName+"x", "1000"),
	}
	ls, err := New(Options{Store: store, KillTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	found, err := salvage.Examine(t.Context(), store, "web")
	if err != nil {
		t.Fatal(err)
	}
	e := found["web"]
	if len(e.Processes) != 2 || e.Processes[0].Identity != sentry.id || e.Processes[1].Identity != server.id || e.SentryPID() != sentry.id.PID || e.GoferPID() != server.id.PID {
		t.Errorf("found %s, expected sentry (pid %d) and gofer (pid %d)", e.List(), sentry.id.PID, server.id.PID)
	}
	// Unasked nothing is ended.
	if said, err := ls.Repair(t.Context(), "web", false); err == nil || !strings.Contains(err.Error(), "--end") {
		t.Errorf("%q %v", said, err)
	}
	if !sentry.alive(t) || !server.alive(t) {
		t.Error("something was ended unasked")
	}
	said, err := ls.Repair(t.Context(), "web", true)
	if err != nil {
		t.Fatal(err)
	}
	if sentry.alive(t) || server.alive(t) {
		t.Errorf("%s, and they live", said)
	}
	for what, s := range strangers {
		if !s.alive(t) {
			t.Errorf("%s was ended", what)
		}
	}
	if _, kept, ok := strings.Cut(said, "kept as "); !ok {
		t.Errorf("said %q", said)
	} else if b, err := os.ReadFile(filepath.Join(kept, "meta.json")); err != nil || string(b) != "damage" {
		t.Errorf("kept: %q %v", b, err)
	}
	if err := store.Claim("web"); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
}

// The pids of strangers in a damaged record, or in the copy of it, are nobody's.
func TestRecoverForgedPids(t *testing.T) {
	t.Parallel()
	canary := act(t, "", "sleep", "1000")
	boot, err := process.BootID()
	if err != nil {
		t.Fatal(err)
	}
	reused, earlier := canary.id, canary.id
	reused.Inode++ // a process that had the number before
	if canary.id.Inode == 0 {
		reused.StartTime++
	}
	earlier.BootID = "another"
	for what, id := range map[string]process.Identity{"a pid that was given again": reused, "a pid of another boot": earlier} {
		store, _ := heldStore(t, "web")
		rec := &actual.Record{
			Version: actual.RecordVersion, Name: "web", UID: strings.Repeat("0", 32), Attempt: 1, Generation: 1, Phase: actual.PhaseRunning,
			BootID: boot, Sentry: &id, Gofer: &id,
			Containers: []actual.Container{{Name: actual.AppName}},
		}
		if err := store.PutCopy(rec); err != nil {
			t.Fatal(err)
		}
		l, err := New(Options{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		for _, end := range []bool{false, true} {
			said, err := l.Repair(t.Context(), "web", end)
			if err != nil || !strings.Contains(said, "nothing of it lived") {
				t.Errorf("%s: %q %v", what, said, err)
			}
			if !canary.alive(t) {
				t.Fatalf("%s: the process that has it now was ended", what)
			}
			store2 := filepath.Join(store.Path(), "sandboxes", "web")
			if err := errors.Join(os.Mkdir(store2, 0o700), os.WriteFile(filepath.Join(store2, "meta.json"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// One that lives, and has nothing of the sandbox open: it is not ended on the
	// word of the copy, and nothing is freed beside it.
	store, _ := heldStore(t, "web")
	rec := &actual.Record{
		Version: actual.RecordVersion, Name: "web", UID: strings.Repeat("0", 32), Attempt: 1, Generation: 1, Phase: actual.PhaseRunning, BootID: boot, Sentry: &canary.id,
		Containers: []actual.Container{{Name: actual.AppName}},
	}
	if err := store.PutCopy(rec); err != nil {
		t.Fatal(err)
	}
	l, err := New(Options{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []bool{false, true} {
		if said, err := l.Repair(t.Context(), "web", end); err == nil || !canary.alive(t) {
			t.Errorf("%q %v, alive %v", said, err, canary.alive(t))
		}
	}
}

// A program in a mount namespace of its own, such as a container that has another
// sandboxctl in it, may see its files at the paths where ours are. They are not
// ours, and neither is the program.
func TestRecoverOtherNamespace(t *testing.T) {
	t.Parallel()
	for what, mount := range map[string]string{
		"another filesystem": `mount -t tmpfs other "$1"`,
		"the same one":       `mkdir "$1/../other" && mount --bind "$1/../other" "$1"`,
	} {
		store, dir := heldStore(t, "web")
		stranger, said := actSaying(t, companion.SentryName, mount+` && mkdir "$1/web" && exec 3>"$1/web/exit.json" && echo ready && read x`, filepath.Dir(dir))
		if said != "ready" {
			t.Fatalf("%s: %q", what, said)
		}
		l, err := New(Options{Store: store, KillTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		found, err := salvage.Examine(t.Context(), store, "web")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(found["web"].Processes); n > 0 {
			t.Errorf("%s: found %s", what, found["web"].List())
		}
		if said, err := l.Repair(t.Context(), "web", true); err != nil || !stranger.alive(t) {
			t.Errorf("%s: %q %v, alive: %v", what, said, err, stranger.alive(t))
		}
	}
}

// actSaying is an actor that runs a script in a mount namespace of its own, and the
// first line that it says.
func actSaying(t *testing.T, name, script string, args ...string) (*actor, string) {
	t.Helper()
	pidfd := -1
	cmd := &exec.Cmd{
		Path: "/bin/sh", Args: append([]string{name, "-c", script, "sh"}, args...), Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{PidFD: &pidfd, Unshareflags: unix.CLONE_NEWNS},
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		unix.Close(pidfd)
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	a := &actor{cmd: cmd}
	if a.id, err = process.Identify(pidfd, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return a, strings.TrimSpace(line)
}

// Where the files of a sandbox can't be looked at nobody knows what lives of it:
// the name is not freed, also not on order.
func TestRecoverUnseen(t *testing.T) {
	t.Parallel()
	for what, replace := range map[string]func(dir string) error{
		"a file": func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"a link": func(dir string) error { return os.Symlink(dir+".moved", dir) },
	} {
		store, dir := heldStore(t, "web")
		sentry := act(t, filepath.Join(dir, "exit.json"), companion.SentryName, "1000")
		if err := errors.Join(os.Rename(dir, dir+".moved"), replace(dir)); err != nil {
			t.Fatal(err)
		}
		l, err := New(Options{Store: store, KillTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		for _, end := range []bool{false, true} {
			if said, err := l.Repair(t.Context(), "web", end); err == nil || !strings.Contains(err.Error(), "can't be told") {
				t.Errorf("%s in the place of its directory: %q %v", what, said, err)
			}
		}
		if err := l.EndUnrecorded(t.Context(), "web"); err == nil {
			t.Errorf("%s in the place of its directory: its processes have ended, it is said", what)
		}
		if _, err := os.Lstat(dir); err != nil || !sentry.alive(t) {
			t.Errorf("%s: %v, sentry alive: %v", what, err, sentry.alive(t))
		}
	}
}
