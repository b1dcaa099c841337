// SPDX-License-Identifier: Apache-2.0

// Package invariants looks whether the records of a state directory and what is
// on the host agree: no process, cgroup, mount, socket or file that nobody
// answers for, and never two processes where there may be one.
//
// It is the one place that says what "nothing is left" means. `sandboxctl
// doctor` prints what it finds, and every test of real sandboxes ends with it.
//
// It only looks. It may run beside a daemon, and nobody is signalled and nothing
// is removed on its word: a violation is for people, or fails a test.
//
// The cgroups of all state directories of a host have one parent. Those of this
// one are told by their names, which hold the uids of its records, of what is in
// its trash, and of Options.Past.
package invariants
