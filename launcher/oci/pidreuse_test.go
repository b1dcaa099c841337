// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/oci"
)

const (
	// insideEnv tells the test binary that it is the init process of a pid
	// namespace of its own, where it decides which number comes next.
	insideEnv = "OCI_TEST_PID_NAMESPACE"
	tries     = 1000
)

// Between the state of a container and its kill, and its deletion, its process
// ends and a stranger gets its number: a thousand times, for real.
func TestPIDReuse(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		reuse(t)
		return
	}
	t.Parallel()
	hosttest.NeedsRoot(t, "needs root, for a pid namespace")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPIDReuse$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"=1", "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d reused, 0 victims", tries)) {
		t.Errorf("%v\n%s", err, out)
	}
}

// stranger is a process that answers as long as nobody has ended it.
type stranger struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
	id  process.Identity
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	s := &stranger{cmd: exec.Command("cat")}
	var err1, err2 error
	s.in, err1 = s.cmd.StdinPipe()
	s.out, err2 = s.cmd.StdoutPipe()
	must(t, errors.Join(err1, err2, s.cmd.Start()))
	fd, err := unix.PidfdOpen(s.cmd.Process.Pid, 0)
	must(t, err)
	defer unix.Close(fd)
	s.id, err = process.Identify(fd, s.cmd.Process.Pid)
	must(t, err)
	return s
}

func (s *stranger) lives() bool {
	var b [1]byte
	if _, err := s.in.Write([]byte("x")); err != nil {
		return false
	}
	_, err := io.ReadFull(s.out, b[:])
	return err == nil
}

// end ends it and frees its number.
func (s *stranger) end() {
	s.in.Close()
	_ = s.cmd.Wait() // it may have been killed, as the process of the container
}

// successor starts a process with the number pid, or returns nil if a thread
// of this test got it.
func successor(t *testing.T, pid int) *stranger {
	t.Helper()
	for range 20 {
		must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0))
		s := newStranger(t)
		if s.id.PID == pid {
			return s
		}
		s.end()
		if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(pid)); err == nil {
			return nil
		}
	}
	t.Fatalf("no process gets the number %d", pid)
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func reuse(t *testing.T) {
	must(t, unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
	must(t, unix.Mount("proc", "/proc", "proc", 0, ""))
	root := filepath.Join(t.TempDir(), "state")
	rt, err := oci.Open(oci.Options{Root: root, SentryPath: os.Args[0], Warn: t.Logf})
	must(t, err)
	defer rt.Close()
	bootID, err := process.BootID()
	must(t, err)
	victims := 0
	for reused := 0; reused < tries; {
		s := newStranger(t)
		id := fmt.Sprintf("c%d", reused)
		uid := actual.NewUID()
		must(t, rt.Store().Claim(id))
		phase, status := actual.PhaseCreated, oci.StatusCreated
		if reused%2 == 1 {
			phase, status = actual.PhaseRunning, oci.StatusRunning
		}
		must(t, rt.Store().Put(&actual.Record{
			Version: actual.RecordVersion, Name: id, UID: uid, Attempt: 1, Generation: 1, Phase: phase, BootID: bootID,
			Sentry: &s.id, CreatedAt: time.Now(),
			Containers: []actual.Container{{Name: actual.AppName, OCI: &actual.OCIContainer{Bundle: "/b"}}},
		}))
		st, err := rt.State(id)
		must(t, err)
		if string(st.Status) != status || st.Pid != s.id.PID {
			t.Fatalf("state: %s, pid %d, expected %s, %d", st.Status, st.Pid, status, s.id.PID)
		}
		kill := func() error { return rt.Kill(t.Context(), id, unix.SIGKILL, false) }
		killed := make(chan error, 1)
		// Every other pair of tries has the kill race with the change.
		races := reused%4 >= 2
		if races {
			go func() { killed <- kill() }()
		}
		s.end()
		next := successor(t, s.id.PID)
		if !races {
			killed <- kill()
		}
		err = <-killed
		if next == nil {
			must(t, rt.Delete(t.Context(), id, true))
			continue
		}
		if !races && !errors.Is(err, oci.ErrNotRunning) {
			t.Errorf("kill of a container whose process is gone: %v", err)
		}
		must(t, rt.Delete(t.Context(), id, true))
		if !next.lives() {
			victims++
		}
		next.end()
		reused++
	}
	t.Logf("%d reused, %d victims", tries, victims)
	if victims != 0 {
		t.Errorf("%d of %d processes that had nothing to do with a container were killed", victims, tries)
	}
}
