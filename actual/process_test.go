// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	// The name is the program's to choose.
	line := "7 (evil) S 99 (x)) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20\n"
	got, err := parseStat([]byte(line))
	if err != nil || got != 4242 {
		t.Errorf("%d %v", got, err)
	}
	for _, bad := range []string{"", "1 (a", "1 (a) S", "1 (a) " + strings.Repeat("x ", 30)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is parsed", bad)
		}
	}
}

// child starts a process that lives until its input ends.
func child(t *testing.T, command ...string) (*exec.Cmd, Identity) {
	t.Helper()
	if len(command) == 0 {
		command = []string{"cat"}
	}
	cmd := exec.Command(command[0], command[1:]...)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	must(t, err)
	defer unix.Close(fd)
	id, err := Identify(fd, cmd.Process.Pid)
	must(t, err)
	return cmd, id
}

func TestProcess(t *testing.T) {
	t.Parallel()
	cmd, id := child(t)
	p, err := Open(id)
	must(t, err)
	defer p.Close()
	if p.Alive() != Alive {
		t.Fatalf("alive: %v", p.Alive())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); err == nil {
		t.Error("Wait says that a live process is dead")
	}
	// A zombie is dead, although it can be signalled.
	must(t, p.Signal(unix.SIGKILL))
	must(t, p.Wait(t.Context()))
	if p.Alive() != Dead {
		t.Errorf("a zombie is %v", p.Alive())
	}
	if z, err := Open(id); err != nil || z.Alive() != Dead {
		t.Errorf("opened as a zombie: %v", err)
	} else {
		z.Close()
	}
	if err := cmd.Wait(); err == nil {
		t.Error("killed and exit code 0")
	}
	if _, err := Open(id); !errors.Is(err, ErrGone) {
		t.Errorf("reaped: %v, expected ErrGone", err)
	}
	if err := p.Signal(unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal to a reaped process: %v", err)
	}
}

// A pid that came to mean another process is never that process.
func TestReusedPID(t *testing.T) {
	t.Parallel()
	_, id := child(t)
	for name, other := range map[string]Identity{
		"inode": {PID: id.PID, Inode: id.Inode + 1, StartTime: id.StartTime, BootID: id.BootID},
		"boot":  {PID: id.PID, Inode: id.Inode, StartTime: id.StartTime, BootID: "another"},
		"start": {PID: id.PID, StartTime: id.StartTime + 1, BootID: id.BootID},
	} {
		if name == "inode" && id.Inode == 0 {
			continue // a kernel without pidfs
		}
		if _, err := Open(other); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, expected ErrGone", name, err)
		}
	}
	for _, pid := range []int{-1, 0, 1} {
		if p, err := Open(Identity{PID: pid, BootID: id.BootID}); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("pid %d: %v %v", pid, p, err)
		}
	}
}

func TestReap(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("true")
	must(t, cmd.Start())
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	must(t, err)
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 5000); err != nil {
		t.Fatal(err)
	}
	if !Reap(fd) {
		t.Error("a dead child was not reaped")
	}
	if Reap(fd) {
		t.Error("reaped twice")
	}
	cmd.Wait()
}

// A gofer that is still ending when its sentry is dead is waited for, so that it is
// known which of them was killed; one that stays is not waited for twice as long
// because there are two.
func TestObserverTwins(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	boot, err := BootID()
	must(t, err)
	gone, dead := child(t)
	must(t, gone.Process.Kill())
	_ = gone.Wait()
	for name, seconds := range map[string]string{"ends": "0.2", "stays": "100", "stays-too": "100"} {
		r := sample(name)
		_, gofer := child(t, "sleep", seconds)
		r.BootID, r.Phase, r.Sentry, r.Gofer = boot, PhaseRunning, &dead, &gofer
		put(t, s, r)
	}
	o := NewObserver(s)
	defer o.Close()
	began := time.Now()
	snap, err := o.Observe(t.Context())
	must(t, err)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	for i := range snap.Sandboxes {
		w := &snap.Sandboxes[i]
		want := Alive
		if w.Record.Name == "ends" {
			want = Dead
		}
		if w.Sentry != Dead || w.Gofer != want {
			t.Errorf("%s: sentry %v, gofer %v, expected Dead and %v", w.Record.Name, w.Sentry, w.Gofer, want)
		}
	}
}

