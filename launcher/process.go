// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// wantFiles is the limit of open files gVisor recommends: sentry and gofer
// hold one for each file their sandbox has open.
const wantFiles = 1 << 20

// PrepareProcess makes this program fit to start sandboxes: whatever it
// inherited from its own parent is closed to its children, and they may open
// enough files. Call it once, early in the daemon.
func PrepareProcess() error {
	// A shell or service manager may have left descriptors open without
	// close-on-exec; none of them is for a sandbox.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited descriptors to children: %w", err)
	}
	lim := syscall.Rlimit{Cur: wantFiles, Max: wantFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		if !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("raise limit of open files: %w", err)
		}
		// Beyond fs.nr_open or not root: as many as there are.
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
			return fmt.Errorf("get limit of open files: %w", err)
		}
		lim.Cur = lim.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
			return fmt.Errorf("raise limit of open files: %w", err)
		}
	}
	// gVisor's sentry pins memory it shares with its stubs.
	mem := syscall.Rlimit{Cur: math.MaxUint64, Max: math.MaxUint64}
	if err := syscall.Setrlimit(unix.RLIMIT_MEMLOCK, &mem); err != nil && !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("raise limit of locked memory: %w", err)
	}
	return nil
}
