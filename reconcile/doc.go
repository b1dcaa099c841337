// SPDX-License-Identifier: Apache-2.0

// Package reconcile makes actual state follow desired state. It is the only
// place where the two meet.
//
// Compute is a function of values: what is wanted, what is there, what time it
// is and what is allowed go in, and a Plan comes out. It has no clock, does no
// input or output, remembers nothing and is driven by what is true now, never
// by what happened. An event (a changed file, a dead process, a timer) only
// makes the Loop look again. So a missed, repeated or reordered event changes
// nothing, a crash at any moment is followed by the same decision, and `plan`,
// `get` and `describe` compute what the daemon computes without asking it.
//
// There are three operations: Create, Destroy and Forget. A restart is a
// Destroy and, in a later pass, a Create. Each name has at most one operation
// at a time.
//
// What is not known is not acted on. A record that can't be read, a process
// that is neither proven alive nor proven dead, a directory that may not be
// the author's: each leaves its sandboxes as they are and is said in Status.
package reconcile
