// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain is also a daemon that does nothing but harden itself.
func TestMain(m *testing.M) {
	if os.Getenv(hardenEnv) != "" {
		os.Exit(hardened())
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hardenEnv makes it a daemon that has done nothing but harden itself.
const hardenEnv = "SANDBOXCTL_TEST_HARDEN"

// hardened prints what the kernel tells a process of itself only.
func hardened() int {
	if err := harden(slog.New(slog.DiscardHandler)); err != nil {
		fmt.Println(err)
		return 1
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	score, rerr := os.ReadFile("/proc/self/oom_score_adj")
	fmt.Printf("dumpable %d, score %s, %v\n", dumpable, bytes.TrimSpace(score), errors.Join(err, rerr))
	return 0
}

// The daemon can't be dumped, and is spared when memory is short: no less than
// the service manager wants.
func TestHardenDaemon(t *testing.T) {
	self, err := os.Executable()
	must(t, err)
	lowest, err := exec.Command("/bin/sh", "-c", "echo -1000 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj").Output()
	must(t, err)
	privileged := string(lowest) == "-1000\n"
	for own, want := range map[int]int{0: daemonOOMScore, 300: daemonOOMScore, -1000: -1000} {
		if !privileged {
			// CAP_SYS_RESOURCE is missing here: what there is stays, and is no error.
			if want = own; own < 0 {
				continue
			}
		}
		cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf("echo %d > /proc/self/oom_score_adj && exec %s", own, self))
		cmd.Env = []string{hardenEnv + "=1"}
		out, err := cmd.CombinedOutput()
		if got, want := string(out), fmt.Sprintf("dumpable 0, score %d, <nil>\n", want); err != nil || got != want {
			t.Errorf("%d: %v: %q, expected %q", own, err, got, want)
		}
	}
	file := filepath.Join(t.TempDir(), "score")
	for own, want := range map[string]string{"0\n": "-900", "300\n": "-900", "-900\n": "-900\n", "-1000\n": "-1000\n"} {
		must(t, os.WriteFile(file, []byte(own), 0o600))
		must(t, lowerOOMScore(file, -900))
		got, err := os.ReadFile(file)
		if must(t, err); !strings.HasPrefix(string(got), want) {
			t.Errorf("%q becomes %q, expected %q", own, got, want)
		}
	}
}
