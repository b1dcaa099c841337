// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"runtime"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/runsc/specutils/seccomp"
)

// answers is what gVisor's filter of a profile returns for a system call.
func answers(t *testing.T, s *specs.LinuxSeccomp, nr uintptr) linux.BPFAction {
	t.Helper()
	p, err := seccomp.BuildProgram(s)
	if err != nil {
		t.Fatal(err)
	}
	// struct seccomp_data: number, architecture, instruction, arguments.
	data := make([]byte, 64)
	binary.NativeEndian.PutUint32(data, uint32(nr))
	binary.NativeEndian.PutUint32(data[4:], auditArch())
	out, err := bpf.Exec[bpf.NativeEndian](p, bpf.Input(data))
	if err != nil {
		t.Fatal(err)
	}
	return linux.BPFAction(out)
}

func auditArch() uint32 {
	if runtime.GOARCH == "arm64" {
		return linux.AUDIT_ARCH_AARCH64
	}
	return linux.AUDIT_ARCH_X86_64
}

// The filter that gVisor builds answers with the errors that it was told.
func TestErrnos(t *testing.T) {
	saveErrno, saveTrace, saveTrap := errnoAction, traceAction, trapAction
	defer func() { errnoAction, traceAction, trapAction = saveErrno, saveTrace, saveTrap }()
	profile := func(a specs.LinuxSeccompAction) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getpid"}, Action: a}}}
	}
	errno := func(n uint32) linux.BPFAction { return linux.SECCOMP_RET_ERRNO | linux.BPFAction(n) }
	if got := answers(t, profile(specs.ActErrno), unix.SYS_GETPID); got != errno(1) {
		t.Errorf("gVisor's own answer is %v", got)
	}
	if err := setErrnos("1,38,22"); err != nil {
		t.Fatal(err)
	}
	for action, want := range map[specs.LinuxSeccompAction]linux.BPFAction{specs.ActErrno: errno(1), specs.ActTrace: errno(38), specs.ActTrap: errno(22), specs.ActAllow: linux.SECCOMP_RET_ALLOW} {
		if got := answers(t, profile(action), unix.SYS_GETPID); got != want {
			t.Errorf("%s answers %v, expected %v", action, got, want)
		}
		if got := answers(t, profile(action), unix.SYS_GETPPID); got != linux.SECCOMP_RET_ALLOW {
			t.Errorf("%s answers another call with %v", action, got)
		}
		if got := answers(t, &specs.LinuxSeccomp{DefaultAction: action}, unix.SYS_GETPID); got != want {
			t.Errorf("%s as default answers %v, expected %v", action, got, want)
		}
	}
	// Two errors leave the signal what it is.
	trapAction = saveTrap
	if err := setErrnos("1,0"); err != nil {
		t.Fatal(err)
	}
	if got := answers(t, profile(specs.ActTrap), unix.SYS_GETPID); got&^linux.BPFAction(0xffff) != linux.SECCOMP_RET_TRAP {
		t.Errorf("a signal became %v", got)
	}
	if got := answers(t, profile(specs.ActTrace), unix.SYS_GETPID); got != errno(0) {
		t.Errorf("no error became %v", got)
	}
	for _, bad := range []string{"x", "1,2,3,4", "-1", "70000", "1,", ","} {
		if setErrnos(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
