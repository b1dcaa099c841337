// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// More controllers of containers.
const (
	cpusetController  = "cpuset"
	blkioController   = "blkio"
	hugetlbController = "hugetlb"
	netClsController  = "net_cls"
	netPrioController = "net_prio"
	rdmaController    = "rdma"
)

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
	rdma, err := rdmaSettings(r.Rdma)
	return append(out, rdma...), err
}

// rdmaSettings are the limits of each device, in the order of their names.
func rdmaSettings(devices map[string]specs.LinuxRdma) ([]setting, error) {
	var out []setting
	for _, device := range slices.Sorted(maps.Keys(devices)) {
		if !validName(device) || strings.Contains(device, " ") {
			return nil, fmt.Errorf("resources.rdma: %q is not a device", device)
		}
		line := device
		if n := devices[device].HcaHandles; n != nil {
			line += fmt.Sprintf(" hca_handle=%d", *n)
		}
		if n := devices[device].HcaObjects; n != nil {
			line += fmt.Sprintf(" hca_object=%d", *n)
		}
		if line != device {
			out = append(out, setting{controller: rdmaController, v1: "rdma.max", v2: "rdma.max", value1: line, value2: line})
		}
	}
	return out, nil
}

// MinPIDs is the least limit of processes with which a sandbox can start: its
// sentry and gofer have this many threads, before the first of its application.
const MinPIDs = 32

// CheckPIDs refuses a limit with which no sandbox starts, or a running one could
// end at any moment.
func CheckPIDs(r *specs.LinuxResources) error {
	if r == nil || r.Pids == nil || r.Pids.Limit <= 0 || r.Pids.Limit >= MinPIDs {
		return nil
	}
	return fmt.Errorf("linux.resources.pids.limit: expected at least %d, which sentry and gofer need for themselves, got %d", MinPIDs, r.Pids.Limit)
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
		out = append(out, setting{controller: memoryController, v1: v1, v2: v2, value1: strconv.FormatInt(n1, 10), value2: value2, optional: optional})
	}
	limit := int64(0)
	if m.Limit != nil && *m.Limit != 0 {
		limit = *m.Limit
		add("memory.limit_in_bytes", "memory.max", limit, limitText(limit), false)
	}
	if m.Swap != nil && *m.Swap != 0 {
		s, err := swapSetting(*m.Swap, limit)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		add("memory.soft_limit_in_bytes", "memory.low", *m.Reservation, limitText(*m.Reservation), false)
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		// No limit is what a group has without.
		add("memory.kmem.tcp.limit_in_bytes", "", *m.KernelTCP, "", *m.KernelTCP < 0)
	}
	if m.Swappiness != nil {
		out = append(out, setting{controller: memoryController, v1: "memory.swappiness", value1: strconv.FormatUint(*m.Swappiness, 10)})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		out = append(out, setting{controller: memoryController, v1: "memory.oom_control", value1: "1"})
	}
	return out, nil
}

