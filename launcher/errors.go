// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
)

// Errors of this package that callers tell apart.
var (
	// ErrNotRunning: the sandbox has no live sentry to talk to.
	ErrNotRunning = errors.New("sandbox is not running")
	// ErrUnknownProcess: a recorded process is neither proven alive nor proven
	// dead. It is not signalled and its sandbox not removed.
	ErrUnknownProcess = errors.New("state of a recorded process is unknown")
	// ErrStuck: a process outlived SIGKILL for longer than the deadline.
	ErrStuck = errors.New("process does not die")
)

// terminalError is an error that trying the same spec again can't cure.
type terminalError struct{ err error }

func (e *terminalError) Error() string { return e.err.Error() }
func (e *terminalError) Unwrap() error { return e.err }

// Terminal tells the reconcile loop not to retry before the spec changes.
func (e *terminalError) Terminal() bool { return true }

func terminalf(format string, args ...any) error {
	return &terminalError{fmt.Errorf(format, args...)}
}
