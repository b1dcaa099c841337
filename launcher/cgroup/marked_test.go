// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// markedHost makes groups of sandboxes that nobody else's tests have.
func markedHost(t *testing.T) (h *Host, name string) {
	t.Helper()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || h.Version() == "none" {
		hosttest.Lacks(t, "needs root and cgroups; uid %d, cgroups %s", os.Geteuid(), h.Version())
	}
	h.Mark("/state of " + t.Name())
	return h, "sbctl-" + strings.ToLower(t.Name()) + "-" + strconv.Itoa(os.Getpid())
}

const someUID = "0123456789abcdef0123456789abcdef"

// gone removes a group, and its processes from it.
func gone(t *testing.T, g *Group) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(g.Remove(ctx), g.Close()); err != nil {
			t.Error(err)
		}
	})
}

func ofName(t *testing.T, h *Host, name string) []Marked {
	t.Helper()
	all, err := h.Marked(nil)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(m Marked) bool { return m.Name != name })
}

// Every group that is made carries the path of its state, however it is made: with
// limits, without, as that of a container, again after it was trimmed.
func TestMarked(t *testing.T) {
	h, name := markedHost(t)
	own := func(suffix string) string { return name + suffix + "-" + someUID }
	limited, _, err := h.Create(own("-limited"), Limits{PIDs: 100, Memory: 1 << 30}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	gone(t, limited)
	container, err := h.CreateAt(own("-container"), Place(parent+"/"+own("-container")), nil)
	if err != nil {
		t.Fatal(err)
	}
	gone(t, container)
	trimmed, _, err := h.Create(own("-trimmed"), Limits{PIDs: 100}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	gone(t, trimmed)
	for _, d := range trimmed.Dirs() {
		if err := unix.Rmdir(d); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := trimmed.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for suffix, g := range map[string]*Group{"-limited": limited, "-container": container, "-trimmed": trimmed} {
		found := ofName(t, h, name+suffix)
		if len(found) != 1 || found[0].UID != someUID || found[0].State != h.mark || len(found[0].dirs) != len(g.dirs) {
			t.Errorf("%s: %+v, expected one with %q and %d directories", suffix, found, h.mark, len(g.dirs))
			continue
		}
		pids, err := found[0].Members()
		if want := suffix == "-trimmed"; err != nil || want != slices.Equal(pids, []int{cmd.Process.Pid}) || !want && len(pids) > 0 {
			t.Errorf("%s: members %v %v", suffix, pids, err)
		}
	}
}

// What has no mark is of no state that is known; a name that is none of a sandbox's
// group is nobody's.
func TestMarkedOthers(t *testing.T) {
	h, name := markedHost(t)
	h.Mark("") // as an earlier version, or on a host that has no marks
	for _, n := range []string{name + "-" + someUID, name, someUID, "-" + someUID, name + "-" + someUID[1:]} {
		g, _, err := h.Create(n, Limits{}, Limits{PIDs: 100})
		if err != nil {
			t.Fatal(err)
		}
		gone(t, g)
	}
	all, err := h.Marked(nil)
	if err != nil {
		t.Fatal(err)
	}
	unmarked := 0
	for _, m := range all {
		switch {
		case m.Name == name && m.UID == someUID && m.State == "":
			unmarked++
		case m.Name == name || strings.Contains(m.String(), name) || m.Name == "":
			t.Errorf("%+v", m)
		}
	}
	if unmarked != 1 {
		t.Errorf("%d groups without a mark, expected 1", unmarked)
	}
}

// A launcher marks a group before it puts a process into it. Whoever finds the group
// before that, and its processes after it, is told the mark.
func TestMarkedLater(t *testing.T) {
	h, name := markedHost(t)
	h.Mark("")
	g, _, err := h.Create(name+"-"+someUID, Limits{}, Limits{PIDs: 100})
	if err != nil {
		t.Fatal(err)
	}
	gone(t, g)
	found := ofName(t, h, name)
	if len(found) != 1 || found[0].State != "" {
		t.Fatalf("%+v, expected one without a mark", found)
	}
	m := &found[0]
	if pids, err := m.Members(); err != nil || len(pids) > 0 || m.State != "" {
		t.Errorf("an empty group: %v %v, state %q", pids, err, m.State)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if pids, err := m.Members(); err != nil || len(pids) != 1 || m.State != "" {
		t.Errorf("a group that nobody marks: %v %v, state %q", pids, err, m.State)
	}
	for _, d := range g.dirs {
		d.mark = "/later\x00" + name + "-" + someUID
		if err := d.setMark(); err != nil {
			t.Fatal(err)
		}
	}
	if pids, err := m.Members(); err != nil || len(pids) != 1 || m.State != "/later" {
		t.Errorf("a group that was marked since: %v %v, state %q", pids, err, m.State)
	}
}

// A group at any place is found by the processes in it, also by those that are in one
// hierarchy only, or in a group below it. Who has a place without a mark is nobody.
func TestMarkedAnywhere(t *testing.T) {
	h, name := markedHost(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	top := Place(name + "-clients")
	t.Cleanup(func() {
		for _, m := range h.mounts() {
			for _, p := range []string{"deep/er", "deep", ""} {
				_ = unix.Rmdir(filepath.Join(m, string(top), p)) // of one hierarchy or all
			}
		}
	})
	for what, c := range map[string]struct {
		place  Place
		below  string
		one    bool // the process is in one hierarchy only
		marked bool
	}{
		"a client's":        {place: top + "/a", marked: true},
		"deep":              {place: top + "/deep/er/b", marked: true},
		"in a group below":  {place: top + "/c", below: "x/y", marked: true},
		"one hierarchy":     {place: top + "/d", one: true, marked: true},
		"as another's name": {place: top + "/" + Place(name) + "-other-" + Place(strings.Repeat("f", 32)), marked: true},
		"a unit of systemd": {place: top + "/libpod-0123.scope", marked: true},
		"no mark":           {place: top + "/e"},
		"no mark, our name": {place: top + "/" + Place(name) + "-" + someUID},
	} {
		own := name + "-" + someUID
		h.Mark("/state of " + t.Name())
		if !c.marked {
			h.Mark("")
		}
		g, err := h.CreateAt(own, c.place, nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		dirs := g.Dirs()
		if c.one {
			dirs = dirs[len(dirs)-1:]
		}
		var memberships []string
		var want []int
		for i, d := range dirs {
			at := d
			if _, err := os.Stat(filepath.Join(d, "cpuset.cpus")); err != nil || h.v1[cpusetController] == "" {
				at = filepath.Join(d, c.below) // a new group of v1's cpuset takes nobody
			}
			must(os.MkdirAll(at, 0o755))
			pid, err := strconv.Atoi(sleeper(t, at))
			must(err)
			want = append(want, pid)
			b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
			must(err)
			if i == 0 {
				memberships = append(memberships, string(b))
			}
		}
		found, err := h.Marked(append(memberships, "", "nonsense\n", "0::/../outside\n", "1:nosuch:/x\n", "0::relative\n"))
		must(err)
		found = slices.DeleteFunc(found, func(m Marked) bool { return !strings.Contains(m.String(), string(top)) })
		switch {
		case !c.marked && len(found) > 0, c.marked && (len(found) != 1 || found[0].Name != name || found[0].UID != someUID || found[0].State != h.mark):
			t.Errorf("%s: %+v", what, found)
		case c.marked:
			pids, err := found[0].Members()
			if err != nil || len(pids) == 0 || !slices.Contains(want, pids[0]) {
				t.Errorf("%s: members %v %v, expected of %v", what, pids, err, want)
			}
		}
		for _, pid := range want {
			p, err := os.FindProcess(pid)
			must(err)
			must(p.Kill())
			_, err = p.Wait()
			must(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		must(errors.Join(g.Remove(ctx), g.Close()))
		cancel()
	}
}

// Members are those in one hierarchy only, and in groups that root made below.
func TestMembers(t *testing.T) {
	h, name := markedHost(t)
	g, _, err := h.Create(name+"-"+someUID, Limits{PIDs: 100, Memory: 1 << 30}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	gone(t, g)
	var want []int
	below := filepath.Join(g.Dirs()[0], "a/b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range append([]string{below}, g.Dirs()[1:]...) {
		pid, err := strconv.Atoi(sleeper(t, d))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, pid)
	}
	slices.Sort(want)
	found := ofName(t, h, name)
	if len(found) != 1 {
		t.Fatal(found)
	}
	if pids, err := found[0].Members(); err != nil || !slices.Equal(pids, want) {
		t.Errorf("%v %v, expected %v", pids, err, want)
	}
}

// What can't be looked at is an error and no absence; what is gone is none.
func TestMarkedErrors(t *testing.T) {
	t.Parallel()
	group := func(t *testing.T) (root, at string) {
		root = t.TempDir()
		at = filepath.Join(root, parent, "web-"+someUID)
		write(t, at, "cgroup.procs", "7\n")
		return root, at
	}
	for what, c := range map[string]struct {
		hurt    func(root, at string) error
		list    bool // fails to list groups
		members bool // fails to list members
	}{
		"no hierarchy":        {func(root, _ string) error { return os.RemoveAll(root) }, false, false},
		"no groups":           {func(root, _ string) error { return os.RemoveAll(filepath.Join(root, parent)) }, false, false},
		"group gone":          {func(_, at string) error { return os.RemoveAll(at) }, false, false},
		"parent no directory": {func(root, _ string) error { return replaced(filepath.Join(root, parent), false) }, true, true},
		"parent a link":       {func(root, _ string) error { return replaced(filepath.Join(root, parent), true) }, true, false},
		"group a link":        {func(_, at string) error { return replaced(at, true) }, false, true},
		"processes unreadable": {func(_, at string) error {
			return errors.Join(os.Remove(at+"/cgroup.procs"), os.Mkdir(at+"/cgroup.procs", 0o755))
		}, false, true},
		"processes no numbers":  {func(_, at string) error { return os.WriteFile(at+"/cgroup.procs", []byte("x\n"), 0o600) }, false, true},
		"too deep":              {func(_, at string) error { return deep(at) }, false, true},
		"unreadable below":      {func(_, at string) error { return os.MkdirAll(at+"/sub/cgroup.procs", 0o755) }, false, true},
		"member of another pid": {func(_, at string) error { return os.WriteFile(at+"/cgroup.procs", []byte("0\n"), 0o600) }, false, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			root, at := group(t)
			h := &Host{v2: root}
			if err := c.hurt(root, at); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Marked(nil); (err != nil) != c.list {
				t.Errorf("list: %v", err)
			}
			m := Marked{Name: "web", UID: someUID, dirs: []string{at}}
			if pids, err := m.Members(); (err != nil) != c.members {
				t.Errorf("members: %v %v", pids, err)
			}
		})
	}
}

// replaced puts a file, or a link to what was there, in the place of a directory.
func replaced(p string, link bool) error {
	err := os.Rename(p, p+".was")
	if link {
		return errors.Join(err, os.Symlink(p+".was", p))
	}
	return errors.Join(err, os.WriteFile(p, nil, 0o600))
}

func deep(at string) error {
	for range maxBelow + 2 {
		at = filepath.Join(at, "x")
		if err := errors.Join(os.Mkdir(at, 0o755), os.WriteFile(at+"/cgroup.procs", nil, 0o600)); err != nil {
			return err
		}
	}
	return nil
}
