// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/cgroup"
)

// What a guest may is the spec's, and fixed where the spec says nothing: no
// limit is left for gVisor to take from its own process.
func TestDefaultRlimits(t *testing.T) {
	t.Parallel()
	const files, size = "{RLIMIT_NOFILE 1048576 1024}", "{RLIMIT_FSIZE 18446744073709551615 18446744073709551615}"
	for name, c := range map[string]struct {
		in   []specs.POSIXRlimit
		want string
	}{
		"none":         {nil, "[" + files + " " + size + "]"},
		"its own":      {[]specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 7, Hard: 8}}, "[{RLIMIT_NOFILE 8 7} " + size + "]"},
		"another":      {[]specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 1, Hard: 2}}, "[{RLIMIT_CPU 2 1} " + files + " " + size + "]"},
		"both":         {[]specs.POSIXRlimit{{Type: "RLIMIT_FSIZE"}, {Type: "RLIMIT_NOFILE"}}, "[{RLIMIT_FSIZE 0 0} {RLIMIT_NOFILE 0 0}]"},
		"its own size": {[]specs.POSIXRlimit{{Type: "RLIMIT_FSIZE", Soft: 1, Hard: 1}}, "[{RLIMIT_FSIZE 1 1} " + files + "]"},
	} {
		p := &specs.Process{Rlimits: c.in}
		if got := fmt.Sprint(WithDefaultRlimits(p, 0).Rlimits); got != c.want {
			t.Errorf("%s: %s, expected %s", name, got, c.want)
		}
		if len(p.Rlimits) != len(c.in) {
			t.Errorf("%s: the process itself was changed: %v", name, p.Rlimits)
		}
	}
}

// A guest that nobody limited can't take so many tasks that its sentry has none
// left; one whose author chose a limit has what the author chose.
func TestGuestTasks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ asked, def, want int64 }{{0, 0, 0}, {0, 2048, 960}, {0, 64, 16}, {0, 200, 50}, {0, 8192, 4032}, {100, 2048, 0}, {100, 0, 0}} {
		st := &Setup{Limits: cgroup.Limits{PIDs: c.asked}, Defaults: cgroup.Limits{PIDs: c.def}, Containers: []Container{{}}}
		if got := st.GuestTasks(); got != uint64(c.want) {
			t.Errorf("%d asked, %d by default: %d, expected %d", c.asked, c.def, got, c.want)
		}
	}
	p := &specs.Process{}
	if got := WithDefaultRlimits(p, 7).Rlimits; len(got) != 3 || got[2] != (specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: 7, Hard: 7}) {
		t.Errorf("%v", got)
	}
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 1, Hard: 2}}
	if got := WithDefaultRlimits(p, 7).Rlimits; len(got) != 3 || got[0].Hard != 2 {
		t.Errorf("its own limit was replaced: %v", got)
	}
}
