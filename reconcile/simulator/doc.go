// SPDX-License-Identifier: Apache-2.0

// Package simulator runs the real planner, loop, store and observer over a host
// that is simulated at the calls of the kernel: a file system that forgets what was
// not synced, a process table with so few numbers that they are given again all the
// time, gates, cgroups, zombies. The launcher and the source of manifests are models
// that make the same calls in the same order as the real ones. Any call may fail,
// or be the last one of the daemon or of the host.
//
// Everything is decided by a seed: one goroutine runs at a time, in the fake
// time of a testing/synctest bubble. A failure is shrunk to the few events that
// make it and printed with the command that replays it. It is all in tests:
// nothing of it is linked into a program.
package simulator
