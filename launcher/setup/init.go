// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/pidone"
)

// chooseInit decides whether process 1 of a manifest's sandbox is an init process
// of ours, and if not, why.
func (st *Setup) chooseInit(asked *bool) {
	p := st.App().Spec.Process
	switch call := refusedCall(st.App().Spec.Linux.Seccomp); {
	case asked != nil && !*asked:
		st.App().Init = "none: spec.init is false"
	case pidone.IsInit(p.Args):
		st.App().Init = "none: the command is an init process"
	case st.App().StartHooks != nil:
		st.App().Init = "none: the program that runs the startContainer hooks becomes the application"
	case call != "":
		st.App().Init = "none: the seccomp profile of the bundle is not sure to allow " + call
	case slices.ContainsFunc(p.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == "RLIMIT_NPROC" && r.Soft <= 1 }):
		st.App().Init = "none: rlimits allow one process"
	case !pidone.Available():
		st.App().Init = "none: there is none for " + runtime.GOARCH
	default:
		st.App().Init = actual.InitOwn
	}
}

// refusedCall is a system call of the init process that a profile may refuse, ""
// if there is none. The profile is for the init process too.
func refusedCall(s *specs.LinuxSeccomp) string {
	if s == nil {
		return ""
	}
	for _, call := range pidone.SystemCalls {
		allowed := s.DefaultAction == specs.ActAllow
		for _, rule := range s.Syscalls {
			if !slices.Contains(rule.Names, call) {
				continue
			}
			if rule.Action != specs.ActAllow {
				return call
			}
			allowed = allowed || len(rule.Args) == 0
		}
		if !allowed {
			return call
		}
	}
	return ""
}

// WithInit is the process of the init process that starts another.
func WithInit(p *specs.Process) *specs.Process {
	out := *p
	out.Args = append([]string{pidone.Name}, p.Args...)
	return &out
}

// Reports says whether a start is reported.
func (st *Setup) Reports() bool {
	return st.App().StartHooks != nil || st.App().Init == actual.InitOwn && !st.App().Restores
}