// swapSetting is the limit of memory and swap together, as v1 has it. v2 limits
// swap alone: what is left of it beside the limit of memory, the new one or else
// the one in force.
func swapSetting(swap, limit int64) (setting, error) {
	s := setting{
		controller: memoryController, v1: "memory.memsw.limit_in_bytes", v2: "memory.swap.max",
		value1: strconv.FormatInt(swap, 10), value2: "max", optional: swap < 0,
	}
	if swap < 0 {
		return s, nil
	}
	if limit != 0 {
		value, err := swapBeside(swap, limit)
		s.value2 = value
		return s, err
	}
	s.from = func(d *dir) (string, error) {
		now, err := readFile(d.fd(), "memory.max")
		if err != nil {
			return "", fmt.Errorf("resources.memory.swap: %w", err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(now), 10, 64)
		if err != nil {
			n = -1 // "max"
		}
		return swapBeside(swap, n)
	}
	return s, nil
}

func swapBeside(swap, limit int64) (string, error) {
	switch {
	case limit < 0:
		return "", fmt.Errorf("resources.memory.swap: %d is memory and swap together, which needs a limit of memory beside it", swap)
	case swap < limit:
		return "", fmt.Errorf("resources.memory.swap: %d is memory and swap together, expected at least the limit of memory, %d", swap, limit)
	}
	return strconv.FormatInt(swap-limit, 10), nil
}

func cpuSettings(c *specs.LinuxCPU) []setting {
	var out []setting
	add := func(controller, v1, v2, value string) {
		out = append(out, setting{controller: controller, v1: v1, v2: v2, value1: value, value2: value})
	}
	if c.Shares != nil && *c.Shares != 0 {
		out = append(out, setting{
			controller: cpuController, v1: "cpu.shares", v2: "cpu.weight",
			value1: strconv.FormatUint(*c.Shares, 10), value2: strconv.FormatUint(weight(*c.Shares), 10),
		})
	}
	out = append(out, bandwidthSettings(c)...)
	if c.Burst != nil {
		add(cpuController, "cpu.cfs_burst_us", "cpu.max.burst", strconv.FormatUint(*c.Burst, 10))
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		add(cpuController, "cpu.rt_period_us", "", strconv.FormatUint(*c.RealtimePeriod, 10))
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		add(cpuController, "cpu.rt_runtime_us", "", strconv.FormatInt(*c.RealtimeRuntime, 10))
	}
	if c.Cpus != "" {
		add(cpusetController, "cpuset.cpus", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		add(cpusetController, "cpuset.mems", "cpuset.mems", c.Mems)
	}
	if c.Idle != nil {
		add(cpuController, "cpu.idle", "cpu.idle", strconv.FormatInt(*c.Idle, 10))
	}
	return out
}

// bandwidthSettings are those of a quota and its period. One that is not given
// stays as it is: v1 has a file for each, v2 one for both.
func bandwidthSettings(c *specs.LinuxCPU) []setting {
	quota, period := "", ""
	if c.Quota != nil && *c.Quota != 0 {
		quota = strconv.FormatInt(max(*c.Quota, -1), 10)
	}
	if c.Period != nil && *c.Period != 0 {
		period = strconv.FormatUint(*c.Period, 10)
	}
	both := setting{controller: cpuController, v2: "cpu.max"}
	both.from = func(d *dir) (string, error) {
		now, err := readFile(d.fd(), "cpu.max")
		if err != nil {
			return "", fmt.Errorf("resources.cpu: %w", err)
		}
		f := []string{"max", strconv.Itoa(cpuPeriod)}
		copy(f, strings.Fields(now))
		if quota != "" {
			f[0] = quota
		}
		if quota == "-1" {
			f[0] = "max"
		}
		if period != "" {
			f[1] = period
		}
		return f[0] + " " + f[1], nil
	}
	var out []setting
	for _, s := range []struct{ file, value string }{{"cpu.cfs_period_us", period}, {"cpu.cfs_quota_us", quota}} {
		if s.value == "" {
			continue
		}
		one := both
		one.v1, one.value1 = s.file, s.value
		out = append(out, one)
	}
	return out
}

// weight is cgroup2's for v1's shares: 2, 1024 and 262144, the least, the default
// and the most, become 1, 100 and 10000, and what is between them lies on a curve
// through these. Runtimes agree on it.
func weight(shares uint64) uint64 {
	l := math.Log2(float64(min(max(shares, 2), 262144)))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func blockSettings(b *specs.LinuxBlockIO) []setting {
	var out []setting
	if b.Weight != nil && *b.Weight != 0 {
		n := strconv.FormatUint(uint64(*b.Weight), 10)
		out = append(out, setting{controller: blkioController, v1: "blkio.weight", v2: "io.weight", value1: n, value2: "default " + n})
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		out = append(out, setting{controller: blkioController, v1: "blkio.leaf_weight", value1: strconv.FormatUint(uint64(*b.LeafWeight), 10)})
	}
	for _, w := range b.WeightDevice {
		dev := fmt.Sprintf("%d:%d ", w.Major, w.Minor)
		if w.Weight != nil && *w.Weight != 0 {
			v := dev + strconv.FormatUint(uint64(*w.Weight), 10)
			out = append(out, setting{controller: blkioController, v1: "blkio.weight_device", v2: "io.weight", value1: v, value2: v})
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
				controller: blkioController, v1: t.file, v2: "io.max",
				value1: fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), value2: fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, t.key, d.Rate),
			})
		}
	}
	return out
}

// Limits are the limits in force, as far as they are known: 0 is none.
func (g *Group) Limits() (memory, pids int64) {
	read := func(controller, v1, v2 string) int64 {
		// "max", and v1's huge number, are none.
		if n, ok := g.read(controller, v1, v2); ok && n < 1<<62 {
			return n
		}
		return 0
	}
	return read(memoryController, "memory.limit_in_bytes", "memory.max"), read(pidsController, "pids.max", "pids.max")
}
