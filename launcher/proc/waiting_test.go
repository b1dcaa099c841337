// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/wire"
)

// This test binary is also a process that waits. What it becomes writes its last argument to
// descriptor 3.
func TestMain(m *testing.M) {
	if os.Args[0] != wire.WaitingName {
		os.Exit(m.Run())
	}
	wire.BeginWait()
	args, accept, err := wire.Wait(os.Args)
	if err != nil || args[len(args)-1] == "refused" || accept() != nil {
		os.Exit(wire.ExitGateClosed)
	}
	if args[len(args)-1] == "warm" {
		warm(os.NewFile(3, "gate"))
	}
	_, _ = os.NewFile(3, "out").WriteString(args[len(args)-1])
	var b [1]byte
	_, _ = os.NewFile(4, "gate").Read(b[:])
	os.Exit(int(b[0]))
}

// warm is a warm sentry, as far as its gate goes. One that is called silent does not answer.
func warm(gate *os.File) {
	_, _ = gate.WriteString(`{"a":1}`)
	b := make([]byte, wire.MaxClaim)
	n, _ := gate.Read(b)
	if claim, err := wire.DecodeClaim(b[:n]); err != nil || claim.Hostname == "silent" {
		time.Sleep(time.Hour)
	}
	_, _ = gate.Write(wire.Taken())
	_, _ = gate.Read(b)
	os.Exit(int(b[0]))
}

// startWarm starts it, as far as its configuration.
func startWarm(t *testing.T) *Child {
	t.Helper()
	c := startWaiter(t)
	p := &Program{Args: []string{"sentry", "warm"}, Donation: new(Donation)}
	var err error
	if p.Gate, _, err = NewWarmGate(p.Donation); err != nil {
		t.Fatal(err)
	}
	if err := c.Become(p); err != nil {
		t.Fatal(err)
	}
	if conf, err := c.Conf(t.Context()); err != nil || string(conf) != `{"a":1}` {
		t.Fatalf("%s: %v", conf, err)
	}
	return c
}

func claim(t *testing.T, hostname string) []byte {
	t.Helper()
	b, err := (&wire.Claim{Args: []string{"x"}, Hostname: hostname}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A warm sentry takes a claim, and waits at its gate after that.
func TestServes(t *testing.T) {
	t.Parallel()
	c := startWarm(t)
	if err := c.Serves(claim(t, "box")); err != nil {
		t.Fatal(err)
	}
	if c.Ended() {
		t.Error("its gate is closed")
	}
	if err := c.Open(7); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := RetryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, int(c.PIDFD.Fd()), &info, unix.WEXITED, nil) }); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// One that has ended, is stopped or does not answer is an error soon.
func TestServesUnanswered(t *testing.T) {
	t.Parallel()
	for what, sig := range map[string]unix.Signal{"silent": 0, "stopped": unix.SIGSTOP, "dead": unix.SIGKILL} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := startWarm(t)
			handle, err := process.Open(c.Identity)
			if err != nil {
				t.Fatal(err)
			}
			defer handle.Close()
			if sig != 0 {
				if err := handle.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			if err := c.Serves(claim(t, what)); err == nil {
				t.Error("it is said to serve")
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("that was known after %s", took)
			}
			if err := c.Abandon(); err != nil {
				t.Error(err)
			}
		})
	}
}

