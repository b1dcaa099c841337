// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"errors"

	"sandboxctl.dev/launcher/wire"
)

// Errors that callers tell apart.
var (
	// ErrNoSandbox: there is no record of the name.
	ErrNoSandbox = errors.New("no such sandbox")
	// ErrNotRunning: the sandbox has no live sentry to talk to.
	ErrNotRunning = errors.New("sandbox is not running")
	// ErrClosed: the sentry ended while it was talked to, or would not talk on.
	ErrClosed = errors.New("the sentry closed the connection")
)

// doing describes what a call to the sentry is for, for an error.
func doing(method string) string {
	switch method {
	case wire.MethodStartRoot, wire.MethodStartSubcontainer:
		return "start the application"
	case wire.MethodExecuteAsync:
		return "start the command"
	case wire.MethodWait:
		return "wait for the application"
	case wire.MethodWaitPID:
		return "wait for the command"
	case wire.MethodProcesses:
		return "list processes"
	case wire.MethodEvent:
		return "read the use of resources"
	case wire.MethodSignal:
		return "send the signal"
	case wire.MethodPause:
		return "pause"
	case wire.MethodResume:
		return "resume"
	case wire.MethodCheckpoint:
		return "checkpoint"
	case wire.MethodRestore:
		return "restore"
	case wire.MethodSetNetwork:
		return "set up the network"
	}
	return "ask the sentry"
}
