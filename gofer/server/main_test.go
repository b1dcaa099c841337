// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
)

// The test binary is also a gofer, and the processes of childMain.
func TestMain(m *testing.M) {
	if os.Args[0] == gofer.Argv0 {
		os.Exit(Main(os.Args))
	}
	if what := os.Getenv(childEnv); what != "" {
		os.Exit(childMain(strings.Fields(what)))
	}
	code := m.Run()
	if dir := builtDir; dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

var builtDir string

// program is a build of this test binary that can give up its privileges: with
// the race detector it is built with cgo, and can't.
var program = sync.OnceValues(func() (string, error) {
	if gofer.CanRun() == nil {
		return os.Executable()
	}
	dir, err := os.MkdirTemp("", "gofer-test-")
	if err != nil {
		return "", err
	}
	builtDir = dir
	cmd := exec.Command("go", "test", "-c", "-trimpath", "-o", dir+"/gofer.test", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir + "/gofer.test", nil
})

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// blocked starts f on a thread of its own, waits until that sits in the system
// call and returns a channel that is closed when f has returned.
func blocked(t *testing.T, f func(), calls ...int) <-chan struct{} {
	t.Helper()
	tid, done := make(chan int, 1), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid <- unix.Gettid()
		f()
	}()
	file := fmt.Sprintf("/proc/self/task/%d/syscall", <-tid)
	until(t, "it does not wait", func() bool {
		select {
		case <-done:
			t.Fatal("it does not wait")
		default:
		}
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return false // it has just ended
		}
		must(t, err)
		nr, err := strconv.Atoi(strings.Fields(string(b) + " .")[0])
		for _, c := range calls {
			if err == nil && nr == c {
				return true
			}
		}
		return false
	})
	return done
}

func expectDone(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s: it still waits", what)
	}
}

// Only the byte opens the gate; the end of the launcher closes it for good.
func TestWaitGate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		input string
		open  bool
	}{"opened": {"g", true}, "more": {"gx", true}, "closed": {"", false}, "another byte": {"x", false}, "zero": {"\x00g", false}} {
		var fds [2]int
		must(t, unix.Pipe2(fds[:], unix.O_CLOEXEC))
		var open bool
		done := blocked(t, func() { open = waitGate(fds[0]) }, unix.SYS_READ)
		if c.input != "" {
			_, err := unix.Write(fds[1], []byte(c.input))
			must(t, err)
			expectDone(t, done, name)
		}
		must(t, unix.Close(fds[1]))
		expectDone(t, done, name)
		if open != c.open {
			t.Errorf("%s: open is %v", name, open)
		}
	}
	if waitGate(1 << 20) {
		t.Error("a gate that is not there is open")
	}
}

// stub is a process that lives until it is told not to.
type stub struct {
	cmd   *exec.Cmd
	in    io.Closer
	pidfd int
}

func startStub(t *testing.T) *stub {
	t.Helper()
	s := &stub{cmd: exec.Command("cat")}
	in, err := s.cmd.StdinPipe()
	must(t, err)
	s.in = in
	s.cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &s.pidfd}
	must(t, s.cmd.Start())
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		unix.Close(s.pidfd)
	})
	return s
}

// A zombie is dead, reaped or not.
func TestWaitProcess(t *testing.T) {
	t.Parallel()
	s := startStub(t)
	done := blocked(t, func() { waitProcess(s.pidfd) }, unix.SYS_PPOLL)
	must(t, s.in.Close())
	expectDone(t, done, "it has ended")
	again := make(chan struct{})
	go func() {
		waitProcess(s.pidfd) // a zombie
		s.cmd.Wait()
		waitProcess(s.pidfd) // reaped
		waitProcess(1 << 20) // not there: a gofer without a sentry must not stay
		close(again)
	}()
	expectDone(t, again, "it is dead")
}

// goferUnderTest is a real gofer with everything the launcher gives one.
type goferUnderTest struct {
	t      *testing.T
	cmd    *exec.Cmd
	gate   *os.File
	sentry *stub
	out    [3]*os.File // stdout, stderr and the sentry's own
	left   string      // file
	logs   string      // directory
	stderr bytes.Buffer
}

