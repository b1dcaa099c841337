// SPDX-License-Identifier: Apache-2.0

// Package gofer is what the launcher and the program sandboxctl-gofer agree on:
// its command line, its configuration, its exit codes, and which places of the
// host no gofer may serve.
//
// The process itself is in gofer/server, and is a program of its own: fifty of
// them run on a host with fifty sandboxes, so that nothing may be linked into one
// that it does not need. Nothing here knows of manifests, records or reconciling.
package gofer
