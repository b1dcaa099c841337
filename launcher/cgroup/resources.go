// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// More controllers of containers.
const (
	cpusetController  = "cpuset"
	blkioController   = "blkio"
	hugetlbController = "hugetlb"
	netClsController  = "net_cls"
	netPrioController = "net_prio"
)

// setting is one control file to write.
type setting struct {
	controller string // by its v1 name
	v1, v2     string // files; "" where the hierarchy has no such thing
	value1     string
	value2     string
	// optional files may be missing in a kernel.
	optional bool
}

// Set sets the resources of a container. What is asked for and can't be had
// is an error that names it, but for rules of devices without cgroup v1.
func (h *Host) Set(g *Group, r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	settings, err := settingsOf(r)
	if err != nil {
		return err
	}
	var again []setting
	for _, s := range settings {
		err := g.set(h, &s)
		if errors.Is(err, unix.EINVAL) && s.controller == memoryController {
			// v1's limit of memory must not exceed that with swap, also while both
			// are raised.
			again = append(again, s)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, s := range again {
		if err := g.set(h, &s); err != nil {
			return err
		}
	}
	return g.unified(r.Unified)
}

func (g *Group) set(h *Host, s *setting) error {
	d, file, value := g.of(h, s.controller), s.v1, s.value1
	if d == nil {
		if d = g.dir(""); d != nil {
			file, value = s.v2, s.value2
		}
	}
	if d == nil || file == "" {
		if s.optional {
			return nil
		}
		return fmt.Errorf("set %s: this host has no cgroup hierarchy for it", s.v1)
	}
	err := d.set(file, value)
	if errors.Is(err, os.ErrNotExist) {
		if s.optional {
			return nil
		}
		return fmt.Errorf("set %s: this host does not have the %s controller, or not in %s: %w", file, s.controller, d.path, err)
	}
	return err
}

// of returns the directory of a v1 controller, which may share one with others.
func (g *Group) of(h *Host, controller string) *dir {
	mount, ok := h.hierarchies[controller]
	if !ok {
		return nil
	}
	for _, d := range g.dirs {
		if strings.HasPrefix(d.path, mount+"/") && d.controller != "" {
			return d
		}
	}
	return nil
}

// unified sets cgroup2's files by name.
func (g *Group) unified(values map[string]string) error {
	if len(values) == 0 {
		return nil
	}
	d := g.dir("")
	if d == nil {
		return errors.New("set resources.unified: this host has no cgroup2 hierarchy")
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !validName(name) || strings.HasPrefix(name, "cgroup.") {
			return fmt.Errorf("set resources.unified: %q is not a file of a controller", name)
		}
		if err := d.set(name, values[name]); err != nil {
			return err
		}
	}
	return nil
}

func settingsOf(r *specs.LinuxResources) ([]setting, error) {
	out, err := deviceSettings(r.Devices)
	if err != nil {
		return nil, err
	}
	both := func(controller, v1, v2, value string) {
		out = append(out, setting{controller: controller, v1: v1, v2: v2, value1: value, value2: value})
	}
	if m := r.Memory; m != nil {
		s, err := memorySettings(m)
		if err != nil {
			return nil, err
		}
		out = append(out, s...)
	}
	if c := r.CPU; c != nil {
		out = append(out, cpuSettings(c)...)
	}
	if p := r.Pids; p != nil && p.Limit != 0 {
		both(pidsController, "pids.max", "pids.max", limitText(p.Limit))
	}
	if b := r.BlockIO; b != nil {
		out = append(out, blockSettings(b)...)
	}
	for _, l := range r.HugepageLimits {
		if !validName(l.Pagesize) {
			return nil, fmt.Errorf("resources.hugepageLimits: %q is not a page size", l.Pagesize)
		}
		both(hugetlbController, "hugetlb."+l.Pagesize+".limit_in_bytes", "hugetlb."+l.Pagesize+".max", strconv.FormatUint(l.Limit, 10))
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			both(netClsController, "net_cls.classid", "", strconv.FormatUint(uint64(*n.ClassID), 10))
		}
		for _, p := range n.Priorities {
			both(netPrioController, "net_prio.ifpriomap", "", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	return out, nil
}

// limitText is a limit in cgroup2's words, and v1's for pids: not positive is
// none.
func limitText(n int64) string {
	if n <= 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func memorySettings(m *specs.LinuxMemory) ([]setting, error) {
	var out []setting
	add := func(v1, v2 string, n1 int64, value2 string, optional bool) {
		out = append(out, setting{memoryController, v1, v2, strconv.FormatInt(n1, 10), value2, optional})
	}
	limit := int64(0)
	if m.Limit != nil && *m.Limit != 0 {
		limit = *m.Limit
		add("memory.limit_in_bytes", "memory.max", limit, limitText(limit), false)
	}
	if m.Swap != nil && *m.Swap != 0 {
		// In v1 it is memory and swap together.
		swap := *m.Swap
		value2 := "max"
		if swap > 0 {
			if limit <= 0 || swap < limit {
				return nil, fmt.Errorf("resources.memory.swap: %d is memory and swap together, expected at least the limit, %d", swap, limit)
			}
			value2 = strconv.FormatInt(swap-limit, 10)
		}
		add("memory.memsw.limit_in_bytes", "memory.swap.max", swap, value2, swap < 0)
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		add("memory.soft_limit_in_bytes", "memory.low", *m.Reservation, limitText(*m.Reservation), false)
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		add("memory.kmem.tcp.limit_in_bytes", "", *m.KernelTCP, "", true)
	}
	if m.Swappiness != nil {
		out = append(out, setting{memoryController, "memory.swappiness", "", strconv.FormatUint(*m.Swappiness, 10), "", true})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		out = append(out, setting{memoryController, "memory.oom_control", "", "1", "", true})
	}
	return out, nil
}

func cpuSettings(c *specs.LinuxCPU) []setting {
	var out []setting
	if c.Shares != nil && *c.Shares != 0 {
		n := *c.Shares
		out = append(out, setting{cpuController, "cpu.shares", "cpu.weight", strconv.FormatUint(n, 10), strconv.FormatUint(weight(n), 10), false})
	}
	period := uint64(cpuPeriod)
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
		out = append(out, setting{controller: cpuController, v1: "cpu.cfs_period_us", value1: strconv.FormatUint(period, 10), optional: true})
	}
	if c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period != 0 {
		quota, max := int64(-1), "max"
		if c.Quota != nil && *c.Quota > 0 {
			quota, max = *c.Quota, strconv.FormatInt(*c.Quota, 10)
		}
		out = append(out, setting{
			cpuController, "cpu.cfs_quota_us", "cpu.max", strconv.FormatInt(quota, 10), max + " " + strconv.FormatUint(period, 10), false,
		})
	}
	if c.Burst != nil {
		n := strconv.FormatUint(*c.Burst, 10)
		out = append(out, setting{cpuController, "cpu.cfs_burst_us", "cpu.max.burst", n, n, false})
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		out = append(out, setting{controller: cpuController, v1: "cpu.rt_period_us", value1: strconv.FormatUint(*c.RealtimePeriod, 10)})
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		out = append(out, setting{controller: cpuController, v1: "cpu.rt_runtime_us", value1: strconv.FormatInt(*c.RealtimeRuntime, 10)})
	}
	if c.Cpus != "" {
		out = append(out, setting{cpusetController, "cpuset.cpus", "cpuset.cpus", c.Cpus, c.Cpus, false})
	}
	if c.Mems != "" {
		out = append(out, setting{cpusetController, "cpuset.mems", "cpuset.mems", c.Mems, c.Mems, false})
	}
	return out
}

// weight is cgroup2's for v1's shares, as the kernel's developers convert it:
// 2 to 262144 become 1 to 10000.
func weight(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

func blockSettings(b *specs.LinuxBlockIO) []setting {
	var out []setting
	if b.Weight != nil && *b.Weight != 0 {
		n := strconv.FormatUint(uint64(*b.Weight), 10)
		out = append(out, setting{blkioController, "blkio.weight", "io.weight", n, "default " + n, false})
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		out = append(out, setting{controller: blkioController, v1: "blkio.leaf_weight", value1: strconv.FormatUint(uint64(*b.LeafWeight), 10)})
	}
	for _, w := range b.WeightDevice {
		dev := fmt.Sprintf("%d:%d ", w.Major, w.Minor)
		if w.Weight != nil && *w.Weight != 0 {
			v := dev + strconv.FormatUint(uint64(*w.Weight), 10)
			out = append(out, setting{blkioController, "blkio.weight_device", "io.weight", v, v, false})
		}
		if w.LeafWeight != nil && *w.LeafWeight != 0 {
			out = append(out, setting{controller: blkioController, v1: "blkio.leaf_weight_device", value1: dev + strconv.FormatUint(uint64(*w.LeafWeight), 10)})
		}
	}
	for _, t := range []struct {
		file, key string
		devices   []specs.LinuxThrottleDevice
	}{
		{"blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.devices {
			out = append(out, setting{
				blkioController, t.file, "io.max",
				fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, t.key, d.Rate), false,
			})
		}
	}
	return out
}

// Limits are the limits in force, as far as they are known: 0 is none.
func (g *Group) Limits() (memory, pids int64) {
	read := func(controller, v1, v2 string) int64 {
		d := g.holder(controller)
		if d == nil {
			return 0
		}
		file := v1
		if d.controller == "" {
			file = v2
		}
		// "max", and v1's huge number, are none.
		if n, err := readInt(d.fd(), file); err == nil && n < 1<<62 {
			return n
		}
		return 0
	}
	return read(memoryController, "memory.limit_in_bytes", "memory.max"), read(pidsController, "pids.max", "pids.max")
}
