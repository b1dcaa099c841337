// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/launcher/specfield"
)

// realGroup is a group on the real kernel below one with limits of its own.
func realGroup(t *testing.T, parentLimits, own string) (*Host, *Group) {
	t.Helper()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || h.Version() == "none" {
		hosttest.Lacks(t, "needs root and cgroups; uid %d, cgroups %s", os.Geteuid(), h.Version())
	}
	top := Place(fmt.Sprintf("sbctl-test-%d-%s", os.Getpid(), strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))))
	var groups []*Group
	for _, g := range []struct {
		place Place
		text  string
	}{{top, parentLimits}, {top + "/c", own}} {
		group, err := h.CreateAt("c-"+someUID, g.place, resources(t, g.text))
		if err != nil {
			t.Fatal(err)
		}
		groups = append([]*Group{group}, groups...)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, g := range groups {
			if err := g.Remove(ctx); err != nil {
				t.Error(err)
			}
			g.Close()
		}
	})
	return h, groups[0]
}

// bandwidth is the quota and the period in force, -1 for no quota.
func bandwidth(t *testing.T, g *Group) (quota, period int64) {
	t.Helper()
	if d := g.dir(cpuController); d != nil {
		quota, qerr := readInt(d.fd(), "cpu.cfs_quota_us")
		period, perr := readInt(d.fd(), "cpu.cfs_period_us")
		if qerr != nil || perr != nil {
			t.Fatal(qerr, perr)
		}
		return quota, period
	}
	s, err := readFile(g.v2().fd(), "cpu.max")
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(s, "max ") {
		s = "-1" + strings.TrimPrefix(s, "max")
	}
	if _, err := fmt.Sscan(s, &quota, &period); err != nil {
		t.Fatal(err)
	}
	return quota, period
}

// Whatever a group has and whatever is asked for that its parent allows is taken,
// in whichever order the kernel wants; what one of both is not given for stays.
func TestUpdateBandwidth(t *testing.T) {
	h, g := realGroup(t, `{"cpu":{"quota":50000,"period":100000}}`, `{"cpu":{"quota":20000,"period":100000}}`)
	seed := time.Now().UnixNano()
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	for i := range 300 {
		q0, p0 := bandwidth(t, g)
		period := 1000 + rng.Int64N(999_000)
		quota := max(1000, rng.Int64N(period/2+1))
		c := &specs.LinuxCPU{}
		want := [2]int64{q0, p0}
		kind := i % 4
		if kind != 1 {
			c.Period, want[1] = new(uint64(period)), period
		}
		if kind != 0 {
			c.Quota, want[0] = new(quota), quota
		}
		fits := want[0]*100000 <= want[1]*50000
		err := g.Set(&specs.LinuxResources{CPU: c})
		q, p := bandwidth(t, g)
		switch {
		case !fits && h.v2 != "" && g.dir(cpuController) == nil:
			// v2 takes what a parent does not allow, and the parent's limit holds.
		case fits && (err != nil || [2]int64{q, p} != want):
			t.Fatalf("seed %d, step %d: from %d/%d with %v/%v: %d/%d, %v", seed, i, q0, p0, c.Quota, c.Period, q, p, err)
		case !fits && (err == nil || q != q0 || p != p0):
			t.Fatalf("seed %d, step %d: %d/%d exceeds the parent's: %d/%d, expected %d/%d as before, %v", seed, i, want[0], want[1], q, p, q0, p0, err)
		}
	}
	// No limit is asked for by name only.
	if err := g.Set(resources(t, `{"cpu":{"quota":-1}}`)); err != nil {
		t.Fatal(err)
	}
	if q, _ := bandwidth(t, g); q != -1 {
		t.Errorf("quota %d, expected none", q)
	}
	if err := g.Set(resources(t, `{"cpu":{"period":50000}}`)); err != nil {
		t.Fatal(err)
	}
	if q, p := bandwidth(t, g); q != -1 || p != 50000 {
		t.Errorf("%d/%d, expected no quota in 50000", q, p)
	}
}

