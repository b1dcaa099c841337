// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"math"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"

	"sandboxctl.dev/launcher/wire"
)

// DiskFileRules take from a process what could make files longer than their limits: they
// are written only at offsets within them, and no second descriptor of one can be made. What
// begins there may go beyond by its own length: of a write the kernel bounds that by 2 GiB, of
// an allocation the size does.
//
// Violations are errors and not deadly, as those of ExitRecordRules.
func DiskFileRules(files []wire.DiskFile) *seccomp.Program {
	anything := seccomp.AnyValue{}
	rules := seccomp.NewSyscallRules()
	for _, f := range files {
		// The kernel looks at 32 bits of a descriptor, whatever the others are.
		is := seccomp.MaskedEqual(math.MaxUint32, uintptr(f.FD))
		beyond := seccomp.GreaterThan(f.Limit()) // negative numbers too
		deny := func(nr uintptr, args ...seccomp.PerArg) {
			for _, a := range args {
				rules.Add(nr, a)
			}
		}
		for _, nr := range []uintptr{unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_SENDFILE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_IOCTL} {
			deny(nr, seccomp.PerArg{is})
		}
		for _, nr := range []uintptr{unix.SYS_SPLICE, unix.SYS_COPY_FILE_RANGE} {
			deny(nr, seccomp.PerArg{anything, anything, is})
		}
		deny(unix.SYS_FTRUNCATE, seccomp.PerArg{is, beyond})
		// Only a hole is longer than what the guest may have: from the limit on, one call
		// could double the file.
		notHole := seccomp.NotEqual(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
		deny(unix.SYS_FALLOCATE, seccomp.PerArg{is, anything, beyond}, seccomp.PerArg{is, anything, anything, beyond}, seccomp.PerArg{is, notHole, anything, seccomp.GreaterThan(f.InPages())})
		deny(unix.SYS_PWRITE64, seccomp.PerArg{is, anything, anything, beyond})
		deny(unix.SYS_PWRITEV, seccomp.PerArg{is, anything, anything, beyond})
		// Flags can have it append, whatever the offset is.
		deny(unix.SYS_PWRITEV2, seccomp.PerArg{is, anything, anything, beyond}, seccomp.PerArg{is, anything, anything, anything, anything, seccomp.NotEqual(0)})
	}
	deny := seccomp.ReturnError.Code(uint16(unix.EPERM))
	return &seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: rules, Action: deny}},
		Options:  seccomp.ProgramOptions{DefaultAction: seccomp.Allow, BadArchAction: deny},
	}
}
