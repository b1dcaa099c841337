// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual/hosttest"
)

const (
	mountsV2     = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountsHybrid = "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	// Nothing that a limit needs.
	mountsFreezer = "34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n31 30 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
	mountsV1      = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)

func TestDetect(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		mountsV2: "v2 /sys/fs/cgroup map[]", "": "none  map[]",
		// The kernel escapes what would end a field.
		`34 30 0:30 / /sys/fs/c\040g\011r\134oup rw - cgroup2 cgroup2 rw` + "\n":                                "v2 /sys/fs/c g\tr\\oup map[]",
		`31 30 0:27 / /mnt/a\040b rw shared:9 master:3 - cgroup cgroup rw,cpu` + "\n" + mountsV2:                "hybrid /sys/fs/cgroup map[cpu:/mnt/a b]",
		"31 30 0:27 / /one rw - cgroup cgroup rw,cpu\n32 30 0:27 / /two rw - cgroup cgroup rw,cpu\n" + mountsV2: "hybrid /sys/fs/cgroup map[cpu:/one]",
		"31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,name=systemd\n" + mountsV2:                  "v2 /sys/fs/cgroup map[]",
		"31 30 0:27 / /sys/fs/cgroup rw - tmpfs cgroup2 rw,cpu\n":                                               "none  map[]",
		mountsHybrid:  "hybrid /sys/fs/cgroup/unified map[cpu:/sys/fs/cgroup/cpu memory:/sys/fs/cgroup/memory pids:/sys/fs/cgroup/pids]",
		mountsFreezer: "v2 /sys/fs/cgroup/unified map[freezer:/sys/fs/cgroup/freezer]",
		mountsV1:      "v1  map[cpu:/sys/fs/cgroup/cpu,cpuacct cpuacct:/sys/fs/cgroup/cpu,cpuacct memory:/sys/fs/cgroup/memory]",
	} {
		h, err := detect(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(h.Version(), " ", h.v2, " ", h.v1); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}

// A list that can't be read is not one without hierarchies: sandboxes would be
// started without their limits.
func TestDetectUnreadable(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"garbage\n", "1 2\n", " - \n", "34 30 0:30 / /sys/fs/cgroup rw cgroup2 cgroup2 rw\n", mountsV2 + "34 30 x / /y rw - cgroup2 cgroup2 rw\n"} {
		if h, err := detect(strings.NewReader(text)); err == nil {
			t.Errorf("%q is %s", text, h.Version())
		}
	}
}

