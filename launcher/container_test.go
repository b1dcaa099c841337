// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/sentry"
)

// deafSentry is a process that listens where a sentry does and answers nothing.
func deafSentry(t *testing.T, socket string) process.Identity {
	t.Helper()
	pidfd := -1
	cmd := exec.Command("perl", "-MIO::Socket::UNIX", "-e", `my $s = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 5) or die $!; syswrite(STDOUT, "x"); <STDIN>`, socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
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
		_ = cmd.Wait()
		unix.Close(pidfd)
	})
	id, err := process.Identify(pidfd, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return id
}

// The start of a container has the time that any start has, and ends with it: on a
// loaded host a sentry takes longer to start an application than for other calls.
func TestStartContainerDeadline(t *testing.T) {
	t.Parallel()
	store, err := actual.OpenRuntimeStore(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const limit = 400 * time.Millisecond
	l, err := New(Options{Store: store, BootTimeout: limit})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Claim("c"); err != nil {
		t.Fatal(err)
	}
	self := deafSentry(t, filepath.Join(store.Path(), "sandboxes", "c", sentry.ControlSocket))
	c := &Container{ID: "c", Bundle: t.TempDir(), Spec: &specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: t.TempDir()}, Process: &specs.Process{Args: []string{"x"}, Cwd: "/"}, Linux: &specs.Linux{},
	}}
	rec, err := newContainerRecord(c)
	if err != nil {
		t.Fatal(err)
	}
	rec.Phase, rec.Sentry = actual.PhaseCreated, &self
	if err := store.Put(rec); err != nil {
		t.Fatal(err)
	}
	if err := built.PutConfig(store, c.ID, c.Spec); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = l.StartContainer(t.Context(), "c")
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "not started after 400ms") || took < limit || took > sentry.CallTimeout {
		t.Errorf("after %s: %v, expected that it ends after %s", took, err, limit)
	}
}
