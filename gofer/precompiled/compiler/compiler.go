// SPDX-License-Identifier: Apache-2.0

// Package compiler is what the generators of precompiled seccomp programs have in
// common. No program of sandboxctl links it.
package compiler

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"syscall"

	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"

	"sandboxctl.dev/gofer/precompiled"
)

// Main prints the programs that compile returns. It calls the generator again as the
// first process of a namespace, as every sentry and gofer is: gVisor writes the number
// of the process that compiles into some rules, where it should be a variable (such as
// SYS_RT_TGSIGQUEUEINFO in pkg/sentry/platform/systrap/filters.go). It needs no
// privilege but user namespaces.
func Main(compile func() ([]precompiledseccomp.Program, error)) {
	run := asProcess1
	if os.Getpid() == 1 {
		run = func() error { return write(compile) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func asProcess1() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
	}
	return cmd.Run()
}

func write(compile func() ([]precompiledseccomp.Program, error)) error {
	programs, err := compile()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, p := range programs {
		if err := precompiled.Write(&out, p); err != nil {
			return err
		}
	}
	_, err = os.Stdout.Write(out.Bytes())
	return err
}

// Compare compares a program, instruction by instruction, with what gVisor compiles.
func Compare(p precompiledseccomp.Program, vars precompiledseccomp.Values, compiled *seccomp.Program) error {
	got, err := p.RenderInstructions(vars)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	want, _, err := compiled.Build()
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d instructions, gVisor compiles %d", p.Name, len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			return fmt.Errorf("%s: instruction %d is %v, gVisor compiles %v", p.Name, i, got[i], want[i])
		}
	}
	return nil
}
