// SPDX-License-Identifier: Apache-2.0

// Package server is the process that stands between one sandbox and the host's
// files: it serves the root filesystem and each volume to the sentry over
// lisafs, and writes the sandbox's output to its log files.
//
// The launcher starts it at a gate, in new mount, pid, ipc, uts and cgroup
// namespaces, and in an empty network namespace that only gofers are in. Before it answers the first request it has pivoted into a
// tmpfs that holds nothing but the served trees, dropped every capability that
// file service does not need, set no_new_privs and installed gVisor's gofer
// seccomp filter. What it serves was opened by the launcher and arrives as
// detached mounts: it never sees a host path. It exits when its sentry does.
package server
