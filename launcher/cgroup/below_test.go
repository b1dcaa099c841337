// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// sleeper is a process of the test's own in a group.
func sleeper(t *testing.T, group string) (pid string) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pid = strconv.Itoa(cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(pid), 0); err != nil {
		t.Fatal(err)
	}
	return pid
}

// A group goes with the groups that root has made below it. Who is in one of them
// is named, soon, and is left alone.
func TestRemoveBelow(t *testing.T) {
	h, g := realGroup(t, `{}`, `{}`)
	held := map[string]string{} // group, and who is in it
	for _, d := range g.Dirs() {
		for _, sub := range []string{"a/b/c", "a/d", "e"} {
			if err := os.MkdirAll(filepath.Join(d, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		// A group without processors holds nobody.
		if cpuset := h.v1[cpusetController]; cpuset == "" || !strings.HasPrefix(d, cpuset+"/") {
			held[filepath.Join(d, "a/b")] = sleeper(t, filepath.Join(d, "a/b"))
		}
	}
	started := time.Now()
	err := g.Remove(t.Context())
	if took := time.Since(started); err == nil || took > 10*time.Second {
		t.Fatalf("removed after %s with processes in it: %v", took, err)
	}
	for group, pid := range held {
		if !strings.Contains(err.Error(), group+" holds processes "+pid) {
			t.Errorf("%v, expected that %s in %s is named", err, pid, group)
		}
		if _, err := os.Stat(filepath.Join("/proc", pid)); err != nil {
			t.Errorf("%s was ended: %v", pid, err)
		}
		root := group[:strings.Index(group, "/sbctl-test-")]
		if err := os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := g.Remove(ctx); err != nil {
		t.Error(err)
	}
	for _, d := range g.Dirs() {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("%s is left", d)
		}
	}
}

// A group is frozen by itself, or by one above it, with either version; it is
// thawed itself, and others are not.
func TestFrozen(t *testing.T) {
	_, g := realGroup(t, `{}`, `{}`)
	if by, err := g.FrozenBy(); by != "" || err != nil {
		t.Fatalf("frozen by %q, %v, and nobody has", by, err)
	}
	tried := 0
	for _, d := range g.Dirs() {
		for _, at := range []string{d, filepath.Dir(d)} {
			for _, f := range []struct{ file, frozen, thawed string }{{"cgroup.freeze", "1", "0"}, {"freezer.state", "FROZEN", "THAWED"}} {
				file := filepath.Join(at, f.file)
				if _, err := os.Stat(file); err != nil {
					continue
				}
				tried++
				if err := os.WriteFile(file, []byte(f.frozen), 0); err != nil {
					t.Fatal(err)
				}
				if by, err := g.FrozenBy(); by != at || err != nil {
					t.Errorf("frozen by %q, %v, expected %s", by, err, at)
				}
				if err := g.Thaw(); err != nil {
					t.Error(err)
				}
				want := ""
				if at != d {
					want = at
				}
				if by, err := g.FrozenBy(); by != want || err != nil {
					t.Errorf("thawed: frozen by %q, %v, expected %q", by, err, want)
				}
				if err := os.WriteFile(file, []byte(f.thawed), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if tried == 0 {
		t.Error("no hierarchy of this host can be frozen")
	}
}

// A group that never ends is bounded: this one is deeper than anybody looks.
func TestRemoveDeep(t *testing.T) {
	_, g := realGroup(t, `{}`, `{}`)
	at := g.Dirs()[0]
	var made []string
	for range maxBelow + 2 {
		at = filepath.Join(at, "x")
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		made = append([]string{at}, made...)
	}
	if err := g.Remove(t.Context()); err == nil || !strings.Contains(err.Error(), "has groups below it, too deep to be removed here") {
		t.Errorf("%v, expected that it is too deep", err)
	}
	for _, d := range made {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// trim removes empty groups of a place in every hierarchy, over and over, until
// stop is called: a systemd at its worst.
func trim(h *Host, p Place) (stop func()) {
	mounts := []string{h.v2}
	for _, m := range h.v1 {
		mounts = append(mounts, m)
	}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, m := range mounts {
				if m != "" {
					_ = unix.Rmdir(filepath.Join(m, string(p)))
					_ = unix.Rmdir(filepath.Join(m, filepath.Dir(string(p))))
				}
			}
		}
	}()
	return func() {
		close(done)
		<-over
		for _, m := range mounts {
			if m != "" {
				_ = unix.Rmdir(filepath.Join(m, filepath.Dir(string(p))))
			}
		}
	}
}

// Groups that are removed while nothing is in them, at any moment from the first
// directory on, hold their process and have their limits in the end.
func TestTrimmed(t *testing.T) {
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || h.Version() == "none" {
		hosttest.Lacks(t, "needs root and cgroups; uid %d, cgroups %s", os.Geteuid(), h.Version())
	}
	p := Place("sbctl-test-" + strconv.Itoa(os.Getpid()) + "-trim/x")
	stop := trim(h, p)
	defer stop()
	for i := range 40 {
		g, err := h.CreateAt("c-"+someUID, p, resources(t, `{"pids":{"limit":77},"cpu":{"quota":50000,"period":100000}}`))
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		err = g.Add(cmd.Process.Pid)
		pids, perr := g.PIDs()
		_, limit := g.Limits()
		quota, _ := bandwidth(t, g)
		if err != nil || perr != nil || len(pids) != 1 || limit != 77 || quota != 50000 {
			t.Errorf("%d: %v %v: processes %v, limit %d, quota %d", i, err, perr, pids, limit, quota)
		}
		for _, d := range g.dirs {
			if d.gone() {
				t.Errorf("%d: %s is gone with a process in it", i, d.path)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := g.Remove(ctx); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		cancel()
		g.Close()
	}
}
