// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// insideEnv tells the test binary that it is the init process of a pid
// namespace of its own, where it decides which number comes next.
const insideEnv = "ACTUAL_TEST_PID_NAMESPACE"

// exitCannot is the exit code of a test process that has found that it can't
// do what it was started for; its output says why.
const exitCannot = 77

// errCannot wraps such a reason.
type errCannot struct{ error }

func TestMain(m *testing.M) {
	what := os.Getenv(insideEnv)
	if what == "" {
		os.Exit(m.Run())
	}
	err := inside(what)
	if err == nil {
		os.Exit(0)
	}
	fmt.Println(err)
	if _, ok := errors.AsType[errCannot](err); ok {
		os.Exit(exitCannot)
	}
	os.Exit(1)
}

// A number is given to another process, or to a thread, for real.
func TestPIDReuse(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"process", "thread"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0])
			cmd.Env = append(os.Environ(), insideEnv+"="+what)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				hosttest.Lacks(t, "no pid namespace can be made here: %v", err)
			}
			switch err := cmd.Wait(); {
			case cmd.ProcessState.ExitCode() == exitCannot:
				t.Skipf("no number can be given again here: %s", out.String())
			case err != nil:
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}

func inside(what string) error {
	// procfs shows the pids of the namespace of the process that mounts it.
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return errCannot{fmt.Errorf("make mounts private: %w", err)}
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return errCannot{fmt.Errorf("mount /proc: %w", err)}
	}
	if err := lastPID(100); err != nil {
		return errCannot{err}
	}
	if what == "thread" {
		return reuseByThread()
	}
	return reuseByProcess()
}

// lastPID makes the number after n the next one to be given.
func lastPID(n int) error {
	return os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(n)), 0)
}

// echo is a process that answers: what it answers shows that it lives.
type echo struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
	id  Identity
}

func startEcho() (*echo, error) {
	e := &echo{cmd: exec.Command("cat")}
	var err1, err2 error
	e.in, err1 = e.cmd.StdinPipe()
	e.out, err2 = e.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, e.cmd.Start()); err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(e.cmd.Process.Pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	e.id, err = Identify(fd, e.cmd.Process.Pid)
	return e, err
}

func (e *echo) answers() error {
	var b [1]byte
	if _, err := e.in.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(e.out, b[:])
	return err
}

func (e *echo) end() error {
	if err := e.in.Close(); err != nil {
		return err
	}
	return e.cmd.Wait()
}

// isThread says whether the number is that of a thread of this process.
func isThread(pid int) bool {
	_, err := os.Stat("/proc/self/task/" + strconv.Itoa(pid))
	return err == nil
}

// oldProcess has lived, and been reaped; its handle is still open.
func oldProcess() (*Handle, Identity, error) {
	e, err := startEcho()
	if err != nil {
		return nil, Identity{}, err
	}
	p, err := Open(e.id)
	if err != nil {
		return nil, e.id, fmt.Errorf("open while it lives: %w", err)
	}
	return p, e.id, e.end()
}

// successor starts a process with the number of an old one, and with another
// start time. It returns nil if a thread of the runtime took the number first:
// that one keeps it.
func successor(old Identity) (*echo, error) {
	deadline := time.Now().Add(2 * time.Minute)
	for !isThread(old.PID) {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no process got the number %d", old.PID)
		}
		if err := lastPID(old.PID - 1); err != nil {
			return nil, err
		}
		e, err := startEcho()
		if err != nil {
			return nil, err
		}
		if e.id.PID == old.PID && e.id.StartTime != old.StartTime {
			return e, nil
		}
		if err := e.end(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func reuseByProcess() error {
	p, old, err := oldProcess()
	if err != nil {
		return err
	}
	e, err := successor(old)
	if err != nil {
		return err
	}
	if e == nil {
		return errors.Join(p.Close(), reuseByProcess())
	}
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(e.id.PID == old.PID && e.id.BootID == old.BootID, "%+v is not %+v again", e.id, old)
	check(old.Inode == 0 || e.id.Inode != old.Inode, "two processes have the inode %d", old.Inode)

	// The fallback knows them apart, and the inode does if nothing else could.
	byStart, byInode := old, old
	byStart.Inode, byInode.StartTime = 0, e.id.StartTime
	ids := map[string]Identity{"identity": old, "start time": byStart}
	if old.Inode != 0 {
		ids["inode"] = byInode
	}
	for by, id := range ids {
		q, err := Open(id)
		check(errors.Is(err, ErrGone) && q == nil, "by %s: %v, expected ErrGone", by, err)
	}
	// The old handle, for what must not reach the new process.
	for _, sig := range []unix.Signal{0, unix.SIGTERM, unix.SIGKILL} {
		err := p.Signal(sig)
		check(errors.Is(err, unix.ESRCH), "signal %d to the old process: %v, expected ESRCH", sig, err)
	}
	check(p.Alive() == Dead, "the old process is %v", p.Alive())
	check(p.Wait(context.Background()) == nil, "the old process is waited for")

	check(e.answers() == nil, "the new process does not answer")
	byStart = e.id
	byStart.Inode = 0
	for by, id := range map[string]Identity{"identity": e.id, "start time": byStart} {
		q, err := Open(id)
		if err != nil {
			errs = append(errs, fmt.Errorf("open the new process by %s: %w", by, err))
			continue
		}
		check(q.Alive() == Alive, "the new process is %v", q.Alive())
		errs = append(errs, q.Close())
	}
	return errors.Join(append(errs, p.Close(), e.end())...)
}

// reuseByThread gives the number to a thread of this process, which must not
// be taken for a process, nor for the old one.
func reuseByThread() error {
	p, old, err := oldProcess()
	if err != nil {
		return err
	}
	release := make(chan struct{})
	defer close(release)
	for n := 0; !isThread(old.PID); n++ {
		if n == 1000 {
			return fmt.Errorf("no thread got the number %d", old.PID)
		}
		if err := lastPID(old.PID - 1); err != nil {
			return err
		}
		started := make(chan struct{})
		go func() {
			// It keeps its thread, so that another one is needed.
			runtime.LockOSThread()
			close(started)
			<-release
		}()
		<-started
	}
	byStart := old
	byStart.Inode = 0
	var errs []error
	for by, id := range map[string]Identity{"identity": old, "start time": byStart} {
		if _, err := Open(id); !errors.Is(err, ErrGone) {
			errs = append(errs, fmt.Errorf("by %s: %v, expected ErrGone", by, err))
		}
	}
	if err := p.Signal(unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		errs = append(errs, fmt.Errorf("signal: %v, expected ESRCH", err))
	}
	return errors.Join(append(errs, p.Close())...)
}
