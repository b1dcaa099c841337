// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
)

// maxPreserved is what a message to a sentry can carry, less the streams.
const maxPreserved = 125

func addPreserve(fl *pflag.FlagSet, n *int) {
	fl.IntVar(n, "preserve-fds", 0, "pass this many descriptors, from 3 on, to the process")
}

// preserved are n descriptors, from first on, that this program was started with, each
// opened anew. Whatever has another origin closes on exec: a number that the caller
// has left out may be one of our own files, which must not get into a sandbox.
func preserved(first, n int) ([]*os.File, error) {
	if n < 0 || n > maxPreserved {
		return nil, exit.Usagef("--preserve-fds: expected 0 to %d, got %d", maxPreserved, n)
	}
	for fd := first; fd < first+n; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, exit.Usagef("--preserve-fds %d: this program was started without descriptor %d", n, fd)
		}
	}
	var out []*os.File
	for fd := first; fd < first+n; fd++ {
		f := os.NewFile(uintptr(fd), fmt.Sprintf("descriptor %d", fd))
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return nil, fmt.Errorf("look at descriptor %d: %w", fd, err)
		}
		own, err := attach.Reopen(f, flags&(unix.O_ACCMODE|unix.O_APPEND))
		if err != nil {
			return nil, fmt.Errorf("--preserve-fds %d: %w", n, err)
		}
		out = append(out, own)
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("close descriptor %d: %w", fd, err)
		}
	}
	return out, nil
}
