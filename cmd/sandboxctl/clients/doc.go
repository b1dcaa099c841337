// SPDX-License-Identifier: Apache-2.0

// Package clients is the socket of clients in the daemon: programs that use the package
// sandboxctl.dev/client to run commands in sandboxes of their own.
//
// A connection is a request, and lives in a goroutine of its own, which ends with the client, with
// its time, or with the daemon. What it may hold is bounded before anything is read: connections
// in all and of each user, bytes and time of a request. Who a client is, the kernel says. What is
// made for a request is an ordinary sandbox with a manifest, which names this daemon as its caller:
// the next daemon removes what this one can't.
package clients
