// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// onTerminal starts a command in the foreground of a new terminal and returns the
// terminal's other end.
func onTerminal(t *testing.T, cmd *exec.Cmd) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	n, err1 := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	slave, err2 := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err := errors.Join(err, err1, err2); err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin = slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return master
}

// Ctrl-C, which the terminal sends to the whole foreground group, a terminal that is
// closed, and SIGTERM end the bench in any of its parts, and nothing of it is left.
func TestInterrupted(t *testing.T) {
	bin := programs(t)
	bench := filepath.Join(t.TempDir(), "bench")
	build := exec.Command("go", "build", "-o", bench, ".")
	build.Env = append(os.Environ(), static)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tree := smallTree(t)
	ctrlC := func(_ *exec.Cmd, terminal *os.File) error {
		_, err := terminal.WriteString("\x03")
		return err
	}
	for what, c := range map[string]struct {
		only    string
		running int // sandboxes, when it comes
		end     func(*exec.Cmd, *os.File) error
	}{
		"Ctrl-C between starts":             {"starts", 1, ctrlC},
		"Ctrl-C while many run":             {"fleets", 3, ctrlC},
		"terminal closed, starts":           {"starts", 1, func(_ *exec.Cmd, f *os.File) error { return f.Close() }},
		"Ctrl-C while daemons adopt":        {"adoption", 4, ctrlC},
		"SIGTERM to the bench, changes":     {"changes", 1, func(cmd *exec.Cmd, _ *os.File) error { return cmd.Process.Signal(unix.SIGTERM) }},
		"SIGTERM to the bench, images":      {"images-run", 1, func(cmd *exec.Cmd, _ *os.File) error { return cmd.Process.Signal(unix.SIGTERM) }},
		"SIGTERM to the bench, networks":    {"networks", 1, func(cmd *exec.Cmd, _ *os.File) error { return cmd.Process.Signal(unix.SIGTERM) }},
		"Ctrl-C twice, while a crowd comes": {"crowd", 2, func(cmd *exec.Cmd, f *os.File) error { return errors.Join(ctrlC(cmd, f), ctrlC(cmd, f)) }},
	} {
		t.Run(what, func(t *testing.T) {
			tmp := t.TempDir()
			cmd := exec.Command(bench, "-bin", bin, "-out", filepath.Join(tmp, "out"), "-only", c.only, "-peers=false",
				"-rounds", "1000", "-bursts", "1000", "-idle", "1h", "-fleet", "3", "-many", "20", "-adopted", "4", "-crowd", "5", "-tree", tree)
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			var said strings.Builder
			cmd.Stdout, cmd.Stderr = &said, &said
			terminal := onTerminal(t, cmd)
			work, groups, err := seen(t, tmp, c.only, c.running)
			if err != nil {
				// It ends all the same, so that it leaves nothing to the next case.
				err = errors.Join(err, cmd.Process.Signal(unix.SIGTERM))
			} else {
				err = c.end(cmd, terminal)
			}
			late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
			waitErr := cmd.Wait()
			if text := said.String(); err != nil || !late.Stop() || waitErr == nil || !strings.Contains(text, "interrupted: removing") || strings.Contains(text, "is kept") {
				t.Fatalf("%v; it ended with %v and said\n%s", err, waitErr, text)
			}
			nothingLeft(t, append(groups, work))
		})
	}
}

// seen waits until a bench has sandboxes, and returns its directory and their cgroups.
func seen(t *testing.T, tmp, part string, running int) (work string, groups []string, err error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	o := &ours{ctx: ctx}
	err = o.until("sandboxes of the bench", func() (bool, error) {
		dirs, err := filepath.Glob(filepath.Join(tmp, "sandboxctl-bench-*"))
		if err != nil || len(dirs) == 0 {
			return false, err
		}
		work, groups = dirs[0], nil
		store, err := actual.OpenStoreReadOnly(filepath.Join(work, daemonOf(part), "state"))
		if err != nil {
			return false, nil //nolint:nilerr // the daemon has not made it yet
		}
		defer store.Close()
		list, err := store.List()
		if err != nil {
			return false, err
		}
		n := 0
		for _, rec := range list.Records {
			if rec.Sentry != nil {
				n++
			}
			groups = append(groups, rec.Cgroups...)
		}
		return n >= running && len(groups) > 0, nil
	})
	return work, groups, err
}

// daemonOf is the directory of the daemon whose sandboxes a part has.
func daemonOf(part string) string {
	switch part {
	case "images-run":
		return "images"
	case "networks":
		return "networks"
	}
	return "ours"
}

// nothingLeft looks for the files given, the cgroup of a bench, and processes that
// have the first path of a bench in their arguments.
func nothingLeft(t *testing.T, paths []string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %s %v", p, err)
		}
	}
	noGroup(t)
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if mentions(p, paths[len(paths)-1]) {
			t.Errorf("left: %v", p)
		}
	}
}

// noGroup finds out whether the cgroup of a bench is gone.
func noGroup(t *testing.T) {
	t.Helper()
	for _, at := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		if left, err := filepath.Glob(at + groupName + "*"); err != nil || len(left) != 0 {
			t.Errorf("left: %v %v", left, err)
		}
	}
}

// A run that could not remove its sandboxes keeps their records.
func TestWorkIsKept(t *testing.T) {
	t.Parallel()
	for _, left := range []bool{true, false} {
		b := &bench{cfg: config{work: t.TempDir()}, left: left}
		err := b.removeWork()
		if _, statErr := os.Stat(b.cfg.work); (statErr == nil) != left || (err != nil) != left || left && !strings.Contains(err.Error(), b.cfg.work) {
			t.Errorf("left %v: %v, %v", left, err, statErr)
		}
	}
}
