// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"cmp"
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

// settings are what is asked for. An empty value is not asked for, and an empty name is
// that of a file which the version does not have.
type settings []setting

func (s *settings) add(controller, v1, v2, value string) { s.addPair(controller, v1, v2, value, value) }

func (s *settings) addPair(controller, v1, v2, value1, value2 string) {
	if value1 != "" {
		*s = append(*s, setting{controller: controller, v1: v1, v2: v2, value1: value1, value2: value2})
	}
}

type number interface {
	int64 | uint64 | uint32 | uint16
}

// given is a number as text, "" if there is none.
func given[N number](n *N) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

// nonZero is given where 0 is no number either.
func nonZero[N number](n *N) string {
	if n == nil || *n == 0 {
		return ""
	}
	return fmt.Sprint(*n)
}

// after is a text with a prefix, "" if there is no text.
func after(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func settingsOf(r *specs.LinuxResources) (s settings, err error) {
	if err := s.memory(cmp.Or(r.Memory, &specs.LinuxMemory{})); err != nil {
		return nil, err
	}
	s.cpu(cmp.Or(r.CPU, &specs.LinuxCPU{}))
	if p := r.Pids; p != nil && p.Limit != 0 {
		s.add(pidsController, "pids.max", "pids.max", limitText(p.Limit))
	}
	if err := s.block(cmp.Or(r.BlockIO, &specs.LinuxBlockIO{})); err != nil {
		return nil, err
	}
	for _, l := range r.HugepageLimits {
		if !validName(l.Pagesize) {
			return nil, fmt.Errorf("resources.hugepageLimits: %q is not a page size", l.Pagesize)
		}
		s.add(hugetlbController, "hugetlb."+l.Pagesize+".limit_in_bytes", "hugetlb."+l.Pagesize+".max", given(&l.Limit))
	}
	if n := r.Network; n != nil {
		s.add(netClsController, "net_cls.classid", "", given(n.ClassID))
		for _, p := range n.Priorities {
			s.add(netPrioController, "net_prio.ifpriomap", "", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	if err := s.rdma(r.Rdma); err != nil {
		return nil, err
	}
	// Last, as nobody can take them back when something else can't be had.
	devices, err := deviceSettings(r.Devices)
	return append(s, devices...), err
}

// rdma adds the limits of each device, in the order of their names.
func (s *settings) rdma(devices map[string]specs.LinuxRdma) error {
	for _, device := range slices.Sorted(maps.Keys(devices)) {
		if !validName(device) || strings.Contains(device, " ") {
			return fmt.Errorf("resources.rdma: %q is not a device", device)
		}
		limits := after(" hca_handle=", given(devices[device].HcaHandles)) + after(" hca_object=", given(devices[device].HcaObjects))
		s.add(rdmaController, "rdma.max", "rdma.max", after(device, limits))
	}
	return nil
}

// minPIDs is the least limit of processes with which a sandbox can start: its
// sentry and gofer have this many threads, before the first of its application.
const minPIDs = 32

// CheckPIDs refuses a limit with which no sandbox starts, or a running one could
// end at any moment.
func CheckPIDs(r *specs.LinuxResources) error {
	if r == nil || r.Pids == nil || r.Pids.Limit <= 0 || r.Pids.Limit >= minPIDs {
		return nil
	}
	return fmt.Errorf("linux.resources.pids.limit: expected at least %d, which sentry and gofer need for themselves, got %d", minPIDs, r.Pids.Limit)
}

// limitText is a limit in cgroup2's words, and v1's for pids: not positive is
// none.
func limitText(n int64) string {
	if n <= 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func (s *settings) memory(m *specs.LinuxMemory) error {
	limit := int64(0)
	if m.Limit != nil {
		limit = *m.Limit
	}
	s.addPair(memoryController, "memory.limit_in_bytes", "memory.max", nonZero(m.Limit), limitText(limit))
	asked := m.Swap
	if limit < 0 && nonZero(asked) == "" {
		// A limit of both together that was there before would be less than that of
		// memory. runc lifts it too.
		asked = &limit
	}
	if nonZero(asked) != "" {
		swap, err := swapSetting(*asked, limit)
		if err != nil {
			return err
		}
		*s = append(*s, swap)
	}
	if m.Reservation != nil {
		s.addPair(memoryController, "memory.soft_limit_in_bytes", "memory.low", nonZero(m.Reservation), limitText(*m.Reservation))
	}
	if n := nonZero(m.KernelTCP); n != "" {
		// No limit is what a group has without.
		*s = append(*s, setting{controller: memoryController, v1: "memory.kmem.tcp.limit_in_bytes", value1: n, optional: *m.KernelTCP < 0})
	}
	s.add(memoryController, "memory.swappiness", "", given(m.Swappiness))
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		s.add(memoryController, "memory.oom_control", "", "1")
	}
	return nil
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

func (s *settings) cpu(c *specs.LinuxCPU) {
	if c.Shares != nil {
		s.addPair(cpuController, "cpu.shares", "cpu.weight", nonZero(c.Shares), fmt.Sprint(weight(*c.Shares)))
	}
	s.bandwidth(c)
	s.add(cpuController, "cpu.cfs_burst_us", "cpu.max.burst", given(c.Burst))
	s.add(cpuController, "cpu.rt_period_us", "", nonZero(c.RealtimePeriod))
	s.add(cpuController, "cpu.rt_runtime_us", "", nonZero(c.RealtimeRuntime))
	s.add(cpusetController, "cpuset.cpus", "cpuset.cpus", c.Cpus)
	s.add(cpusetController, "cpuset.mems", "cpuset.mems", c.Mems)
	s.add(cpuController, "cpu.idle", "cpu.idle", given(c.Idle))
}

// bandwidth adds a quota and its period. One that is not given stays as it is: v1 has a
// file for each, v2 one for both.
func (s *settings) bandwidth(c *specs.LinuxCPU) {
	quota, period := nonZero(c.Quota), nonZero(c.Period)
	quota2 := quota
	if strings.HasPrefix(quota, "-") {
		quota, quota2 = "-1", "max"
	}
	both := func(d *dir) (string, error) {
		now, err := readFile(d.fd(), "cpu.max")
		if err != nil {
			return "", fmt.Errorf("resources.cpu: %w", err)
		}
		f := []string{"max", strconv.Itoa(cpuPeriod)}
		copy(f, strings.Fields(now))
		return cmp.Or(quota2, f[0]) + " " + cmp.Or(period, f[1]), nil
	}
	for _, v1 := range []struct{ file, value string }{{"cpu.cfs_period_us", period}, {"cpu.cfs_quota_us", quota}} {
		if v1.value != "" {
			*s = append(*s, setting{controller: cpuController, v1: v1.file, value1: v1.value, v2: "cpu.max", from: both})
		}
	}
}

// weight is cgroup2's for v1's shares: 2, 1024 and 262144, the least, the default
// and the most, become 1, 100 and 10000, and what is between them lies on a curve
// through these. Runtimes agree on it.
func weight(shares uint64) uint64 {
	l := math.Log2(float64(min(max(shares, 2), 262144)))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// blockWeight is cgroup2's for a weight of v1: 10 to 1000 become 1 to 10000. Runtimes
// agree on it.
func blockWeight(w *uint16) (v1, v2 string, err error) {
	if w == nil || *w == 0 {
		return "", "", nil
	}
	if *w < 10 || *w > 1000 {
		return "", "", fmt.Errorf("resources.blockIO: expected a weight of 10 to 1000, got %d", *w)
	}
	return fmt.Sprint(*w), fmt.Sprint(1 + (int(*w)-10)*9999/990), nil
}

func (s *settings) block(b *specs.LinuxBlockIO) error {
	v1, v2, err := blockWeight(b.Weight)
	if err != nil {
		return err
	}
	s.addPair(blkioController, "blkio.weight", "io.weight", v1, "default "+v2)
	s.add(blkioController, "blkio.leaf_weight", "", nonZero(b.LeafWeight))
	for _, w := range b.WeightDevice {
		dev := fmt.Sprintf("%d:%d ", w.Major, w.Minor)
		v1, v2, err := blockWeight(w.Weight)
		if err != nil {
			return err
		}
		s.addPair(blkioController, "blkio.weight_device", "io.weight", after(dev, v1), dev+v2)
		s.add(blkioController, "blkio.leaf_weight_device", "", after(dev, nonZero(w.LeafWeight)))
	}
	throttle := func(file, key string, devices []specs.LinuxThrottleDevice) {
		for _, d := range devices {
			dev := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
			s.addPair(blkioController, "blkio.throttle."+file, "io.max", dev+fmt.Sprint(d.Rate), dev+key+"="+fmt.Sprint(d.Rate))
		}
	}
	throttle("read_bps_device", "rbps", b.ThrottleReadBpsDevice)
	throttle("write_bps_device", "wbps", b.ThrottleWriteBpsDevice)
	throttle("read_iops_device", "riops", b.ThrottleReadIOPSDevice)
	throttle("write_iops_device", "wiops", b.ThrottleWriteIOPSDevice)
	return nil
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
