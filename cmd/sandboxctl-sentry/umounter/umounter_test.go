// SPDX-License-Identifier: Apache-2.0

package umounter

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/proc/proctest"
)

// run has the program unmount /proc of a mount namespace of its own, in which
// nothing is shared with that of the host: the host would lose its /proc.
func run(t *testing.T, before, input string) (int, string) {
	t.Helper()
	hosttest.NeedsRoot(t, "it takes root to unmount")
	file := filepath.Join(t.TempDir(), "umounter")
	if err := proctest.WriteProgram(file, Program(), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "mount --make-rprivate / && "+before+file+"; code=$?; [ -e /proc/self ] || echo gone; exit $code")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	cmd.Stdin = strings.NewReader(input)
	cmd.Stderr = os.Stderr
	out, _ := cmd.Output()
	return cmd.ProcessState.ExitCode(), string(out)
}

func TestUnmounts(t *testing.T) {
	t.Parallel()
	for _, input := range []string{"x", "\x00", "xy"} {
		if code, out := run(t, "", input); code != 0 || out != "gone\n" {
			t.Errorf("%q: exit code %d, %q", input, code, out)
		}
	}
}

// One that is not told, because the sentry has ended, unmounts nothing.
func TestUntold(t *testing.T) {
	t.Parallel()
	if code, out := run(t, "", ""); code != ExitUntold || out != "" {
		t.Errorf("exit code %d, %q", code, out)
	}
}

// What the kernel refuses is its exit code.
func TestRefused(t *testing.T) {
	t.Parallel()
	if code, out := run(t, "setpriv --bounding-set -sys_admin --inh-caps -sys_admin ", "x"); code != int(unix.EPERM) || out != "" {
		t.Errorf("without the capability: exit code %d, %q", code, out)
	}
	if code, out := run(t, "umount -l /proc && ", "x"); code != int(unix.EINVAL) || out != "gone\n" {
		t.Errorf("without /proc: exit code %d, %q", code, out)
	}
}
