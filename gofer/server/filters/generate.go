// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Generate compiles the seccomp programs of the gofer and prints what belongs into
// programs.json.
package main

import (
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/fsgofer/filter/config"

	"sandboxctl.dev/gofer/precompiled/compiler"
)

func main() { compiler.Main(compile) }

func compile() (out []precompiledseccomp.Program, err error) {
	all, err := config.PrecompiledPrograms()
	if err != nil {
		return nil, err
	}
	for _, directFS := range []bool{false, true} {
		opt := config.Options{DirectFS: directFS, LisafsNeeded: true}
		for _, p := range all {
			if p.Name != opt.ConfigKey() {
				continue
			}
			// What gVisor compiles without a program (runsc/fsgofer/filter/filter.go).
			rules, deny := config.Rules(opt)
			want := &seccomp.Program{RuleSets: []seccomp.RuleSet{{Rules: deny}, {Rules: rules, Action: seccomp.Allow}}}
			if err := compiler.Compare(p, opt.Vars(), want); err != nil {
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}
