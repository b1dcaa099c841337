// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// killGroup kills the process group that a child of this process leads. The child
// must not have been waited for: it is a zombie at least, so that neither its number
// nor that of the group can be another one's. A pidfd can stand for its group since
// Linux 6.9 only; before, what a hook has started would survive it.
func killGroup(leader int) error {
	if leader <= 1 {
		return fmt.Errorf("%d leads no group of a child", leader) // -1 is every process
	}
	if err := unix.Kill(-leader, unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
