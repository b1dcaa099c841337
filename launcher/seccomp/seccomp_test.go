// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Each rule of a profile answers what it should: the action that it has for gVisor
// stands for the error that was asked for.
func TestTranslateSeccomp(t *testing.T) {
	t.Parallel()
	type rule struct {
		action specs.LinuxSeccompAction
		ret    int    // -1: not given
		want   string // an errno, or the action
	}
	for name, rules := range map[string][]rule{ // the first is the default
		"nothing":                 {{specs.ActAllow, -1, "SCMP_ACT_ALLOW"}},
		"the default error":       {{specs.ActErrno, -1, "1"}},
		"moby":                    {{specs.ActErrno, 1, "1"}, {specs.ActAllow, -1, "SCMP_ACT_ALLOW"}, {specs.ActErrno, 38, "38"}},
		"podman":                  {{specs.ActErrno, 38, "38"}, {specs.ActAllow, -1, "SCMP_ACT_ALLOW"}, {specs.ActErrno, 1, "1"}, {specs.ActErrno, 22, "22"}},
		"the other way round":     {{specs.ActErrno, 22, "22"}, {specs.ActErrno, 38, "38"}, {specs.ActErrno, -1, "1"}},
		"no error at all":         {{specs.ActAllow, -1, "SCMP_ACT_ALLOW"}, {specs.ActErrno, 0, "0"}},
		"a third beside a signal": {{specs.ActAllow, -1, "SCMP_ACT_ALLOW"}, {specs.ActErrno, 38, "38"}, {specs.ActErrno, 22, "1"}, {specs.ActTrap, -1, "SCMP_ACT_TRAP"}},
		"more than there are":     {{specs.ActErrno, 2, "2"}, {specs.ActErrno, 3, "1"}, {specs.ActErrno, 38, "38"}},
		"nobody traces":           {{specs.ActTrace, -1, "38"}, {specs.ActTrace, 7, "38"}},
		"kinds of killing":        {{specs.ActKill, -1, "SCMP_ACT_KILL"}, {specs.ActKillThread, -1, "SCMP_ACT_KILL"}, {specs.ActKillProcess, -1, "SCMP_ACT_KILL"}},
		"logged":                  {{specs.ActLog, -1, "SCMP_ACT_ALLOW"}},
		"an error of no errno":    {{specs.ActAllow, 5, "SCMP_ACT_ALLOW"}},
	} {
		s := &specs.LinuxSeccomp{Architectures: []specs.Arch{"SCMP_ARCH_X86"}, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}}
		for i, r := range rules {
			var ret *uint
			if r.ret >= 0 {
				ret = new(uint(r.ret))
			}
			if i == 0 {
				s.DefaultAction, s.DefaultErrnoRet = r.action, ret
				continue
			}
			s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{fmt.Sprint("call", i)}, Action: r.action, ErrnoRet: ret, Args: []specs.LinuxSeccompArg{{Index: uint(i)}}})
		}
		p, err := Translate(s)
		if err != nil || len(p.Spec.Syscalls) != len(rules)-1 || p.Spec.DefaultErrnoRet != nil {
			t.Errorf("%s: %+v, %v", name, p, err)
			continue
		}
		for i, r := range rules {
			got := p.Spec.DefaultAction
			if i > 0 {
				c := p.Spec.Syscalls[i-1]
				if got = c.Action; c.ErrnoRet != nil || c.Names[0] != fmt.Sprint("call", i) || c.Args[0].Index != uint(i) {
					t.Errorf("%s: rule %d became %+v", name, i, c)
				}
			}
			means := string(got)
			if slot := slices.Index(errnoSlots, got); slot >= 0 && slot < len(p.Errnos) {
				means = fmt.Sprint(p.Errnos[slot])
			}
			if means != r.want {
				t.Errorf("%s: rule %d answers %s, expected %s", name, i, means, r.want)
			}
		}
	}
	if p, err := Translate(nil); err != nil || p.Spec != nil || p.Errnos != nil {
		t.Errorf("no profile became %+v, %v", p, err)
	}
	if unix.EPERM != 1 || unix.ENOSYS != 38 || unix.EINVAL != 22 {
		t.Error("the numbers above are those of Linux")
	}
}

// A rule that allows what is allowed anyway does not stand before one that denies; one
// that denies what is denied anyway stays, as it may stand before one that allows.
func TestTranslateSeccompDefault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		def   specs.LinuxSeccompAction
		rules []specs.LinuxSeccompAction
		want  int
	}{
		{specs.ActAllow, []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno}, 1},
		{specs.ActAllow, []specs.LinuxSeccompAction{specs.ActErrno, specs.ActAllow}, 1},
		{specs.ActAllow, []specs.LinuxSeccompAction{specs.ActAllow}, 0},
		{specs.ActErrno, []specs.LinuxSeccompAction{specs.ActErrno, specs.ActAllow}, 2},
		{specs.ActLog, []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno}, 2},
	} {
		s := &specs.LinuxSeccomp{DefaultAction: c.def}
		for _, a := range c.rules {
			s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"getpid"}, Action: a})
		}
		p, err := Translate(s)
		if err != nil || len(p.Spec.Syscalls) != c.want {
			t.Errorf("%s, %s: %+v, %v, expected %d rules", c.def, c.rules, p, err, c.want)
		}
	}
}

func TestTranslateSeccompRefused(t *testing.T) {
	t.Parallel()
	rule := func(r specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActAllow}, r}}
	}
	for want, s := range map[string]*specs.LinuxSeccomp{
		`linux.seccomp.defaultAction: "" is not an action`:                                         {},
		`linux.seccomp.defaultAction: SCMP_ACT_NOTIFY is not supported`:                            {DefaultAction: specs.ActNotify},
		`linux.seccomp.syscalls[1].action: "SCMP_ACT_X" is not an action`:                          rule(specs.LinuxSyscall{Action: "SCMP_ACT_X"}),
		`linux.seccomp.syscalls[1].action: SCMP_ACT_NOTIFY is not supported`:                       rule(specs.LinuxSyscall{Action: specs.ActNotify}),
		`linux.seccomp.syscalls[1].action: expected an error of at most 4095, got 4096`:            rule(specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: new(uint(4096))}),
		`linux.seccomp.syscalls[1].args[0].index: expected 0 to 5, got 6`:                          rule(specs.LinuxSyscall{Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6}}}),
		`linux.seccomp.defaultAction: expected an error of at most 4095, got 18446744073709551615`: {DefaultAction: specs.ActErrno, DefaultErrnoRet: new(^uint(0))},
	} {
		if _, err := Translate(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
}
