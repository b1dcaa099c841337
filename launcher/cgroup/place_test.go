// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParsePlace(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                           "sandboxctl/own",
		"/a/b":                       "a/b",
		"/a/b/":                      "a/b",
		"a/b":                        "sandboxctl/a/b",
		"machine.slice:libpod:abc":   "machine.slice/libpod-abc.scope",
		"user-1000-x.slice::n":       "user.slice/user-1000.slice/user-1000-x.slice/n.scope",
		":docker:abc":                "system.slice/docker-abc.scope",
		"-.slice:p:n":                "p-n.scope",
		"kubepods.slice:cri:x.slice": "kubepods.slice/x.slice",
		"/sandboxctl/x":              "sandboxctl/x",
		"/sandboxctl":                "", // those of all sandboxes are below it
		"/sandboxctl/":               "",
		"/a/../b":                    "",
		"/":                          "",
		"..":                         "",
		"x/../..":                    "",
		"/a//b":                      "",
		"/a/./b":                     "",
		"/a\n/b":                     "",
		"bad:p:n":                    "",
		"a--b.slice:p:n":             "",
		"../x.slice:p:n":             "",
		"x.slice:p:../../n":          "",
		"x.slice:p:":                 "",
	} {
		got, err := ParsePlace(in, "own")
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v, expected %q", in, got, err, want)
		}
	}
}

const allResources = `{"memory":{"limit":1048576,"swap":2097152,"reservation":4096},"cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0","mems":"0"},
"pids":{"limit":7},"blockIO":{"weight":100,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}]},"hugepageLimits":[{"pageSize":"2MB","limit":3}]}`

func resources(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	r := &specs.LinuxResources{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// What is asked for ends up in the files of cgroup2, and of v1 in those of each
// hierarchy. The trees are plain files.
func TestSet(t *testing.T) {
	t.Parallel()
	v2 := t.TempDir()
	write(t, v2, "cgroup.controllers", "cpu cpuset io memory pids hugetlb\n")
	write(t, v2, "cgroup.subtree_control", "")
	want := map[string]string{
		"memory.max": "1048576", "memory.swap.max": "1048576", "memory.low": "4096", "cpu.weight": "100", "cpu.max": "50000 100000",
		"cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "7", "io.weight": "default 910", "io.max": "8:0 rbps=5", "hugetlb.2MB.max": "3",
		"memory.high": "77",
	}
	g := filepath.Join(v2, "a/b")
	write(t, g, "cgroup.procs", "")
	write(t, filepath.Join(v2, "a"), "cgroup.subtree_control", "")
	for f := range want {
		write(t, g, f, "")
	}
	h := &Host{v2: v2, v1: map[string]string{}}
	r := resources(t, allResources)
	r.Unified = map[string]string{"memory.high": "77"}
	group, err := h.CreateAt("c-"+someUID, "a/b", r)
	if err != nil {
		t.Fatal(err)
	}
	for f, v := range want {
		if got := content(t, g, f); got != v {
			t.Errorf("%s is %q, expected %q", f, got, v)
		}
	}
	if memory, pids := group.Limits(); memory != 1<<20 || pids != 7 {
		t.Errorf("limits are %d and %d", memory, pids)
	}
	for _, bad := range []string{"../x", "cgroup.procs", "a/b", ""} {
		if err := group.Set(&specs.LinuxResources{Unified: map[string]string{bad: "1"}}); err == nil {
			t.Errorf("unified %q is written", bad)
		}
	}
	again, err := h.OpenAt("a/b", group.Dirs())
	if err != nil || len(again.Dirs()) != 1 {
		t.Errorf("%v %v", again, err)
	}
	for _, foreign := range []string{"/etc", v2, v2 + "/a", v2 + "/a/b/c", v2 + "/../a/b"} {
		if _, err := h.OpenAt("a/b", []string{foreign}); err == nil {
			t.Errorf("%s is taken for the group", foreign)
		}
	}

	v1 := t.TempDir()
	h = &Host{v1: map[string]string{}}
	files := map[string]map[string]string{
		"memory":  {"memory.limit_in_bytes": "1048576", "memory.memsw.limit_in_bytes": "2097152", "memory.soft_limit_in_bytes": "4096"},
		"cpu":     {"cpu.shares": "1024", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"},
		"cpuset":  {"cpuset.cpus": "0", "cpuset.mems": "0"},
		"pids":    {"pids.max": "7"},
		"blkio":   {"blkio.weight": "100", "blkio.throttle.read_bps_device": "8:0 5"},
		"hugetlb": {"hugetlb.2MB.limit_in_bytes": "3"},
	}
	for c, fs := range files {
		h.v1[c] = filepath.Join(v1, c)
		write(t, filepath.Join(v1, c, "x"), "cgroup.procs", "")
		for f := range fs {
			write(t, filepath.Join(v1, c), f, "0-1\n")
			write(t, filepath.Join(v1, c, "x"), f, "")
		}
	}
	h.v1["cpuacct"] = h.v1["cpu"]
	group, err = h.CreateAt("c-"+someUID, "x", resources(t, allResources))
	if err != nil {
		t.Fatal(err)
	}
	if len(group.Dirs()) != len(files) {
		t.Errorf("directories %v", group.Dirs())
	}
	for c, fs := range files {
		for f, v := range fs {
			if got := content(t, v1, c, "x", f); got != v && got != v+"0-1"[min(len(v), 3):] {
				t.Errorf("%s is %q, expected %q", f, got, v)
			}
		}
	}
}

// A group that holds processes is somebody else's; a controller that is missing
// is an error and not a limit less.
func TestCreateAtRefused(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	h := &Host{v1: map[string]string{"pids": root}}
	write(t, filepath.Join(root, "taken"), "cgroup.procs", "1\n")
	if _, err := h.CreateAt("c-"+someUID, "taken", nil); err == nil || !strings.Contains(err.Error(), "already and holds processes") {
		t.Errorf("taken: %v", err)
	}
	// On cgroup2 the kernel kills who is below a group with it.
	write(t, filepath.Join(root, "above"), "cgroup.procs", "")
	write(t, filepath.Join(root, "above/empty"), "cgroup.procs", "")
	write(t, filepath.Join(root, "above/other.slice/deep"), "cgroup.procs", "7\n8\n")
	write(t, filepath.Join(root, "above/other.slice"), "cgroup.procs", "")
	if _, err := h.CreateAt("c-"+someUID, "above", nil); err == nil || !strings.Contains(err.Error(), "already and holds processes, in "+root+"/above/other.slice/deep: 7, 8") {
		t.Errorf("taken below: %v", err)
	}
	// A group that can't be read is not known to be free.
	write(t, filepath.Join(root, "odd/threads"), "cgroup.procs", "")
	write(t, filepath.Join(root, "odd"), "cgroup.procs", "")
	if err := os.Remove(filepath.Join(root, "odd/threads/cgroup.procs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "odd/threads/cgroup.procs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := h.CreateAt("c-"+someUID, "odd", nil); err == nil || !strings.Contains(err.Error(), "can't be read") {
		t.Errorf("unreadable: %v", err)
	}
	write(t, filepath.Join(root, "free"), "cgroup.procs", "")
	if _, err := h.CreateAt("c-"+someUID, "free", resources(t, `{"memory":{"limit":4096}}`)); err == nil || !strings.Contains(err.Error(), "memory.limit_in_bytes: this host has no cgroup hierarchy for it") {
		t.Errorf("missing: %v", err)
	}
	if _, err := settingsOf(resources(t, `{"memory":{"limit":4096,"swap":100}}`)); err == nil {
		t.Error("a swap limit below that of memory is taken")
	}
}
