// SPDX-License-Identifier: Apache-2.0

package pidone

import (
	"path"
	"slices"
)

// inits are programs that expect to be process 1 and reap orphans themselves, by
// the names that distributions and images give them.
var inits = []string{
	"catatonit", "docker-init", "dumb-init", "finit", "init", "my_init", "openrc-init", "podman-init", "runit", "runit-init", "runsvdir",
	"s6-svscan", "sinit", "systemd", "tini", "tini-static",
}

// IsInit says whether a command line is that of an init process.
func IsInit(argv []string) bool {
	if len(argv) == 0 {
		return false
	}
	name := path.Base(argv[0])
	if name == "busybox" && len(argv) > 1 {
		name = path.Base(argv[1])
	}
	return slices.Contains(inits, name)
}

// SystemCalls are those that the init process needs after its start, by the names
// of seccomp profiles.
var SystemCalls = []string{
	"access", "close", "execve", "exit_group", "fcntl", "getpid", "ioctl", "kill", "mmap", "mprotect", "mremap", "prctl", "rt_sigprocmask",
	"rt_sigtimedwait", "setpgid", "vfork", "wait4", "write",
}
