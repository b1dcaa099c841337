// SPDX-License-Identifier: Apache-2.0

// Package logs keeps the log directories of sandboxes: one for each attempt, which a
// gofer writes into. It makes them, opens them for readers, removes what is old or
// takes too much of the disk, and keeps those of deleted sandboxes for a time. A
// gofer that was taken over can put anything into its directory.
package logs
