// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// pollSlice is how long a poll may keep ctx from being seen.
const pollSlice = 100 // ms

// Poll blocks until one of the descriptors is ready or ctx is done.
func Poll(ctx context.Context, fds []unix.PollFd) error {
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := unix.Poll(fds, pollSlice)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("poll: %w", err)
		}
	}
}
