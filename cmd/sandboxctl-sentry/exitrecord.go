// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl-sentry/filters"
)

// confineExitRecord takes from every thread, for good, what could make the exit
// record grow: without it a sentry that was taken over could fill the disk that
// holds the state. (A limit of the size of files, as setrlimit has it, would hold
// for the sandbox's memory too.)
//
// gVisor's own filter comes on top and refuses what is not listed in this one. There
// is no way around by sending the descriptor to itself: the sentry holds no socket
// whose other end it holds too, and can't make one.
func confineExitRecord(fd int) error {
	program, err := filters.ExitRecord(uint32(fd))
	if err != nil {
		return fmt.Errorf("build filter: %w", err)
	}
	if err := seccomp.SetFilter(program); err != nil {
		return fmt.Errorf("install filter: %w", err)
	}
	return nil
}

// writeExit leaves how the application ended, in one write: a reader sees the
// whole record or none. It survives the daemon because it does not pass
// through it.
func writeExit(opts *options, status unix.WaitStatus, hostSignaled bool) error {
	b, err := actual.EncodeExit(actual.ExitRecord{
		UID:          opts.uid,
		Attempt:      opts.attempt,
		Container:    opts.container,
		Status:       uint32(status),
		At:           time.Now(),
		HostSignaled: hostSignaled,
	})
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(opts.exitFD, b, 0)
	return err
}
