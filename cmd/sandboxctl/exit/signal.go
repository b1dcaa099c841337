// SPDX-License-Identifier: Apache-2.0

package exit

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// Signal is why a verb ends that somebody has sent a signal.
type Signal unix.Signal

func (s Signal) Error() string { return unix.Signal(s).String() + " signal received" }

// Interrupted gives the error of a verb that a signal has ended the exit code that shells
// have for that: 128+N.
func Interrupted(ctx context.Context, err error) error {
	s, is := errors.AsType[Signal](context.Cause(ctx))
	if !is || err == nil {
		return err
	}
	return &Error{Code: 128 + int(s), Err: err}
}
