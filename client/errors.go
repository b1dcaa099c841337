// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"

	"sandboxctl.dev/client/protocol"
)

// Kinds of errors. An error of the daemon says more than its kind: it is an *Error.
var (
	// ErrDenied: this process may not use the socket.
	ErrDenied = errors.New("not allowed to use the socket")
	// ErrRefused: the host policy does not allow what was asked for, or it makes no sense. Trying
	// again can't help.
	ErrRefused = errors.New("refused")
	// ErrBusy: too many requests are under way. Trying again later may help.
	ErrBusy = errors.New("too many requests")
	// ErrNotFound: there is no sandbox of the name that this process may know of.
	ErrNotFound = errors.New("no such sandbox")
	// ErrStart: the sandbox can't be started.
	ErrStart = errors.New("the sandbox can't be started")
	// ErrCommand: the sandbox was started, and the command can't be executed in it (the exit code
	// is 126), or is not there (127).
	ErrCommand = errors.New("the command can't be executed")
	// ErrTimeout: Timeout was over. What the command had written until then was passed on.
	ErrTimeout = errors.New("timed out")
	// ErrOutOfMemory: the sandbox has used more memory than it may, and was ended.
	ErrOutOfMemory = errors.New("out of memory")
	// ErrEnded: the sandbox ended under the command, as by somebody who has removed it.
	ErrEnded = errors.New("the sandbox ended")
	// ErrDaemonGone: no daemon answers, or it has ended meanwhile. The command was ended, and what
	// is left of the sandbox is removed by the next daemon.
	ErrDaemonGone = errors.New("the daemon is gone")
	// ErrFailed: the daemon failed in another way.
	ErrFailed = errors.New("failed")
)

// Error is what the daemon says of a request that it did not carry out.
type Error struct {
	// Kind is one of the Err… of this package.
	Kind error
	// Message says what is wrong, for a person.
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap has errors.Is find the kind.
func (e *Error) Unwrap() error { return e.Kind }

func fromDaemon(e *protocol.Error) error {
	kind := ErrFailed // also one of a later daemon
	switch e.Kind {
	case protocol.KindDenied:
		kind = ErrDenied
	case protocol.KindRefused:
		kind = ErrRefused
	case protocol.KindBusy:
		kind = ErrBusy
	case protocol.KindNotFound:
		kind = ErrNotFound
	case protocol.KindStart:
		kind = ErrStart
	case protocol.KindCommand:
		kind = ErrCommand
	case protocol.KindTimeout:
		kind = ErrTimeout
	case protocol.KindOutOfMemory:
		kind = ErrOutOfMemory
	case protocol.KindEnded:
		kind = ErrEnded
	case protocol.KindStopping:
		kind = ErrDaemonGone
	}
	return &Error{Kind: kind, Message: e.Message}
}
