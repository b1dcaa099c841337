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

	"sandboxctl.dev/actual/hosttest"
)

// Sandboxes are started at the same time, some of them into user namespaces,
// whose mappings Go's runtime writes through descriptors of the host's /proc that
// are not close-on-exec. None of them may reach another sandbox.
func TestChildrenInheritNothing(t *testing.T) {
	hosttest.NeedsRoot(t, "making namespaces needs root")
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

// A program that is executed by descriptor is executed whatever the numbers of the
// descriptors are that its child gets. Go moves those between fork and exec, and a
// number of the program's that is in their way then leads to one of them.
func TestStartByDescriptor(t *testing.T) {
	shell, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	for _, first := range []int{100, 200} {
		// Standard error above or below the donated ones, by all distances that matter.
		for distance := -20; distance <= 40; distance++ {
			var d Donation
			gate, _, err := NewGate(&d)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				f, err := fileAt(shell, first)
				if err != nil {
					t.Fatal(err)
				}
				d.Give(f)
			}
			stderr, err := fileAt(shell, first+distance)
			if err != nil {
				t.Fatal(err)
			}
			c, err := StartGated(Program{Path: "/bin/sh", Binary: shell, Args: []string{"sh", "-c", "exit 7"}, Attr: &syscall.SysProcAttr{}, Donation: &d, Gate: gate, Stderr: stderr, CgroupFD: -1})
			stderr.Close()
			if err != nil {
				t.Errorf("donated from %d, standard error %d: %v", first, first+distance, err)
				continue
			}
			var info unix.Siginfo
			if err := RetryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, int(c.PIDFD.Fd()), &info, unix.WEXITED, nil) }); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}
}

// fileAt opens a file again under the first free number from a given one on.
func fileAt(f *os.File, number int) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, number)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
