// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"

	"sandboxctl.dev/actual"
)

// confineExitRecord takes from every thread, for good, what could make the exit
// record grow: without it a sentry that was taken over could fill the disk that
// holds the state. All that is left is pwrite of its first MaxExit bytes, and no
// second descriptor of it can be made. (A limit of the size of files, as
// setrlimit has it, would hold for the sandbox's memory too.)
//
// gVisor's own filter comes on top and refuses what is not listed here. There is
// no way around by sending the descriptor to itself: the sentry holds no socket
// whose other end it holds too, and can't make one.
//
// Violations are errors and not deadly because the processes in which systrap
// runs the application inherit the filter: there any number is the
// application's, gVisor's trap must come first, and it takes precedence over an
// error only.
func confineExitRecord(fd int) error {
	// The kernel looks at 32 bits of a descriptor, whatever the others are.
	is := seccomp.MaskedEqual(math.MaxUint32, uintptr(fd))
	anything := seccomp.AnyValue{}
	rules := seccomp.NewSyscallRules()
	for _, nr := range []uintptr{
		unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_SENDFILE,
		unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_FCHMOD, unix.SYS_IOCTL,
	} {
		rules.Set(nr, seccomp.PerArg{is})
	}
	for _, nr := range []uintptr{unix.SYS_SPLICE, unix.SYS_COPY_FILE_RANGE} {
		rules.Set(nr, seccomp.PerArg{anything, anything, is})
	}
	rules.Set(unix.SYS_PWRITE64, seccomp.Or{
		seccomp.PerArg{is, anything, seccomp.GreaterThan(actual.MaxExit)},
		seccomp.PerArg{is, anything, anything, seccomp.GreaterThan(0)},
	})
	deny := seccomp.ReturnError.Code(uint16(unix.EPERM))
	program := seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: rules, Action: deny}},
		Options:  seccomp.ProgramOptions{DefaultAction: seccomp.Allow, BadArchAction: deny},
	}
	instructions, _, err := program.Build()
	if err != nil {
		return fmt.Errorf("build filter: %w", err)
	}
	if err := seccomp.SetFilter(instructions); err != nil {
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
