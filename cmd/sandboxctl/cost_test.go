// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
)

// TestGetSystemCalls bounds what `get` asks of the kernel for each sandbox that runs:
// a look at a fleet is system calls for the most part.
func TestGetSystemCalls(t *testing.T) {
	hosttest.NeedsRoot(t, "the state directory and the manifests must be root's")
	const few, many = 4, 20
	for what, of := range map[string]func(*testing.T, *cli, int){
		"running": putLive, "running, in a directory below": putLiveBelow, "stopped": putStopped,
	} {
		t.Run(what, func(t *testing.T) {
			least := func(n int) int {
				c := newCLI(t)
				must(t, os.Chmod(c.manifests, 0o755))
				of(t, c, n)
				counts := make([]int, 9) // the runtime of Go makes some more, on a busy machine nearly always
				for i := range counts {
					var out bytes.Buffer
					counts[i] = systemCalls(t, &out, filepath.Join(binDir, "sandboxctl"), "--manifests", c.manifests, "--state", c.state, "get", "-o", "name")
					if got := bytes.Count(out.Bytes(), []byte("\n")); got != n {
						t.Fatalf("%d sandboxes were printed, expected %d:\n%s", got, n, &out)
					}
				}
				return slices.Min(counts)
			}
			each := float64(least(many)-least(few)) / (many - few)
			t.Logf("%.1f system calls for each sandbox", each)
			// Alone 20.0 are counted; beside many other tests up to 23.7, of the same programs: a thread
			// more of the runtime is woken for some of the sandboxes.
			if each < 4 || each > 26 {
				t.Errorf("%.1f system calls for each sandbox, expected 20, and at most 26 on a busy machine", each)
			}
		})
	}
}

// putLive makes records and manifests of sandboxes whose processes live.
func putLive(t *testing.T, c *cli, n int) { putLiveIn(t, c, "", n) }

func putLiveBelow(t *testing.T, c *cli, n int) { putLiveIn(t, c, "a/b", n) }

func putLiveIn(t *testing.T, c *cli, below string, n int) {
	t.Helper()
	s, err := actual.OpenStore(c.state)
	must(t, err)
	defer s.Close()
	must(t, os.MkdirAll(filepath.Join(c.manifests, below), 0o755))
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		must(t, s.Claim(name))
		must(t, s.Put(&actual.Record{
			Version: actual.RecordVersion, Name: name, UID: "0123456789abcdef0123456789abcdef", Attempt: 1, Generation: 1,
			Phase: actual.PhaseRunning, BootID: "b", CreatedAt: someTime, Sentry: sleeper(t), Gofer: sleeper(t),
			Containers: []actual.Container{{Name: actual.AppName}},
		}))
		must(t, os.Rename(c.manifest(name), filepath.Join(c.manifests, below, name+".yaml")))
	}
}

// putStopped makes records and manifests of sandboxes without processes. One that had no
// record would have `get` look through all processes of the host.
func putStopped(t *testing.T, c *cli, n int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		c.records(name)
		must(t, os.Rename(c.manifest(name), filepath.Join(c.manifests, name+".yaml")))
	}
}

// sleeper starts a process that does nothing until the end of the test.
func sleeper(t *testing.T) *process.Identity {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	fd := -1
	cmd.SysProcAttr = &unix.SysProcAttr{PidFD: &fd}
	must(t, cmd.Start())
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	id, err := process.Identify(fd, cmd.Process.Pid)
	must(t, errors.Join(err, unix.Close(fd)))
	return &id
}

// ofTheRuntime are calls that the runtime of Go makes, as it happens to schedule.
var ofTheRuntime = []uint64{
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_EPOLL_PWAIT, unix.SYS_TGKILL, unix.SYS_GETPID, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGPROCMASK,
	unix.SYS_SIGALTSTACK, unix.SYS_GETTID, unix.SYS_CLONE, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_SCHED_YIELD, unix.SYS_PRCTL,
}

// systemCalls runs a program and counts the system calls of all its threads, but those
// of Go's scheduler.
func systemCalls(t *testing.T, out *bytes.Buffer, program string, args ...string) int {
	t.Helper()
	// A tracer is a thread. This one is not used for anything else after it.
	type result struct {
		calls int
		err   error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		calls, err := trace(out, program, args)
		done <- result{calls, err}
	}()
	select {
	case r := <-done:
		must(t, r.err)
		return r.calls
	case <-time.After(time.Minute):
		t.Fatal("it has not ended")
	}
	return 0
}

func trace(out *bytes.Buffer, program string, args []string) (calls int, err error) {
	file, err := os.CreateTemp("", "out")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.SysProcAttr = file, &unix.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	leader := cmd.Process.Pid
	var status unix.WaitStatus
	// It has stopped at its first instruction.
	if _, err := unix.Wait4(leader, &status, unix.WALL, nil); err != nil {
		return 0, err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_EXITKILL
	if err := errors.Join(unix.PtraceSetOptions(leader, options), unix.PtraceSyscall(leader, 0)); err != nil {
		return 0, err
	}
	for {
		// Only what this thread traces: the children of other tests are theirs.
		pid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case status.Exited() || status.Signaled():
			if pid != leader {
				continue
			}
			b, err := os.ReadFile(file.Name())
			out.Write(b)
			return calls, errors.Join(err, ended(status))
		}
		signal := 0
		switch stop := status.StopSignal(); {
		case stop == unix.SIGTRAP|0x80:
			if nr, entry := call(pid); entry && !slices.Contains(ofTheRuntime, nr) {
				calls++
			}
		case stop != unix.SIGTRAP && stop != unix.SIGSTOP:
			signal = int(stop)
		}
		if err := unix.PtraceSyscall(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, err
		}
	}
}

func ended(status unix.WaitStatus) error {
	if status.Exited() && status.ExitStatus() == 0 {
		return nil
	}
	return fmt.Errorf("it ended with %#x", int(status))
}

// call returns the number of the system call that a thread begins (see ptrace(2),
// PTRACE_GET_SYSCALL_INFO).
func call(pid int) (nr uint64, entry bool) {
	var info [88]byte
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(pid), uintptr(len(info)), uintptr(unsafe.Pointer(&info)), 0, 0)
	return binary.NativeEndian.Uint64(info[24:]), errno == 0 && info[0] == unix.PTRACE_SYSCALL_INFO_ENTRY
}
