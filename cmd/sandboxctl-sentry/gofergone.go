// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"

	"sandboxctl.dev/launcher/wire"
)

// endWithGofer ends this process when its gofer has: they live and die as a pair. gVisor
// sees to that where a gofer serves the root. Where the root is an image nobody does,
// and an application would go on with neither volumes nor logs.
//
// logs is the pipe that this process logs to. The gofer has the only end to read.
func endWithGofer(logs *os.File) {
	go func() {
		if waitUnread(int(logs.Fd())) {
			// There is nobody to log to, and the exit code is not known: this is as
			// sudden as the death of the gofer.
			os.Exit(wire.ExitBootFailed)
		}
	}()
}

// waitUnread returns true when nobody can read what is written to a pipe any more.
func waitUnread(fd int) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(fd)}} // an error is always reported
		// ppoll, as elsewhere in the sentry: its seccomp filter has it.
		if _, err := unix.Ppoll(fds, nil, nil); err != nil && !errors.Is(err, unix.EINTR) {
			log.Warningf("The end of the gofer can't be noticed: %v", err)
			return false
		}
		if fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
			return fds[0].Revents&unix.POLLERR != 0
		}
	}
}
