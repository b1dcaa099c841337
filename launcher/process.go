// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

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