// served is what a gofer under test serves and where it writes.
type served struct {
	mounts   []gofer.Mount
	files    []*os.File // what the mounts need, numbered from fdFirst
	logs     *os.File   // directory
	maxBytes int64
	env      []string
}

// The numbers of the descriptors in the gofer.
const (
	fdConfig = 3 + iota
	fdGate
	fdSentry
	fdLeft
	fdLogs
	fdStdout
	fdStderr
	fdSentryLog
	fdFirst
)

func startGofer(t *testing.T, s served) *goferUnderTest {
	t.Helper()
	requireRoot(t)
	bin, err := program()
	must(t, err)
	g := &goferUnderTest{t: t, sentry: startStub(t), left: filepath.Join(t.TempDir(), "left"), logs: fmt.Sprintf("/proc/self/fd/%d", s.logs.Fd())}
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		must(t, err)
		t.Cleanup(func() { w.Close() })
		return r, w
	}
	gateR, gate := pipe()
	g.gate = gate
	left, err := os.OpenFile(g.left, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	sentryFD, err := unix.FcntlInt(uintptr(g.sentry.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	files := []*os.File{gateR, os.NewFile(uintptr(sentryFD), "sentry"), left, s.logs}
	for i := range g.out {
		r, w := pipe()
		g.out[i] = w
		files = append(files, r)
	}
	files = append(files, s.files...)
	for i := range s.mounts {
		ours, theirs, err := socketPair()
		must(t, err)
		t.Cleanup(func() { ours.Close() })
		s.mounts[i].SocketFD = fdFirst + len(s.files) + i
		files = append(files, theirs)
	}
	cfg := &gofer.Config{
		GateFD: fdGate, SentryFD: fdSentry, LeftFD: fdLeft, Left: "left", Mounts: s.mounts,
		Logs: gofer.Logs{DirFD: fdLogs, AppName: "1.log", StdoutFD: fdStdout, StderrFD: fdStderr, SentryName: "1.sentry.log", SentryFD: fdSentryLog, MaxBytes: s.maxBytes},
	}
	conf, err := os.CreateTemp(t.TempDir(), "config")
	must(t, err)
	must(t, cfg.Encode(conf))
	_, err = conf.Seek(0, io.SeekStart)
	must(t, err)

	ctx, cancel := context.WithCancel(context.Background())
	g.cmd = exec.CommandContext(ctx, bin)
	g.cmd.Args = gofer.Argv(fdConfig, "web", "/state")
	g.cmd.Env, g.cmd.Dir = append([]string{}, s.env...), "/"
	g.cmd.ExtraFiles = append([]*os.File{conf}, files...)
	g.cmd.Stderr = &g.stderr
	g.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET, Setsid: true,
	}
	must(t, g.cmd.Start())
	t.Cleanup(func() {
		cancel()
		g.cmd.Wait()
	})
	for _, f := range append(files, conf) {
		if f != s.logs {
			must(t, f.Close())
		}
	}
	return g
}

func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// open opens the gate.
func (g *goferUnderTest) open() {
	g.t.Helper()
	_, err := g.gate.Write([]byte{gofer.GateOpen})
	must(g.t, errors.Join(err, g.gate.Close()))
}

// exit waits for its end and returns its exit code.
func (g *goferUnderTest) exit() int {
	g.t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { g.cmd.Process.Kill() })
	defer timer.Stop()
	err := g.cmd.Wait()
	if code := g.cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	g.t.Errorf("%v\n%s", err, g.stderr.String())
	return -1
}

func (g *goferUnderTest) log(name string) string {
	b, err := os.ReadFile(filepath.Join(g.logs, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		g.t.Error(err)
	}
	return string(b)
}

// status is a field of /proc/PID/status of every thread, as one set.
func status(t *testing.T, pid int, field string) string {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	seen := map[string]bool{}
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), "\n"+field+":\t")
		v, _, _ := strings.Cut(rest, "\n")
		seen[v] = true
	}
	var out []string
	for v := range seen {
		out = append(out, v)
	}
	return strings.Join(out, " and ")
}
