// SPDX-License-Identifier: Apache-2.0

// Package cgroup puts one sandbox into control groups, to limit what it uses
// and to find and kill whatever is left of it.
//
// Every sandbox gets a group below "sandboxctl" in the cgroup2 hierarchy where
// there is one, with or without controllers: a process can be cloned into it, and
// all of its processes be killed at once. Limits go there if the controllers are there, else
// into the v1 hierarchies cpu, memory and pids. A limit that the host can't
// enforce is reported, not an error: the caller decides what that means.
//
// The hybrid of v1 controllers and a bare cgroup2 is tested on a real kernel;
// pure cgroup2 on a tree of plain files that behaves like one.
package cgroup
