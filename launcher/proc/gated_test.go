// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Sandboxes are started at the same time, some of them into user namespaces,
// whose mappings Go's runtime writes through descriptors of the host's /proc that
// are not close-on-exec. None of them may reach another sandbox.
func TestChildrenInheritNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	dir := t.TempDir()
	start := func(name string, attr *syscall.SysProcAttr, script string) {
		out, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		var d Donation
		gate, _, err := NewGate(&d)
		if err != nil {
			t.Error(err)
			return
		}
		c, err := StartGated(Program{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Attr: attr, Donation: &d, Gate: gate, Stderr: out, CgroupFD: -1})
		if err != nil {
			t.Error(err)
			return
		}
		var info unix.Siginfo
		if err := RetryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, int(c.PIDFD.Fd()), &info, unix.WEXITED, nil) }); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	const rounds, lookers = 60, 3
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for range rounds {
				m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
				start("mapped"+string(rune('a'+i)), &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: m, GidMappings: m}, "exit 0")
			}
		})
	}
	for i := range lookers {
		wg.Go(func() {
			for range rounds {
				name := "looker" + string(rune('a'+i))
				start(name, &syscall.SysProcAttr{}, "for f in /proc/$$/fd/*; do readlink $f >&2; done")
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil || !strings.Contains(string(b), os.DevNull) {
					t.Errorf("the child has not looked: %v %s", err, b)
				}
				for line := range strings.Lines(string(b)) {
					if strings.HasSuffix(strings.TrimSpace(line), "_map") || strings.HasSuffix(strings.TrimSpace(line), "setgroups") {
						t.Errorf("inherited: %s", line)
					}
				}
			}
		})
	}
	wg.Wait()
}
