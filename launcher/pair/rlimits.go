// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/setup"
)

// processRlimits are the limits that sentry and gofer need, whatever started
// the daemon: both hold a descriptor for each file that their sandbox has
// open, the sentry's memory is a file and pinned, and a limit of processor
// time would end a service after that time.
var processRlimits = []struct {
	name     string
	resource int
	value    uint64
}{
	{"open files", unix.RLIMIT_NOFILE, setup.DefaultMaxFiles},
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

// PrepareProcess makes this program fit to start sandboxes: descriptors that it
// inherited from its own parent are closed to its children, and resource limits
// that it inherited do not become theirs. Call it once, early in the daemon.
func PrepareProcess() error {
	// A shell or service manager may have left descriptors open without
	// close-on-exec; none of them is for a sandbox.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited descriptors to children: %w", err)
	}
	return raiseRlimits()
}
