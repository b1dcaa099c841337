// SPDX-License-Identifier: Apache-2.0

// Package exit holds the exit codes of sandboxctl and the errors that carry them.
// An error in how the program was called is one of these, so the checks of
// arguments that all verbs share are here too.
package exit

import "fmt"

// Exit codes. diff and exec have their own meanings; see their help.
const (
	OK      = 0
	Failure = 1
	Usage   = 2
	Timeout = 3 // of wait
)

// Error carries an exit code. A nil Err prints nothing.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Usagef is an error in how the program was called.
func Usagef(format string, args ...any) error {
	return &Error{Code: Usage, Err: fmt.Errorf(format, args...)}
}

// Code is the error that ends this program with a code, nil for 0.
func Code(code int) error {
	if code == OK {
		return nil
	}
	return &Error{Code: code}
}
