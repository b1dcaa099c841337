// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/pidone"
)

// chooseInit decides whether process 1 of a manifest's sandbox is an init process
// of ours, and if not, why.
func (st *setup) chooseInit(asked *bool) {
	p := st.spec.Process
	switch call := refusedCall(st.spec.Linux.Seccomp); {
	case asked != nil && !*asked:
		st.init = "none: spec.init is false"
	case pidone.IsInit(p.Args):
		st.init = "none: the command is an init process"
	case st.startHooks != nil:
		st.init = "none: the program that runs the startContainer hooks becomes the application"
	case call != "":
		st.init = "none: the seccomp profile of the bundle is not sure to allow " + call
	case slices.ContainsFunc(p.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == "RLIMIT_NPROC" && r.Soft <= 1 }):
		st.init = "none: rlimits allow one process"
	case !pidone.Available():
		st.init = "none: there is none for " + runtime.GOARCH
	default:
		st.init = actual.InitOwn
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

// giveInit has the sentry start the init process, which starts the application.
// It is a file of this sandbox alone, in memory, that nobody can change.
func giveInit(p *specs.Process, d *donation) (fd int, _ *specs.Process, err error) {
	program, err := memfd(pidone.Name, pidone.Program(commandFiles(p)))
	if err != nil {
		return 0, nil, err
	}
	defer program.Close()
	// gVisor takes no other than one that is open for reading only.
	readOnly, err := os.OpenFile(fdPath(program), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("open init process: %w", err)
	}
	return d.give(readOnly), withInit(p), nil
}

// withInit is the process of the init process that starts another.
func withInit(p *specs.Process) *specs.Process {
	out := *p
	out.Args = append([]string{pidone.Name}, p.Args...)
	return &out
}

// commandFiles are the files that the command of a process may be, as gVisor looks
// for it (user.ResolveExecutablePath).
func commandFiles(p *specs.Process) (files []string) {
	name := p.Args[0]
	if path.IsAbs(name) {
		return []string{name}
	}
	if strings.Contains(name, "/") {
		return []string{path.Join("/", p.Cwd, name)}
	}
	for _, dir := range commandPath(p) {
		if path.IsAbs(dir) {
			files = append(files, path.Join(dir, name))
		}
	}
	return files
}

// commandPath is PATH of the environment of a process.
func commandPath(p *specs.Process) []string {
	for _, e := range p.Env {
		if list, ok := strings.CutPrefix(e, "PATH="); ok {
			return strings.Split(list, ":")
		}
	}
	return nil
}

// initFailure words what the init process reports as gVisor does where it starts
// the application itself.
func initFailure(f *pidone.Failure, p *specs.Process) error {
	files := commandFiles(p)
	switch {
	case f.NoChild:
		return &RemoteError{Message: fmt.Sprintf("no process for it: %v", f.Errno)}
	case f.File >= 0 && f.File < len(files):
		return &RemoteError{Message: fmt.Sprintf("failed to load %s: %v", files[f.File], f.Errno)}
	case strings.Contains(p.Args[0], "/"):
		return &RemoteError{Message: fmt.Sprintf("failed to load %s: %v", files[0], f.Errno)}
	}
	return &RemoteError{Message: fmt.Sprintf("error finding executable %q in PATH %v: %v", p.Args[0], commandPath(p), f.Errno)}
}