func TestObserver(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	cmd, id := child(t)
	_, id2 := child(t)
	boot, err := BootID()
	must(t, err)
	r := sample("web")
	r.BootID, r.Sentry, r.Gofer = boot, &id, &id2
	put(t, s, r)
	old := sample("old")
	old.Sentry, old.Gofer = &Identity{PID: id.PID, Inode: id.Inode, StartTime: id.StartTime, BootID: "earlier"}, nil
	put(t, s, old)

	o := NewObserver(s)
	defer o.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	defer func() {
		cancel()
		must(t, <-done)
	}()
	snap, err := o.Observe(ctx)
	must(t, err)
	if len(snap.Sandboxes) != 2 || snap.Sandboxes[0].Sentry != Dead || snap.Sandboxes[0].Gofer != None {
		t.Errorf("old: %+v", snap.Sandboxes[0])
	}
	if w := snap.Sandboxes[1]; w.Sentry != Alive || w.Gofer != Alive || w.Exit != nil {
		t.Errorf("web: %+v", w)
	}
	// It dies, having left its exit record.
	b, err := EncodeExit(ExitRecord{UID: r.UID, Attempt: r.Attempt, Status: 3 << 8, At: time.Now()})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.Path(), SandboxesDir, "web", ExitFile), b, 0o600))
	must(t, cmd.Process.Kill())
	select {
	case <-o.Exits():
	case <-time.After(2 * time.Minute):
		t.Fatal("nobody told of the death")
	}
	// As long as the system refuses to read that, here because of a lease that
	// somebody has on it, nothing is known: not that it was killed.
	f, err := os.OpenFile(filepath.Join(s.Path(), SandboxesDir, "web", ExitFile), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	snap, err = o.Observe(ctx)
	must(t, err)
	if w := snap.Sandboxes[1]; w.Sentry != Unknown || w.Exit != nil || !strings.Contains(w.Why, ExitFile) {
		t.Errorf("unreadable: %+v", w)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	snap, err = o.Observe(ctx)
	must(t, err)
	if w := snap.Sandboxes[1]; w.Sentry != Dead || w.Gofer != Alive || w.Exit == nil || w.Exit.Code != 3 {
		t.Errorf("dead: %+v", w)
	}
}

func BenchmarkObserve50(b *testing.B) {
	s, err := OpenStore(filepath.Join(b.TempDir(), "state"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := range 50 {
		r := sample(fmt.Sprintf("s%d", i))
		r.Phase, r.Sentry, r.Gofer = PhaseStopped, nil, nil
		if err := errors.Join(s.Claim(r.Name), s.Put(r)); err != nil {
			b.Fatal(err)
		}
	}
	o := NewObserver(s)
	defer o.Close()
	for b.Loop() {
		if _, err := o.Observe(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A number of another pid namespace says nothing: neither that its process lives
// nor that it is gone. Another boot has ended both.
func TestOtherPIDNamespace(t *testing.T) {
	t.Parallel()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	must(t, err)
	defer unix.Close(fd)
	id, err := Identify(fd, os.Getpid())
	must(t, err)
	if id.PIDNamespace == 0 {
		t.Fatal("the namespace is not known")
	}
	open := func(change func(*Identity)) error {
		other := id
		change(&other)
		p, err := Open(other)
		if err == nil {
			p.Close()
		}
		return err
	}
	if err := open(func(i *Identity) { i.PIDNamespace = 0 }); err != nil {
		t.Errorf("of an older record: %v", err)
	}
	if err := open(func(i *Identity) { i.PIDNamespace++ }); err == nil || errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "pid namespace") {
		t.Errorf("of another namespace: %v", err)
	}
	// Also where the number is free here.
	if err := open(func(i *Identity) { i.PIDNamespace++; i.PID = 1 << 21 }); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("of another namespace, free here: %v", err)
	}
	if err := open(func(i *Identity) { i.PIDNamespace++; i.BootID = "other" }); !errors.Is(err, ErrGone) {
		t.Errorf("of another boot: %v", err)
	}
}
