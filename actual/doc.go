// SPDX-License-Identifier: Apache-2.0

// Package actual is what is true of the sandboxes of one host: their records
// on disk and the processes that are alive.
//
// A Record is intent and memory, written before the effect by the only writer
// (the daemon, or a front-end that holds the same lock) through the one atomic
// writer. A process is an Identity: its pid is meaningless without the pidfs
// inode of its pidfd, which is never used twice in a boot, so a signal can't
// reach a stranger that got the pid of a dead one. Both meet in the Observer,
// whose Snapshot is a value that reconcile plans from.
//
// Blind spots, on purpose: a record that can't be read is reported and never
// acted on; a process whose state can't be told is Unknown, which is neither
// dead nor alive; and what a sandbox does inside is nobody's business here.
//
// Everything below the state directory is reached through directory
// descriptors, never through joined path strings.
package actual
