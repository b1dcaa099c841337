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

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/process/processtest"
)

// child starts a process that lives until its input ends.
func child(t *testing.T, command ...string) (*exec.Cmd, process.Identity) {
	t.Helper()
	cmd, fd := processtest.Child(t, command...)
	id, err := process.Identify(fd, cmd.Process.Pid)
	must(t, err)
	return cmd, id
}

// A gofer that is still ending when its sentry is dead is waited for, so that it is
// known which of them was killed; one that stays is not waited for twice as long
// because there are two.
func TestObserverTwins(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	boot, err := process.BootID()
	must(t, err)
	gone, dead := child(t)
	must(t, gone.Process.Kill())
	_ = gone.Wait()
	o := NewObserver(s)
	defer o.Close()
	// look observes records of which the sentry is dead.
	look := func(gofers map[string]string, want process.Liveness) {
		t.Helper()
		for name, seconds := range gofers {
			r := sample(name)
			_, gofer := child(t, "sleep", seconds)
			r.BootID, r.Phase, r.Sentry, r.Gofer = boot, PhaseRunning, &dead, &gofer
			put(t, s, r)
		}
		snap, err := o.Observe(t.Context())
		must(t, err)
		for i := range snap.Sandboxes {
			w := &snap.Sandboxes[i]
			if w.Sentry != process.Dead || w.Gofer != want {
				t.Errorf("%s: sentry %v, gofer %v, expected process.Dead and %v", w.Record.Name, w.Sentry, w.Gofer, want)
			}
		}
	}
	// However long the machine takes to start and end it.
	o.patience = time.Minute
	look(map[string]string{"ends": "0.2", "ends-too": "0.3"}, process.Dead)
	for _, name := range []string{"ends", "ends-too"} {
		must(t, s.Remove(name))
	}
	o.patience = 5 * time.Second
	began := time.Now()
	look(map[string]string{"stays": "100", "stays-too": "100"}, process.Alive)
	if took := time.Since(began); took < o.patience || took >= 2*o.patience {
		t.Errorf("it took %s for two, expected %s and not twice as long", took, o.patience)
	}
}

func TestObserver(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	cmd, id := child(t)
	_, id2 := child(t)
	boot, err := process.BootID()
	must(t, err)
	r := sample("web")
	r.BootID, r.Sentry, r.Gofer = boot, &id, &id2
	put(t, s, r)
	old := sample("old")
	old.Sentry, old.Gofer = &process.Identity{PID: id.PID, Inode: id.Inode, StartTime: id.StartTime, BootID: "earlier"}, nil
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
	if len(snap.Sandboxes) != 2 || snap.Sandboxes[0].Sentry != process.Dead || snap.Sandboxes[0].Gofer != process.None {
		t.Errorf("old: %+v", snap.Sandboxes[0])
	}
	if w := snap.Sandboxes[1]; w.Sentry != process.Alive || w.Gofer != process.Alive || w.Exit != nil {
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
	if w := snap.Sandboxes[1]; w.Sentry != process.Unknown || w.Exit != nil || !strings.Contains(w.Why, ExitFile) {
		t.Errorf("unreadable: %+v", w)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	snap, err = o.Observe(ctx)
	must(t, err)
	if w := snap.Sandboxes[1]; w.Sentry != process.Dead || w.Gofer != process.Alive || w.Exit == nil || w.Exit.Code != 3 {
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
