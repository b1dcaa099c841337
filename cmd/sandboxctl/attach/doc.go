// SPDX-License-Identifier: Apache-2.0

// Package attach connects our terminal and streams with a process in a sandbox. It
// has what a terminal needs (raw mode, its size, its keys), what copies between
// streams, and the one place where signals that this program gets are passed on.
//
// A Session is used in four steps: Open, then Pipes or Terminal for the ends that the
// process gets, then the caller starts the process with them, then Run. Where time
// passes between the last two, Started begins to copy. Nothing here
// starts a container, prints, or knows flags.
package attach