func startWaiter(t *testing.T) *Child {
	t.Helper()
	c, err := StartWaiting("test", "/s", Program{Path: "/proc/self/exe", Attr: &syscall.SysProcAttr{}, CgroupFD: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Prepared(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// become is a program with a pipe as 3 and a gate as 4.
func become(t *testing.T) (p *Program, out *os.File) {
	t.Helper()
	r, w, err := Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	p = &Program{Path: "/bin/sh", Args: []string{"sh", "-c", `printf %s "$0" >&3; read x <&4`, "x"}, Attr: &syscall.SysProcAttr{}, Donation: new(Donation), CgroupFD: -1}
	p.Donation.Give(w)
	gate, fd, err := NewGate(p.Donation)
	if err != nil || fd != 4 {
		t.Fatal(fd, err)
	}
	p.Gate = gate
	return p, r
}

// One that waits becomes what is asked for, once, and then waits at its gate.
func TestBecome(t *testing.T) {
	t.Parallel()
	c := startWaiter(t)
	for _, usual := range []bool{false, true} {
		if err := c.WaitingPriority(usual); err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(c.PID, 0)
		if err != nil || (attr.Policy == unix.SCHED_IDLE) == usual {
			t.Errorf("usual %v: %+v %v", usual, attr, err)
		}
	}
	p, out := become(t)
	if err := c.Become(p); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(io.LimitReader(out, 1)); err != nil || string(b) != "x" {
		t.Errorf("%q %v", b, err)
	}
	if len(p.Donation.files) != 0 || c.Ended() {
		t.Errorf("%d files are left, ended: %v", len(p.Donation.files), c.Ended())
	}
	if err := c.Become(p); err == nil {
		t.Error("it becomes something twice")
	}
	if err := c.Open(7); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := RetryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, int(c.PIDFD.Fd()), &info, unix.WEXITED, nil) }); err != nil {
		t.Fatal(err)
	}
	if !c.Ended() {
		t.Error("it has not ended")
	}
	c.Close()
}

// One that has ended is an error that leaves everything there for an ordinary start.
func TestBecomeDead(t *testing.T) {
	t.Parallel()
	c := startWaiter(t)
	handle, err := process.Open(c.Identity)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	if err := handle.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := Poll(t.Context(), []unix.PollFd{{Fd: int32(c.PIDFD.Fd()), Events: unix.POLLIN}}); err != nil {
		t.Fatal(err)
	}
	if !c.Ended() {
		t.Error("it has not ended")
	}
	p, out := become(t)
	if err := c.Become(p); err == nil {
		t.Fatal("a dead process becomes something")
	}
	if err := c.Abandon(); err != nil {
		t.Error(err)
	}
	cold, err := StartGated(*p)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(io.LimitReader(out, 1)); err != nil || string(b) != "x" {
		t.Errorf("%q %v", b, err)
	}
	if err := cold.Abandon(); err != nil {
		t.Error(err)
	}
}

// One that is stopped, or refuses what it is told to become, is an error soon, and leaves
// everything there for an ordinary start: a start does not wait for it until its own timeout.
func TestBecomeUnanswered(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ stops, refuses bool }{"stopped": {stops: true}, "refused": {refuses: true}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			child := startWaiter(t)
			if c.stops {
				handle, err := process.Open(child.Identity)
				if err != nil {
					t.Fatal(err)
				}
				defer handle.Close()
				if err := handle.Signal(unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			p, out := become(t)
			if c.refuses {
				p.Args = append(p.Args, "refused")
			}
			began := time.Now()
			if err := child.Become(p); err == nil {
				t.Error("it is said to have become something")
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("that was known after %s", took)
			}
			if err := child.Abandon(); err != nil {
				t.Error(err)
			}
			cold, err := StartGated(*p)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(io.LimitReader(out, 1)); err != nil || string(b) != "x" {
				t.Errorf("%q %v", b, err)
			}
			if err := cold.Abandon(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a child has started is found, also what that has started.
func TestStarted(t *testing.T) {
	t.Parallel()
	p, out := become(t)
	p.Args[2] = `(sleep 1000 & echo; wait) >&3 & read x <&4`
	c, err := StartGated(*p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(io.LimitReader(out, 1)); err != nil {
		t.Fatal(err)
	}
	pids, err := c.Started()
	if err != nil || len(pids) != 2 || slices.Contains(pids, c.PID) {
		t.Errorf("of %d: %v %v", c.PID, pids, err)
	}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		id, err := process.Identify(fd, pid)
		if err == nil {
			err = Kill(t.Context(), &Target{What: "test", ID: &id, Timeout: time.Minute})
		}
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			t.Error(err)
		}
	}
	if err := c.Abandon(); err != nil {
		t.Error(err)
	}
}

// One that nobody needs leaves.
func TestWaiterLeaves(t *testing.T) {
	t.Parallel()
	c := startWaiter(t)
	if err := c.gate.Close(); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := RetryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, int(c.PIDFD.Fd()), &info, unix.WEXITED, nil) }); err != nil {
		t.Error(err)
	}
	c.PIDFD.Close()
}
