// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
)

// rules allow one system call with one argument.
func rules(nr uintptr, arg uint32) *seccomp.Program {
	r := seccomp.NewSyscallRules()
	r.Set(nr, seccomp.PerArg{seccomp.EqualTo(arg)})
	return &seccomp.Program{RuleSets: []seccomp.RuleSet{{Rules: r, Action: seccomp.Allow}}}
}

// A program that differs in one instruction, or in what its variable stands for, is
// not the same.
func TestCompare(t *testing.T) {
	t.Parallel()
	p, err := precompiledseccomp.Precompile("p", []string{"x"}, func(v precompiledseccomp.Values) *seccomp.Program { return rules(7, v["x"]) })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		vars precompiledseccomp.Values
		want *seccomp.Program
		same bool
	}{
		{precompiledseccomp.Values{"x": 5}, rules(7, 5), true},
		{precompiledseccomp.Values{"x": 6}, rules(7, 6), true},
		{precompiledseccomp.Values{"x": 5}, rules(7, 6), false},
		{precompiledseccomp.Values{"x": 5}, rules(8, 5), false},
		{precompiledseccomp.Values{"y": 5}, rules(7, 5), false},
		{precompiledseccomp.Values{}, rules(7, 5), false},
	} {
		if err := Compare(p, c.vars, c.want); (err == nil) != c.same {
			t.Errorf("%v: %v", c.vars, err)
		}
	}
}
