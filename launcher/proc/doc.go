// SPDX-License-Identifier: Apache-2.0

// Package proc starts and kills processes of this host: gated ones, which do nothing
// before they are on record, and groups, which are killed whole.
//
// A gated child is started by StartGated and waits at its gate, a pipe. Its
// identity is written down, and then Open lets it go. If the daemon dies before,
// the pipe ends and the child leaves: nothing runs that is not on record. What it
// inherits is a Donation, and nothing else.
//
// Kill makes a process on record dead, and proves it.
//
// A group is one command and what it starts, such as a hook. It is a child of this
// process and ends with the call.
package proc
