// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Limits of open files of an application that asks for none. They are those of
// a Linux system as it comes: programs that close every descriptor up to the
// soft limit stay fast, and programs that need more raise it themselves.
const (
	defaultFiles    = 1024
	defaultMaxFiles = 1 << 20
)

// inheritedRlimits are the limits that gVisor takes from its own process where
// the spec has none. That process has the daemon's, and the daemon has those of
// whatever started it: a sandbox would behave differently by the way the daemon
// was started.
var inheritedRlimits = []specs.POSIXRlimit{
	{Type: "RLIMIT_NOFILE", Soft: defaultFiles, Hard: defaultMaxFiles},
	{Type: "RLIMIT_FSIZE", Soft: math.MaxUint64, Hard: math.MaxUint64},
}

// ownTasks are processes and threads of the host that sentry and gofer need for
// themselves, of those that a sandbox may have.
const ownTasks = 128

// guestTasks is how many processes and threads each user of a guest may have that
// nobody asked a limit of processes for, 0 for any number. A process takes two
// tasks of the host. At the host's limit the sentry could not go on, and the
// sandbox would end; at this one fork fails in the guest, as on Linux.
func (st *setup) guestTasks() uint64 {
	def := st.defaults.PIDs
	if st.limits.PIDs > 0 || def == 0 {
		return 0
	}
	return uint64(def-min(ownTasks, def/2)) / 2
}

// withDefaultRlimits returns the process of a guest with a fixed value for
// every limit that it would take from the host otherwise, and with a number of
// tasks if it is not 0.
func withDefaultRlimits(p *specs.Process, tasks uint64) *specs.Process {
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

// processRlimits are the limits that sentry and gofer need, whatever started
// the daemon: both hold a descriptor for each file that their sandbox has
// open, the sentry's memory is a file and pinned, and a limit of processor
// time would end a service after that time.
var processRlimits = []struct {
	name     string
	resource int
	value    uint64
}{
	{"open files", unix.RLIMIT_NOFILE, defaultMaxFiles},
	{"locked memory", unix.RLIMIT_MEMLOCK, math.MaxUint64},
	{"file size", unix.RLIMIT_FSIZE, math.MaxUint64},
	{"address space", unix.RLIMIT_AS, math.MaxUint64},
	{"data", unix.RLIMIT_DATA, math.MaxUint64},
	{"processor time", unix.RLIMIT_CPU, math.MaxUint64},
	{"processes", unix.RLIMIT_NPROC, math.MaxUint64},
	{"pending signals", unix.RLIMIT_SIGPENDING, math.MaxUint64},
}

// raiseRlimits gives this process, and so its children, what they need, or as
// much of it as the host allows.
func raiseRlimits() error {
	for _, l := range processRlimits {
		// By package syscall: it tells the runtime that the limit of open files
		// is meant for children too.
		lim := syscall.Rlimit{Cur: l.value, Max: l.value}
		err := syscall.Setrlimit(l.resource, &lim)
		if errors.Is(err, syscall.EPERM) {
			// Without CAP_SYS_RESOURCE, or beyond fs.nr_open.
			if err = syscall.Getrlimit(l.resource, &lim); err == nil {
				lim.Cur = min(l.value, lim.Max)
				err = syscall.Setrlimit(l.resource, &lim)
			}
		}
		if err != nil {
			return fmt.Errorf("raise limit of %s: %w", l.name, err)
		}
	}
	return nil
}