// fakeV2 is a tree of plain files with the controllers given.
func fakeV2(t *testing.T, controllers string) *Host {
	t.Helper()
	root := t.TempDir()
	write(t, root, "cgroup.controllers", controllers)
	write(t, root, "cgroup.subtree_control", "")
	write(t, filepath.Join(root, parent), "cgroup.subtree_control", "")
	g := filepath.Join(root, parent, "web")
	for _, f := range []string{"cgroup.procs", "cgroup.kill", "cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max"} {
		write(t, g, f, "")
	}
	write(t, g, "memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\n")
	write(t, g, "memory.current", "4096\n")
	write(t, g, "cpu.stat", "usage_usec 12\nuser_usec 5\n")
	write(t, g, "pids.current", "3\n")
	return &Host{v2: root, v1: map[string]string{}}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestV2(t *testing.T) {
	t.Parallel()
	h := fakeV2(t, "cpuset cpu io memory pids\n")
	g, missing, err := h.Create("web", Limits{CPU: 500, Memory: 1 << 20, PIDs: 9}, Limits{})
	if err != nil || len(missing) > 0 {
		t.Fatalf("%v %v", missing, err)
	}
	defer g.Close()
	dir := filepath.Join(h.v2, parent, "web")
	for file, want := range map[string]string{"cpu.max": "50000 100000", "memory.max": "1048576", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "9"} {
		if got := content(t, dir, file); got != want {
			t.Errorf("%s is %q, expected %q", file, got, want)
		}
	}
	// Each write of a plain file begins at its start: the last one is there.
	if got := content(t, h.v2, "cgroup.subtree_control"); !strings.HasPrefix(got, "+pids") {
		t.Errorf("subtree_control is %q", got)
	}
	if fd, ok := g.CloneFD(); !ok || fd < 0 {
		t.Error("nothing to clone into")
	}
	if n, err := g.OOMKills(); n != 2 || err != nil {
		t.Errorf("%d OOM kills, %v", n, err)
	}
	if s := g.Stats(); s != (Stats{MemoryBytes: 4096, CPUNanos: 12000, PIDs: 3}) {
		t.Errorf("%+v", s)
	}
	if err := g.Kill(); err != nil || content(t, dir, "cgroup.kill") != "1" {
		t.Errorf("kill: %v", err)
	}
	again, err := h.Open(g.Dirs())
	if err != nil || len(again.Dirs()) != 1 {
		t.Errorf("%v %v", again, err)
	}
	again.Close()
}

// A group that can't be made is an error, and nothing of it is left.
func TestCreateFails(t *testing.T) {
	t.Parallel()
	h := fakeV2(t, "memory\n")
	if err := os.Remove(filepath.Join(h.v2, parent, "web", "memory.max")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(h.v2, parent, "web", "memory.swap.max"), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Create("web", Limits{Memory: 1 << 20}, Limits{}); err == nil {
		t.Error("a group without its limit is made")
	}
}

// A limit that can't be had is reported, and the others are set.
func TestV2Unenforced(t *testing.T) {
	t.Parallel()
	h := fakeV2(t, "memory\n")
	g, missing, err := h.Create("web", Limits{CPU: 500, Memory: 1 << 20, PIDs: 9}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if len(missing) != 2 || missing[0].Resource != "cpu" || missing[1].Resource != "pids" || !strings.Contains(missing[0].Why, "does not have the cpu controller") {
		t.Errorf("%v", missing)
	}
	if got := content(t, h.v2, parent, "web", "memory.max"); got != "1048576" {
		t.Errorf("memory.max %q", got)
	}
	none := &Host{v1: map[string]string{}}
	g, missing, err = none.Create("web", Limits{CPU: 1, Memory: 1, PIDs: 1}, Limits{})
	if err != nil || len(missing) != 3 || len(g.Dirs()) != 0 {
		t.Errorf("%v %v %v", g, missing, err)
	}
}

// Directories from a record that Create could not have made are refused.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	h := &Host{v2: "/sys/fs/cgroup/unified", v1: map[string]string{"cpu": "/sys/fs/cgroup/cpu"}}
	for _, bad := range []string{
		"/", "", "/etc", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/sandboxctl", "/sys/fs/cgroup/unified/sandboxctl/..", "/sys/fs/cgroup/unified/system.slice/x",
		"/sys/fs/cgroup/unified/sandboxctl/a/b", "/sys/fs/cgroup/unified/sandboxctl/../x", "relative/sandboxctl/x", "/sys/fs/cgroup/memory/sandboxctl/x", "/sys/fs/cgroup/unified/sandboxctl/x/",
	} {
		if g, err := h.Open([]string{bad}); err == nil {
			t.Errorf("%q is opened: %v", bad, g.Dirs())
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a\x00"} {
		if _, _, err := h.Create(bad, Limits{}, Limits{}); err == nil {
			t.Errorf("%q is created", bad)
		}
	}
	g, err := h.Open([]string{"/sys/fs/cgroup/unified/sandboxctl/not-there"})
	if err != nil || len(g.Dirs()) != 0 {
		t.Errorf("one that is gone: %v %v", g, err)
	}
}

// What a create left that had not written it down is found by its name, in every
// hierarchy that it uses, and nothing else is.
func TestOpenOwn(t *testing.T) {
	t.Parallel()
	h := &Host{v2: t.TempDir(), v1: map[string]string{}}
	cpu, pids := t.TempDir(), t.TempDir()
	h.v1[cpuController], h.v1[memoryController], h.v1[pidsController] = cpu, cpu, pids // two in one
	for _, m := range []string{h.v2, cpu} {
		for _, name := range []string{"web-1", "web-2"} {
			if err := os.MkdirAll(filepath.Join(m, parent, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	g, err := h.OpenOwn("web-1")
	if err != nil {
		t.Fatal(err)
	}
	got := g.Dirs()
	slices.Sort(got)
	want := []string{filepath.Join(h.v2, parent, "web-1"), filepath.Join(cpu, parent, "web-1")}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%v, expected %v", got, want)
	}
	if err := errors.Join(g.Remove(t.Context()), g.Close()); err != nil {
		t.Error(err)
	}
	for _, m := range []string{h.v2, cpu} {
		if left, err := os.ReadDir(filepath.Join(m, parent)); err != nil || len(left) != 1 || left[0].Name() != "web-2" {
			t.Errorf("left are %v, %v", left, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b"} {
		if _, err := h.OpenOwn(bad); err == nil {
			t.Errorf("%q is opened", bad)
		}
	}
	h.v1 = map[string]string{"cpu": cpu, "memory": cpu, "freezer": pids}
	found, err := h.Find(Own("web", "2"))
	if err != nil || len(found) != 2 {
		t.Errorf("%v, %v: expected those of both hierarchies", found, err)
	}
}

// A hierarchy of v1 with several controllers is one directory for all of them,
// whichever name comes first, however the group is opened.
func TestSharedHierarchy(t *testing.T) {
	t.Parallel()
	for _, shared := range [][]string{
		{"blkio", "cpu", "cpuacct", "memory", "pids"}, {"cpu", "cpuacct", "devices", "memory", "pids"}, {"memory", "cpu", "pids", "cpuacct"},
	} {
		m := t.TempDir()
		h := &Host{v1: map[string]string{}}
		for _, c := range shared {
			h.v1[c] = m
		}
		group := filepath.Join(m, parent, "web-1")
		for file, text := range map[string]string{
			"cgroup.procs": "", "cpu.cfs_period_us": "0", "cpu.cfs_quota_us": "0", "memory.limit_in_bytes": "0", "memory.usage_in_bytes": "4096",
			"memory.oom_control": "oom_kill_disable 0\noom_kill 2\n", "pids.max": "0", "pids.current": "3", "cpuacct.usage": "7",
		} {
			write(t, group, file, text)
		}
		made, missing, err := h.Create("web-1", Limits{CPU: 500, Memory: 64 << 20, PIDs: 99}, Limits{})
		if err != nil || len(missing) > 0 {
			t.Fatalf("%v: %v %v", shared, missing, err)
		}
		defer made.Close()
		for file, want := range map[string]string{"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "memory.limit_in_bytes": "67108864", "pids.max": "99"} {
			if got := content(t, group, file); got != want {
				t.Errorf("%v: %s is %q, expected %q", shared, file, got, want)
			}
		}
		for name, open := range map[string]func() (*Group, error){
			"recorded": func() (*Group, error) { return h.Open(made.Dirs()) },
			"own":      func() (*Group, error) { return h.OpenOwn("web-1") },
			"at":       func() (*Group, error) { return h.OpenAt(Own("web", "1"), made.Dirs()) },
		} {
			g, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			memory, pids := g.Limits()
			kills, err := g.OOMKills()
			if got := fmt.Sprint(len(g.Dirs()), g.Stats(), memory, pids, kills, err); got != "1 {4096 7 3} 67108864 99 2 <nil>" {
				t.Errorf("%v, %s: %s", shared, name, got)
			}
		}
	}
}

// On the real kernel: limits are in force, and nothing is left.
func TestReal(t *testing.T) {
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || h.Version() == "none" {
		hosttest.Lacks(t, "needs root and cgroups; uid %d, cgroups %s", os.Geteuid(), h.Version())
	}
	name := fmt.Sprintf("test-%d", os.Getpid())
	g, missing, err := h.Create(name, Limits{CPU: 500, Memory: 64 << 20, PIDs: 64}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	defer g.Close()
	defer func() {
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
		for _, d := range g.Dirs() {
			if _, err := os.Stat(d); err == nil {
				t.Errorf("%s is left", d)
			}
		}
		if err := g.Remove(ctx); err != nil {
			t.Errorf("removed twice: %v", err)
		}
	}()
	t.Logf("%s: %v, not enforced %v", h.Version(), g.Dirs(), missing)
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.PIDs(); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("%v %v", pids, err)
	}
	if len(missing) == 0 {
		if s := g.Stats(); s.PIDs != 1 || s.MemoryBytes < 0 {
			t.Errorf("%+v", s)
		}
	}
	short, cancel2 := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel2()
	if err := g.Remove(short); err == nil {
		t.Error("a group with a process in it was removed")
	}
	if _, ok := g.CloneFD(); ok {
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("killed: %v", err)
		}
	}
}

// Limits that nobody asked for are set like others. Where they can't be, the
// sandbox starts without; one that was asked for is still an error.
func TestDefaultLimits(t *testing.T) {
	t.Parallel()
	defaults := Limits{Memory: 1 << 30, PIDs: 2048}
	h := fakeV2(t, "cpu memory pids\n")
	g, missing, err := h.Create("web", Limits{PIDs: 100}, defaults)
	if err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	g.Close()
	dir := filepath.Join(h.v2, parent, "web")
	if got := content(t, dir, "pids.max") + " " + content(t, dir, "memory.max") + " " + content(t, dir, "cpu.max"); got != "100 1073741824 " {
		t.Errorf("pids, memory and cpu: %q", got)
	}

	for name, c := range map[string]struct {
		host *Host
		why  string
	}{
		"no hierarchy":   {&Host{}, "no cgroup hierarchy"},
		"no controllers": {fakeV2(t, ""), "does not have the"},
		// It is told at once, not after ten seconds of attempts.
		"v1 that is missing": {&Host{v1: map[string]string{"memory": "/nonexistent", "pids": "/nonexistent"}}, "is not mounted any more"},
	} {
		g, missing, err := c.host.Create("web", Limits{}, defaults)
		if err != nil || len(missing) != 2 || !missing[0].Default || !strings.Contains(missing[0].Why, c.why) {
			t.Errorf("%s: %v %v", name, missing, err)
			continue
		}
		g.Close()
	}
	broken := &Host{v1: map[string]string{"pids": "/nonexistent"}}
	if _, _, err := broken.Create("web", Limits{PIDs: 100}, defaults); err == nil {
		t.Error("a limit that was asked for and can't be set is no error")
	}
}

// A process that was started in the group of v2 is moved into those of v1 alone. One that
// was not, for its group was removed meanwhile, is moved into all.
func TestAddStarted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		add    func(*Group, int) error
		v2, v1 string
	}{
		"started in it": {(*Group).AddStarted, "", "7"},
		"not in it":     {(*Group).Add, "7", "7"},
	} {
		h := &Host{v2: t.TempDir(), v1: map[string]string{memoryController: t.TempDir(), pidsController: t.TempDir()}}
		dirs := map[string]string{h.v2: c.v2, h.v1[memoryController]: c.v1, h.v1[pidsController]: c.v1}
		for mount := range dirs {
			write(t, filepath.Join(mount, parent, "web-1"), "cgroup.procs", "")
		}
		g, err := h.OpenOwn("web-1")
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if fd, ok := g.CloneFD(); !ok || fd < 0 {
			t.Fatalf("%s: no group to start in", name)
		}
		if err := c.add(g, 7); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for mount, want := range dirs {
			if got := content(t, mount, parent, "web-1", "cgroup.procs"); got != want {
				t.Errorf("%s: %s has %q, expected %q", name, mount, got, want)
			}
		}
	}
}
