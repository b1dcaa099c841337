// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Generate compiles the seccomp programs of the sentry and prints what belongs into
// programs.json.
package main

import (
	"maps"
	"slices"

	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap"
	"gvisor.dev/gvisor/runsc/boot/filter/config"

	"sandboxctl.dev/cmd/sandboxctl-sentry/filters"
	"sandboxctl.dev/gofer/precompiled/compiler"
)

func main() { compiler.Main(compile) }

func compile() (out []precompiledseccomp.Program, err error) {
	systrap, err := platform.Lookup("systrap")
	if err != nil {
		return nil, err
	}
	for _, info := range systrap.PrecompiledSeccompInfo() {
		for _, directFS := range []bool{false, true} {
			for _, network := range [][2]bool{{false, false}, {true, false}, {true, true}} {
				opt := config.Options{Platform: info, HostFilesystem: directFS, HostNetwork: network[0], HostNetworkRawSockets: network[1]}
				p, err := compileKind(opt)
				if err != nil {
					return nil, err
				}
				out = append(out, p)
			}
		}
	}
	p, err := precompiledseccomp.Precompile(filters.ExitRecordName, []string{filters.ExitRecordFD}, func(values precompiledseccomp.Values) *seccomp.Program {
		return filters.ExitRecordRules(values[filters.ExitRecordFD])
	})
	return append(out, p), err
}

// withValues are the options of a platform with other values of the variables: those
// of a platform take precedence over all others.
type withValues struct {
	platform.SeccompInfo
	values precompiledseccomp.Values
}

func (w withValues) Variables() precompiledseccomp.Values { return w.values }

// compileKind compiles the program of one kind of sentry.
func compileKind(opt config.Options) (precompiledseccomp.Program, error) {
	names := slices.Sorted(maps.Keys(opt.Vars()))
	p, err := precompiledseccomp.Precompile(opt.ConfigKey(), names, func(values precompiledseccomp.Values) *seccomp.Program {
		placeholders := opt
		placeholders.Platform = withValues{opt.Platform, values}
		return program(placeholders)
	})
	if err != nil {
		return p, err
	}
	for _, fd := range []uint32{3, 17, 70000} {
		opt.ControllerFD = fd
		if err := compiler.Compare(p, opt.Vars(), program(opt)); err != nil {
			return p, err
		}
	}
	return p, nil
}

// program is what gVisor compiles when it has no program for the options
// (runsc/boot/filter/filter.go, Install).
func program(opt config.Options) *seccomp.Program {
	rules, deny := config.Rules(opt)
	return &seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: deny}, {Rules: rules, Action: seccomp.Allow}},
		Options:  config.SeccompOptions(opt),
	}
}
