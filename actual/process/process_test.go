// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process/processtest"
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
	cmd, fd := processtest.Child(t, command...)
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

// What is asked through a process is asked of that one, and never of another with its number.
func TestThrough(t *testing.T) {
	t.Parallel()
	_, id := child(t)
	self := func(pidfd int) (Identity, error) { return Identify(pidfd, id.PID) }
	if got, err := Through(id, self); err != nil || got != id {
		t.Errorf("%+v %v, expected %+v", got, err, id)
	}
	other := id
	other.Inode, other.StartTime = id.Inode+1, id.StartTime+1
	asked := false
	_, err := Through(other, func(int) (int, error) { asked = true; return 0, nil })
	if !errors.Is(err, ErrGone) || asked {
		t.Errorf("another process: %v, asked %v", err, asked)
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
