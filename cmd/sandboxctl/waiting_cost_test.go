// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/launcher/warm"
)

// TestWaitingCost bounds what eight pairs of processes that wait for a sandbox take: memory,
// and processor time of the daemon and of all of them. `make waiting` looks for 30 s; here it
// is shorter.
func TestWaitingCost(t *testing.T) {
	requireHost(t)
	const pairs = 8
	idle := 3 * time.Second
	if v := os.Getenv("SANDBOXCTL_WAITING"); v != "" {
		var err error
		idle, err = time.ParseDuration(v)
		must(t, err)
	}
	h := daemonHost(t)
	h.must(os.WriteFile(filepath.Join(h.work, "policy.yaml"), fmt.Appendf(nil, "%swarm: %d\n", policyFor(h.work), pairs), 0o644))
	h.until("they wait", func() bool { return waits(h.state) == pairs })
	// What the preparation of the last one has left to do.
	time.Sleep(time.Second)
	dir, err := os.Open(h.state)
	must(t, err)
	defer dir.Close()
	ids, err := warm.Read(dir)
	must(t, err)
	var all []int
	for _, id := range ids {
		all = append(all, family(t, id.PID)...)
	}
	if len(ids) != 2*pairs {
		t.Fatalf("%d are on record", len(ids))
	}
	memory := 0
	for _, pid := range all {
		memory += pss(t, pid)
	}
	each := float64(memory) / pairs / 1024
	before := cpu(t, h.daemon.Process.Pid)
	waited := cpuOf(t, all)
	time.Sleep(idle)
	daemon, waited := cpu(t, h.daemon.Process.Pid)-before, cpuOf(t, all)-waited
	t.Logf("%d pairs: %.2f MiB of PSS each; in %s the daemon took %s of processor time, and the processes that wait %s", pairs, each, idle, daemon, waited)
	if each > 6 {
		t.Errorf("a pair takes %.2f MiB, expected at most 6", each)
	}
	if daemon > 3*time.Millisecond || waited > 3*time.Millisecond {
		t.Errorf("in %s the daemon took %s of processor time and the processes that wait %s, expected at most 3 ms", idle, daemon, waited)
	}
}

func cpuOf(t *testing.T, pids []int) (sum time.Duration) {
	t.Helper()
	for _, pid := range pids {
		sum += cpu(t, pid)
	}
	return sum
}

// pss is the memory of a process in KiB, of what it shares its part.
func pss(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			n, err := strconv.Atoi(f[1])
			must(t, err)
			return n
		}
	}
	t.Fatalf("no PSS of %d:\n%s", pid, b)
	return 0
}
