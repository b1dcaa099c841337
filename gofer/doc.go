// SPDX-License-Identifier: Apache-2.0

// Package gofer is the process that stands between one sandbox and the host's
// files: it serves the root filesystem and each volume to the sentry over
// lisafs, and writes the sandbox's output to its log files.
//
// It is a re-exec of sandboxctl (see Argv0), started held at a gate in new
// mount, pid, ipc, network, uts and cgroup namespaces. Before it answers the
// first request it has pivoted into a tmpfs that holds nothing but the served
// trees, dropped every capability file service does not need, set
// no_new_privs and installed gVisor's gofer seccomp filter. What it serves was
// opened by the launcher and arrives as detached mounts: it never sees a host
// path. It leaves when its sentry does.
//
// Nothing here knows of manifests, records or reconciling.
package gofer
