// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"math"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Limits of open files of an application that asks for none. They are those of
// a Linux system as it comes: programs that close every descriptor up to the
// soft limit stay fast, and programs that need more raise it themselves.
const (
	defaultFiles    = 1024
	DefaultMaxFiles = 1 << 20
)

// inheritedRlimits are the limits that gVisor takes from its own process where
// the spec has none. That process has the daemon's, and the daemon has those of
// whatever started it: a sandbox would behave differently by the way the daemon
// was started.
var inheritedRlimits = []specs.POSIXRlimit{
	{Type: "RLIMIT_NOFILE", Soft: defaultFiles, Hard: DefaultMaxFiles},
	{Type: "RLIMIT_FSIZE", Soft: math.MaxUint64, Hard: math.MaxUint64},
}

// ownTasks are processes and threads of the host that sentry and gofer need for
// themselves, of those that a sandbox may have.
const ownTasks = 128

// GuestTasks is how many processes and threads each user of a guest may have that
// nobody asked a limit of processes for, 0 for any number. A process takes two
// tasks of the host. At the host's limit the sentry could not go on, and the
// sandbox would end; at this one fork fails in the guest, as on Linux.
func (st *Setup) GuestTasks() uint64 {
	def := st.Defaults.PIDs
	if st.Limits.PIDs > 0 || def == 0 {
		return 0
	}
	return uint64(def-min(ownTasks, def/2)) / 2
}

// WithDefaultRlimits returns the process of a guest with a fixed value for
// every limit that it would take from the host otherwise, and with a number of
// tasks if it is not 0.
func WithDefaultRlimits(p *specs.Process, tasks uint64) *specs.Process {
	out := *p
	out.Rlimits = slices.Clone(p.Rlimits)
	defaults := inheritedRlimits
	if tasks > 0 {
		defaults = append(slices.Clip(defaults), specs.POSIXRlimit{Type: "RLIMIT_NPROC", Soft: tasks, Hard: tasks})
	}
	for _, def := range defaults {
		if !slices.ContainsFunc(p.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == def.Type }) {
			out.Rlimits = append(out.Rlimits, def)
		}
	}
	return &out
}

func rlimitName(n string) string {
	return "RLIMIT_" + strings.TrimPrefix(strings.ToUpper(n), "RLIMIT_")
}