// A limit that depends on another one is raised and lowered with it; a burst never
// exceeds the quota on the way.
func TestUpdateDependent(t *testing.T) {
	_, g := realGroup(t, `{}`, `{"memory":{"limit":67108864},"cpu":{"quota":50000,"period":100000}}`)
	for _, step := range []string{
		`{"memory":{"limit":134217728}}`,
		`{"memory":{"limit":67108864,"swap":67108864}}`,
		`{"memory":{"limit":268435456,"swap":268435456}}`,
		`{"memory":{"limit":33554432,"swap":33554432}}`,
		`{"memory":{"swap":67108864}}`,
		`{"memory":{"limit":-1,"swap":-1}}`,
		`{"memory":{"limit":67108864,"swap":67108864}}`,
		`{"memory":{"limit":-1}}`,
		`{"cpu":{"burst":40000}}`,
		`{"cpu":{"quota":20000,"burst":10000}}`,
		`{"cpu":{"quota":90000,"burst":80000}}`,
		`{"cpu":{"burst":0}}`,
		`{"cpu":{"idle":1}}`,
		`{"cpu":{"idle":0,"shares":200}}`,
	} {
		r := resources(t, step)
		if r.Memory != nil && r.Memory.Swap != nil {
			// Kernels without accounting of swap have no file for it.
			if _, err := g.locate(&setting{controller: memoryController, v1: "memory.memsw.limit_in_bytes", v2: "memory.swap.max"}); err != nil {
				continue
			}
		}
		if err := g.Set(r); err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
}

// An update of which something can't be had changes nothing.
func TestUpdateUndone(t *testing.T) {
	const before = `{"cpu":{"quota":20000,"period":100000},"pids":{"limit":300}}`
	_, g := realGroup(t, `{"cpu":{"quota":50000,"period":100000}}`, before)
	for name, text := range map[string]string{
		"more than the parent has": `{"pids":{"limit":400},"cpu":{"shares":77,"quota":90000}}`,
		"no such processor":        `{"pids":{"limit":400},"cpu":{"quota":30000,"cpus":"9999"}}`,
		"nonsense":                 `{"pids":{"limit":400},"cpu":{"quota":30000,"mems":"x"}}`,
		"no such file":             `{"pids":{"limit":400},"cpu":{"quota":30000},"unified":{"memory.nosuch":"1"}}`,
		"a device that is none":    `{"pids":{"limit":400},"cpu":{"quota":30000},"rdma":{"nosuch0":{"hcaHandles":3}}}`,
		"realtime":                 `{"cpu":{"quota":30000,"realtimeRuntime":999999999}}`,
	} {
		err := g.Set(resources(t, text))
		if err == nil && name == "more than the parent has" && g.dir(cpuController) == nil {
			// v2 takes it.
			if err := g.Set(resources(t, before)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		quota, period := bandwidth(t, g)
		if _, pids := g.Limits(); err == nil || quota != 20000 || period != 100000 || pids != 300 {
			t.Errorf("%s: %v; quota %d/%d, %d processes, expected 20000/100000 and 300 as before", name, err, quota, period, pids)
		}
	}
}

// What is set by the same update in other files, or in another form than it is read,
// is restored too.
func TestUpdateUndoneBeside(t *testing.T) {
	_, g := realGroup(t, `{}`, `{"cpu":{"shares":512}}`)
	shares := func() (n int64) {
		n, _ = g.read(cpuController, "cpu.shares", "cpu.weight")
		return n
	}
	before := shares()
	for _, text := range []string{
		`{"cpu":{"idle":1,"cpus":"9999"}}`,
		`{"cpu":{"idle":1,"shares":300},"unified":{"memory.nosuch":"1"}}`,
		`{"memory":{"disableOOMKiller":true},"cpu":{"cpus":"9999"}}`,
	} {
		if err := g.Set(resources(t, text)); err == nil || strings.Contains(err.Error(), "invalid argument (does") {
			t.Errorf("%s: %v", text, err)
		}
		idle, _ := g.read(cpuController, "cpu.idle", "cpu.idle")
		if n := shares(); n != before || idle != 0 {
			t.Errorf("%s: %d shares, idle %d, expected %d and 0 as before", text, n, idle, before)
		}
		if d := g.dir(memoryController); d != nil {
			if n, err := readKey(d.fd(), "memory.oom_control", "oom_kill_disable"); err == nil && n != 0 {
				t.Errorf("%s: nothing is killed when memory runs out", text)
			}
		}
	}
}

// Rules of devices can't be read back: they come after all that may fail.
func TestDevicesLast(t *testing.T) {
	t.Parallel()
	all, err := settingsOf(resources(t, `{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":4096},"pids":{"limit":7},"blockIO":{"weight":500},"hugepageLimits":[{"pageSize":"2MB","limit":1}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if all[0].controller == devicesController || all[len(all)-1].controller != devicesController {
		t.Errorf("%+v", all)
	}
}

// fakeGroup is a group of cgroup2 on plain files.
func fakeGroup(t *testing.T, files map[string]string) (*Group, string) {
	t.Helper()
	v2 := t.TempDir()
	write(t, v2, "cgroup.controllers", "cpu memory pids\n")
	write(t, v2, "cgroup.subtree_control", "")
	dir := filepath.Join(v2, "g")
	write(t, dir, "cgroup.procs", "")
	for f, text := range files {
		write(t, dir, f, text)
	}
	h := &Host{v2: v2, v1: map[string]string{}}
	g, err := h.CreateAt("c-"+someUID, "g", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g, dir
}

// On cgroup2 a file holds what v1 has two for: what is not given stays.
func TestUpdateV2(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, now, memory, ask, want, err string }{
		{"cpu.max", "50000 100000\n", "", `{"cpu":{"period":200000}}`, "50000 200000", ""},
		{"cpu.max", "50000 100000\n", "", `{"cpu":{"quota":70000}}`, "70000 100000", ""},
		{"cpu.max", "50000 100000\n", "", `{"cpu":{"quota":-1}}`, "max 100000", ""},
		{"cpu.max", "50000 100000\n", "", `{"cpu":{"quota":-7,"period":90000}}`, "max 90000", ""},
		{"cpu.max", "max 100000\n", "", `{"cpu":{"period":200000}}`, "max 200000", ""},
		{"cpu.max", "", "", `{"cpu":{"quota":70000}}`, "70000 100000", ""},
		{"cpu.max", "50000 100000\n", "", `{"cpu":{"quota":0,"period":0}}`, "50000 100000", ""},
		{"cpu.max.burst", "0", "", `{"cpu":{"burst":5000}}`, "5000", ""},
		{"cpu.idle", "0", "", `{"cpu":{"idle":1}}`, "1", ""},
		{"io.weight", "default 100", "", `{"blockIO":{"weight":500}}`, "default 4950", ""},
		{"io.weight", "default 100", "", `{"blockIO":{"weight":10}}`, "default 1", ""},
		{"io.weight", "default 100", "", `{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":1000}]}}`, "8:0 10000", ""},
		{"io.weight", "default 100", "", `{"blockIO":{"weight":5}}`, "default 100", "expected a weight of 10 to 1000, got 5"},
		{"io.weight", "default 100", "", `{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":1001}]}}`, "default 100", "expected a weight of 10 to 1000, got 1001"},
		{"memory.swap.max", "4096", "1048576\n", `{"memory":{"limit":-1}}`, "max", ""},
		{"rdma.max", "", "", `{"rdma":{"mlx5":{"hcaHandles":3,"hcaObjects":4}}}`, "mlx5 hca_handle=3 hca_object=4", ""},
		{"memory.swap.max", "max", "1048576\n", `{"memory":{"swap":3145728}}`, "2097152", ""},
		{"memory.swap.max", "max", "1048576\n", `{"memory":{"swap":1048576}}`, "0", ""},
		{"memory.swap.max", "max", "1048576\n", `{"memory":{"swap":-1}}`, "max", ""},
		{"memory.swap.max", "max", "1048576\n", `{"memory":{"swap":3145728,"limit":2097152}}`, "1048576", ""},
		{"memory.swap.max", "max", "1048576\n", `{"memory":{"swap":4096}}`, "max", "expected at least the limit of memory, 1048576"},
		{"memory.swap.max", "max", "max\n", `{"memory":{"swap":4096}}`, "max", "needs a limit of memory beside it"},
		{"memory.swap.max", "max", "1048576\n", `{"memory":{"swap":4096,"limit":-1}}`, "max", "needs a limit of memory beside it"},
		{"memory.max", "1048576", "1048576", `{"memory":{"limit":4096,"checkBeforeUpdate":true}}`, "1048576", "less than the 9999 bytes that are used"},
		{"memory.max", "1048576", "1048576", `{"memory":{"limit":1048577,"checkBeforeUpdate":true}}`, "1048577", ""},
		{"pids.max", "7", "", `{"memory":{"swappiness":60}}`, "7", "set memory.swappiness: this version of cgroups has no such setting"},
		{"pids.max", "7", "", `{"memory":{"disableOOMKiller":true}}`, "7", "set memory.oom_control: this version of cgroups has no such setting"},
		{"pids.max", "7", "", `{"memory":{"kernelTCP":4096}}`, "7", "set memory.kmem.tcp.limit_in_bytes: this version"},
		{"pids.max", "7", "", `{"memory":{"kernelTCP":-1}}`, "7", ""},
		{"pids.max", "7", "", `{"cpu":{"realtimeRuntime":5}}`, "7", "set cpu.rt_runtime_us: this version"},
		{"pids.max", "7", "", `{"cpu":{"realtimePeriod":5}}`, "7", "set cpu.rt_period_us: this version"},
		{"pids.max", "7", "", `{"cpu":{"idle":1}}`, "7", "set cpu.idle: this host does not have the cpu controller"},
		{"pids.max", "7", "", `{"cpu":{"burst":1}}`, "7", "set cpu.max.burst: this host does not have"},
		{"pids.max", "7", "", `{"rdma":{"a":{"hcaHandles":1}}}`, "7", "set rdma.max: this host does not have"},
		{"pids.max", "7", "", `{"network":{"classID":1}}`, "7", "set net_cls.classid: this version"},
		{"pids.max", "7", "", `{"rdma":{"a b":{"hcaHandles":1}}}`, "7", `"a b" is not a device`},
	} {
		files := map[string]string{c.file: c.now, "memory.current": "9999\n", "pids.max": "7"}
		if c.memory != "" {
			files["memory.max"] = c.memory
		}
		g, dir := fakeGroup(t, files)
		err := g.Set(resources(t, c.ask))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, expected %q", c.ask, err, c.err)
		}
		// A plain file keeps the tail of what was longer.
		if got := strings.TrimSpace(content(t, dir, c.file)); got != c.want && !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s is %q, expected %q", c.ask, c.file, got, c.want)
		}
	}
}

// setLeaf sets the resource of a path, and nothing else.
func setLeaf(v reflect.Value, path []string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		setLeaf(v.Elem(), path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		setLeaf(v.Index(0), path)
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		setLeaf(e, path)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("memory.high"), e)
	case reflect.Struct:
		for f, value := range v.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous {
				setLeaf(value, path)
			} else if len(path) > 0 && name == path[0] {
				setLeaf(value, path[1:])
			}
		}
	case reflect.String:
		v.SetString("1")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(11)
	case reflect.Int, reflect.Int64:
		v.SetInt(11)
	default:
	}
}

// Every resource that docs/reference/spec-fields.md says is honoured is a setting of some
// file, or an error: none is passed over.
func TestEveryResource(t *testing.T) {
	t.Parallel()
	const base = "linux.resources."
	// Of a list, a part alone is no setting: it is made whole by the others.
	parts := map[string]string{
		"devices.allow": "", "devices.major": "", "devices.minor": "", "devices.access": "",
		"blockIO.weightDevice.major": "", "blockIO.weightDevice.minor": "", "memory.checkBeforeUpdate": "", "unified": "",
	}
	seen := 0
	for _, f := range specfield.Fields() {
		path, ok := strings.CutPrefix(f.Path, base)
		if _, part := parts[path]; !ok || part || f.Rules[specfield.Runtime].Decision != specfield.Honoured {
			continue
		}
		seen++
		r := &specs.LinuxResources{}
		setLeaf(reflect.ValueOf(r).Elem(), strings.Split(path, "."))
		settings, err := settingsOf(r)
		if err == nil && len(settings) == 0 {
			t.Errorf("%s is passed over: %+v", f.Path, r)
		}
	}
	if seen < 35 {
		t.Errorf("%d resources, expected more", seen)
	}
}

func TestWeight(t *testing.T) {
	t.Parallel()
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 2048: 174, 512: 59, 262144: 10000, 1 << 40: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("%d shares are a weight of %d, expected %d", shares, got, want)
		}
	}
	last := uint64(0)
	for s := uint64(2); s <= 262144; s += 7 {
		if w := weight(s); w < last || w > 10000 {
			t.Fatalf("%d shares weigh %d, fewer weigh %d", s, w, last)
		} else {
			last = w
		}
	}
}

// A limit with which no sandbox could start is refused with the number; none, and
// those that clients write for none, are not.
func TestCheckPIDs(t *testing.T) {
	t.Parallel()
	for limit, ok := range map[int64]bool{-1: true, 0: true, 1: false, minPIDs - 1: false, minPIDs: true, 1 << 40: true} {
		err := CheckPIDs(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: limit}})
		if (err == nil) != ok || !ok && !strings.Contains(err.Error(), fmt.Sprintf("expected at least %d, which sentry and gofer need for themselves, got %d", minPIDs, limit)) {
			t.Errorf("%d: %v", limit, err)
		}
	}
	for _, r := range []*specs.LinuxResources{nil, {}} {
		if err := CheckPIDs(r); err != nil {
			t.Error(err)
		}
	}
}
