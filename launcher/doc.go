// SPDX-License-Identifier: Apache-2.0

// Package launcher creates, stops and talks to one sandbox: a sentry and its
// gofer, which are started and ended together.
//
// The order of Create is what makes it safe to kill at any moment. The record
// says Creating before anything exists. Both processes are started gated: each
// blocks on a pipe, its start gate, and leaves when the other end closes. Their
// identities are written to the record, and only then are the gates opened. So
// a process that does anything is a process that is on record, and a launcher
// that dies earlier leaves none behind.
//
// Destroy is the same backwards: intent first, then the application is asked
// to stop, then both processes are killed through verified pidfds, then their
// death is proven, and only then are their cgroups, sockets and files removed.
// A process whose state is unknown stops it with an error.
//
// A create that was cut short after the gates were opened is resumed: its sentry
// tells how far the application is, and starts it at most once.
//
// Nothing of a host path reaches the sentry or the gofer. What they serve is
// opened here, once, without following links, and handed over as descriptors.
//
// The launcher is used by at most one worker per name; the store's lock is held
// by its process. It decides nothing: the reconcile loop does.
package launcher
