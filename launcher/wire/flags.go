// SPDX-License-Identifier: Apache-2.0

package wire

// Protocol is the version of everything in this package together. The sentry
// binary prints it for `version`; the launcher refuses a binary that speaks
// another one.
const Protocol = 7

// Flags of the sentry binary that come before gVisor's own.
const (
	// FlagGateFD is the read end of the start gate: the process does nothing
	// before one byte arrives, and exits when the other end is closed first.
	FlagGateFD = "gate-fd"
	// FlagExitFD is where the exit record is written, FlagUID, FlagAttempt and
	// FlagContainer, the name of the root container, are copied into it.
	FlagExitFD    = "exit-fd"
	FlagUID       = "exit-uid"
	FlagAttempt   = "exit-attempt"
	FlagContainer = "exit-container"
	// FlagState is the path of the state directory that the sandbox is in. Nothing
	// is done with it: it tells who looks at the process list, should the
	// directory be lost.
	FlagState = "state-dir"
	// FlagAppStatus makes the process end as the application did: with its exit
	// code, or with 128 and the number of the signal that ended it.
	FlagAppStatus = "app-status"
	// FlagNobody makes the process user and group Nobody, without supplementary
	// groups, before it waits at the gate.
	FlagNobody = "nobody"
	// FlagErrnos are the errors that the actions ERRNO, TRACE and TRAP of the
	// sandbox's seccomp profile answer with, in this order and as many as there are.
	FlagErrnos = "seccomp-errnos"
	// FlagPrivate is how many variables at the beginning of the application's environment
	// have values that the sentry writes nowhere: neither into its log nor on stderr.
	FlagPrivate = "private-env"
	// FlagDisk is a DiskFile. It may be given several times: that of the root first, then
	// those of the volumes in the order of the spec.
	FlagDisk = "disk-file"
	// FlagLogLevel is gVisor's log level on stderr: warning, info or debug.
	FlagLogLevel = "log-level"
)

// Nobody is the user and group id of a sentry in a user namespace of its own.
const Nobody = 65534

// VerbBoot follows the flags of the sentry binary and precedes those of the boot.
const VerbBoot = "boot"

// GateOpen is the byte that opens a start gate.
const GateOpen = 'g'

// Exit codes of the sentry binary itself. Without FlagAppStatus the
// application's own status travels in the exit record only.
const (
	ExitOK         = 0
	ExitUsage      = 2
	ExitGateClosed = 90 // the launcher died before it opened the gate
	ExitBootFailed = 128
)
