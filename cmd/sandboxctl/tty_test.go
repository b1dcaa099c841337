// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/attach"
)

// terminal is a terminal with somebody at it: what is typed and what is shown.
type terminal struct {
	t     *testing.T
	pty   console.Console
	tty   *os.File
	mu    sync.Mutex
	shown bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	pty, path, err := console.NewPty()
	must(t, err)
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	term := &terminal{t: t, pty: pty, tty: tty}
	must(t, pty.Resize(console.WinSize{Width: 91, Height: 31}))
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := pty.Read(b)
			term.mu.Lock()
			term.shown.Write(b[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { tty.Close(); pty.Close() })
	return term
}

func (x *terminal) run(h *host, args ...string) *exec.Cmd {
	cmd := h.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = x.tty, x.tty, x.tty
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(x.t, cmd.Start())
	return cmd
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown.String()
}

func (x *terminal) see(what string) {
	x.t.Helper()
	deadline := time.Now().Add(patience(20 * time.Second))
	for !strings.Contains(x.text(), what) {
		if time.Now().After(deadline) {
			x.t.Fatalf("%q is not shown, but:\n%s", what, x.text())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (x *terminal) typed(s string) {
	x.t.Helper()
	_, err := x.pty.Write([]byte(s))
	must(x.t, err)
}

// interrupt types Ctrl-C until its trap was run. busybox misses a signal that comes
// just before its `read` waits for input, and finds it at the next one.
func (x *terminal) interrupt(shown string) {
	x.t.Helper()
	deadline := time.Now().Add(patience(20 * time.Second))
	for next := time.Now(); !strings.Contains(x.text(), shown); time.Sleep(5 * time.Millisecond) {
		if now := time.Now(); now.After(deadline) {
			x.t.Fatalf("%q is not shown, but:\n%s", shown, x.text())
		} else if now.After(next) {
			x.typed("\x03")
			next = now.Add(time.Second)
		}
	}
}

func (x *terminal) settings() unix.Termios {
	x.t.Helper()
	s, err := unix.IoctlGetTermios(int(x.tty.Fd()), unix.TCGETS)
	must(x.t, err)
	return *s
}

func exitCode(err error) int {
	if ee, ok := errors.AsType[*exec.ExitError](err); ok {
		return ee.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// A shell in a sandbox: it has a terminal with the size of ours, also when that
// changes; keys are its signals; ours is afterwards as it was.
func TestTerminal(t *testing.T) {
	requireHost(t)
	h := daemonHost(t)
	h.drop("web", "  command: [/bin/busybox, sleep, '1000']\n  terminationGracePeriod: 0s\n")
	h.until("running", func() bool {
		r, _, _ := h.store.Get("web")
		return r != nil && r.Phase == "Running"
	})
	x := newTerminal(t)
	before := x.settings()

	cmd := x.run(h, "exec", "-it", "web", "--", "/bin/busybox", "sh", "-c", `
		trap 'echo interrupted' INT
		trap '/bin/busybox stty size' WINCH
		test -t 0 && test -t 1 && echo "a tty, TERM=$TERM"
		/bin/busybox stty size
		echo ready; read line; echo "line $line"
		while ! test -e /over; do /bin/busybox sleep 0.1; done; exit 5`)
	x.see("a tty, TERM=xterm")
	x.see("31 91")
	x.see("ready")
	if now := x.settings(); now == before {
		t.Error("the terminal is not raw while the command runs")
	}
	x.typed("hello\r")
	x.see("line hello")
	x.typed("\x03")
	x.see("interrupted")
	must(t, x.pty.Resize(console.WinSize{Width: 77, Height: 22}))
	x.see("22 77")
	must(t, h.command("exec", "web", "--", "/bin/busybox", "touch", "/over").Run())
	if code := exitCode(cmd.Wait()); code != 5 {
		t.Errorf("exit code %d", code)
	}
	if now := x.settings(); now != before {
		t.Errorf("the terminal is not what it was: %+v, before %+v", now, before)
	}

	// What a command leaves in the background keeps nobody.
	if code := exitCode(x.run(h, "exec", "-it", "web", "--", "/bin/busybox", "sh", "-c", "/bin/busybox sleep 1000 & exit 3").Wait()); code != 3 {
		t.Errorf("exit code %d", code)
	}
	// Nor does a sentry that does not answer: the third signal ends exec.
	cmd = x.run(h, "exec", "-it", "web", "--", "/bin/busybox", "sh", "-c", "echo waiting; /bin/busybox sleep 1000")
	x.see("waiting")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for given := false; !given; {
		select {
		case err := <-ended:
			given = true
			if exitCode(err) == 0 {
				t.Error("exit code 0 of a command that was given up")
			}
		case <-time.After(20 * time.Millisecond): // two of a kind at once are one
			_ = cmd.Process.Signal(unix.SIGTERM)
		}
	}
	if now := x.settings(); now != before {
		t.Errorf("the terminal is not what it was: %+v, before %+v", now, before)
	}

	// Also when the command can't be started, and when the sandbox goes away.
	if code := exitCode(x.run(h, "exec", "-it", "web", "--", "/nosuch").Wait()); code != attach.ExitNotFound {
		t.Errorf("exit code %d", code)
	}
	cmd = x.run(h, "exec", "-it", "web", "--", "/bin/busybox", "sh", "-c", "echo here; /bin/busybox sleep 1000")
	x.see("here")
	must(t, h.command("kill", "-s", "KILL", "web").Run())
	if code := exitCode(cmd.Wait()); code == 0 {
		t.Error("exit code 0 of a command that was killed")
	}
	if now := x.settings(); now != before {
		t.Errorf("the terminal is not what it was: %+v, before %+v", now, before)
	}
}

// What follows goes on over a restart and prints each change once; a signal
// ends it without an error.
func TestFollow(t *testing.T) {
	requireHost(t)
	h := daemonHost(t)
	follow := func(args ...string) (*exec.Cmd, func() string) {
		out, err := os.CreateTemp(t.TempDir(), "out")
		must(t, err)
		cmd := h.command(args...)
		cmd.Stdout, cmd.Stderr = out, out
		must(t, cmd.Start())
		t.Cleanup(func() {
			// Only where the test has failed before it has waited.
			if cmd.ProcessState == nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		})
		return cmd, func() string {
			b, err := os.ReadFile(out.Name())
			must(t, err)
			return string(b)
		}
	}
	get, got := follow("get", "-w")
	events, happened := follow("events", "-w")
	h.drop("web", "  command: [/bin/busybox, sh, -c, 'echo first; echo \"$$\"; exec /bin/busybox sleep 1000']\n  backoff: {initial: 0s}\n  terminationGracePeriod: 0s\n")
	h.until("running", func() bool { return strings.Contains(got(), "Running") })
	logs, said := follow("logs", "-f", "web")
	h.until("the log", func() bool { return strings.Contains(said(), "first") })
	must(t, h.command("restart", "web", "--wait").Run())
	h.until("the log of the second run", func() bool { return strings.Count(said(), "first") == 2 })
	defer func() {
		if t.Failed() {
			t.Logf("get -w said\n%s", got())
		}
	}()
	h.until("the second run", func() bool {
		return len(regexp.MustCompile(`(?m)^web +Running +True +1 `).FindAllString(got(), -1)) == 1
	})
	h.clear()
	h.until("the removal", func() bool { return strings.Contains(got(), "removed") && strings.Contains(happened(), "Removed") })
	for name, cmd := range map[string]*exec.Cmd{"get -w": get, "events -w": events, "logs -f": logs} {
		_ = cmd.Process.Signal(unix.SIGINT) // logs may have ended with its sandbox
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := strings.Count(happened(), "Started"); n != 2 {
		t.Errorf("%d starts in\n%s", n, happened())
	}
	fmt.Fprintln(t.Output(), got())
}
