// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/pidone"
)

// The init process has the profile of its bundle: it is not used where it would be
// killed by it, or be refused what it needs.
func TestInitSeccomp(t *testing.T) {
	t.Parallel()
	rule := func(action specs.LinuxSeccompAction, names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: names, Action: action}
	}
	all := rule(specs.ActAllow, pidone.SystemCalls...)
	conditional := rule(specs.ActAllow, "vfork")
	conditional.Args = []specs.LinuxSeccompArg{{Index: 0}}
	for name, c := range map[string]struct {
		profile *specs.LinuxSeccomp
		refused string
	}{
		"none":              {nil, ""},
		"allows all":        {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, ""},
		"denies all":        {&specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, "access"},
		"kills":             {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActKill, "x", "kill")}}, "kill"},
		"allows its own":    {&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{all}}, ""},
		"and then denies":   {&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{all, rule(specs.ActErrno, "wait4")}}, "wait4"},
		"only on condition": {&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{rule(specs.ActAllow, slices.DeleteFunc(slices.Clone(pidone.SystemCalls), func(s string) bool { return s == "vfork" })...), conditional}}, "vfork"},
	} {
		if got := refusedCall(c.profile); got != c.refused {
			t.Errorf("%s: %q, expected %q", name, got, c.refused)
		}
	}
}
