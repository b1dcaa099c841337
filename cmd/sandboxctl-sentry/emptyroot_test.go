// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/boot"
)

// A directory that is open keeps the application from starting, however it was
// opened, unless the client passes it. The process may have inherited one, so
// the test looks at a descriptor it knows.
func TestCheckNoDirectory(t *testing.T) {
	if err := checkNoDirectory(nil); err != nil {
		t.Fatalf("before any is open: %v", err)
	}
	dir := t.TempDir()
	for name, open := range map[string]func() (int, error){
		"read":          func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0) },
		"path":          func() (int, error) { return unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0) },
		"without flags": func() (int, error) { return unix.Open(dir, unix.O_DIRECTORY, 0) },
		"root":          func() (int, error) { return unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0) },
		"removed": func() (int, error) {
			gone := t.TempDir()
			fd, err := unix.Open(gone, unix.O_PATH|unix.O_CLOEXEC, 0)
			return fd, errors.Join(err, os.Remove(gone))
		},
	} {
		fd, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkNoDirectory([]boot.FDMapping{{Host: fd + 1, Guest: fd}}); err == nil || !strings.Contains(err.Error(), "directory") {
			t.Errorf("%s: %v", name, err)
		}
		if err := checkNoDirectory([]boot.FDMapping{{Host: 0, Guest: 3}, {Host: fd, Guest: 4}}); err != nil {
			t.Errorf("%s, passed: %v", name, err)
		}
		unix.Close(fd)
	}
	f, err := os.Create(dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := checkNoDirectory(nil); err != nil {
		t.Errorf("a file is open: %v", err)
	}
}

// The sentry goes on only if /proc was unmounted, and says why it was not.
func TestUnmount(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"exit 1": "operation not permitted", "exit 22": "invalid argument", "kill -KILL $$": "ended by killed",
		"exit 0": "/proc is there",
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "read x; " + script}, &syscall.ProcAttr{Files: []uintptr{r.Fd()}})
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := (&procUmounter{pid, w}).unmount(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
	child := exec.Command("/bin/true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	_, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&procUmounter{child.Process.Pid, w}).unmount(); err == nil {
		t.Error("it was reaped by somebody else, and nothing said so")
	}
}

func TestParseBootFlags(t *testing.T) {
	t.Parallel()
	const fds = "--spec-fd=4 --controller-fd=5 --start-sync-fd=6 "
	for line, good := range map[string]bool{
		fds + "web": true,
		fds + "--io-fds=7 --io-fds=8 --stdio-fds=9 --gofer-mount-confs=lisafs:memory,lisafs:none --pass-fd=10:3 --exec-fd=11 --cpu-num=2 --total-memory=5 --total-host-memory=6 web": true,
		fds: false, fds + "web more": false, "web": false, "": false, "--spec-fd=4 --controller-fd=5 web": false, fds + "--unknown web": false, fds + "--cpu-num=x web": false,
		fds + "--gofer-mount-confs=nonsense web": false, fds + "--pass-fd=x web": false,
	} {
		b, err := parseBootFlags(strings.Fields(line))
		if (err == nil) != good {
			t.Errorf("%s: %v", line, err)
		}
		if good && (b.id != "web" || b.specFD != 4 || b.controllerFD != 5 || b.readyFD != 6) {
			t.Errorf("%s: %+v", line, b)
		}
	}
}
