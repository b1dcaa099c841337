// SPDX-License-Identifier: Apache-2.0

package filters

import (
	"fmt"
	"math"
	"runtime"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer/precompiled"
)

// ExitRecordFD is the variable of the exit record's program.
const ExitRecordFD = "exit_record_fd"

// ExitRecordName is what the exit record's program is called.
const ExitRecordName = "exit record, " + runtime.GOARCH

// ExitRecordRules take from a process what could make the exit record grow: all that
// is left is pwrite of its first MaxExit bytes, and no second descriptor of it can be
// made.
//
// Violations are errors and not deadly because the processes in which systrap runs the
// application inherit the filter: there any number is the application's, gVisor's trap
// must come first, and it takes precedence over an error only.
func ExitRecordRules(fd uint32) *seccomp.Program {
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
	return &seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: rules, Action: deny}},
		Options:  seccomp.ProgramOptions{DefaultAction: seccomp.Allow, BadArchAction: deny},
	}
}

// ExitRecord is the program of ExitRecordRules. It is compiled here for processors
// that it was not compiled for in advance.
func ExitRecord(fd uint32) ([]bpf.Instruction, error) {
	p, err := precompiled.Find(programs, ExitRecordName)
	if err != nil {
		instructions, _, err := ExitRecordRules(fd).Build()
		return instructions, err
	}
	instructions, err := p.RenderInstructions(precompiledseccomp.Values{ExitRecordFD: fd})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return instructions, nil
}
