// SPDX-License-Identifier: Apache-2.0

package appstart

import (
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/pidone"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

// giveInit has the sentry start the init process, which starts the application.
// It is a file of this sandbox alone, in memory, that nobody can change.
func giveInit(p *specs.Process, d *proc.Donation) (fd int, _ *specs.Process, err error) {
	program, err := proc.MemFile(pidone.Name, pidone.Program(commandFiles(p)))
	if err != nil {
		return 0, nil, err
	}
	defer program.Close()
	// gVisor takes no other than one that is open for reading only.
	readOnly, err := os.OpenFile(proc.FDPath(program), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("open init process: %w", err)
	}
	return d.Give(readOnly), setup.WithInit(p), nil
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

// initFailure describes what the init process reports as gVisor does where it starts
// the application itself.
func initFailure(f *pidone.Failure, p *specs.Process) error {
	files := commandFiles(p)
	switch {
	case f.NoChild:
		return &sentry.RemoteError{Message: fmt.Sprintf("no process for it: %v", f.Errno)}
	case f.File >= 0 && f.File < len(files):
		return &sentry.RemoteError{Message: fmt.Sprintf("failed to load %s: %v", files[f.File], f.Errno)}
	case strings.Contains(p.Args[0], "/"):
		return &sentry.RemoteError{Message: fmt.Sprintf("failed to load %s: %v", files[0], f.Errno)}
	}
	return &sentry.RemoteError{Message: fmt.Sprintf("error finding executable %q in PATH %v: %v", p.Args[0], commandPath(p), f.Errno)}
}
