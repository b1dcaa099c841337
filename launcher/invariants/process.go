// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/procfs"
)

// process is a sentry or gofer of the state directory.
type process struct {
	pid, parent int
	role        string // sentry or gofer
	sandbox     string
	pidfd       int
}

// alive says whether it is the process that was looked at, and lives.
func (p *process) alive() bool {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 0
		}
	}
}

type processes struct{ ours []*process }

func (ps *processes) close() {
	for _, p := range ps.ours {
		unix.Close(p.pidfd)
	}
}

// findProcesses finds the sentries and gofers that have a file of the tree open.
// The processes of a sentry's own, which look like it, are part of it.
func findProcesses(t *tree) (*processes, error) {
	pids, err := procfs.PIDs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	if len(pids) == 0 {
		return nil, errors.New("list processes: /proc has none")
	}
	ps := &processes{}
	for _, pid := range pids {
		if roleOf(pid) == "" {
			continue
		}
		if p := t.open(pid); p != nil {
			ps.ours = append(ps.ours, p)
		}
	}
	roots := ps.ours[:0:0]
	for _, p := range ps.ours {
		if slices.ContainsFunc(ps.ours, func(o *process) bool { return o.pid == p.parent }) {
			unix.Close(p.pidfd)
			continue
		}
		roots = append(roots, p)
	}
	ps.ours = roots
	return ps, nil
}

// roleOf is what a process says that it is. One that has ended, also a zombie,
// says nothing.
func roleOf(pid int) string {
	b, err := procfs.Read(pid, "cmdline")
	if err != nil {
		return ""
	}
	switch name, _, _ := strings.Cut(string(b), "\x00"); name {
	case companion.SentryName:
		return "sentry"
	case gofer.Argv0:
		return "gofer"
	}
	return ""
}

// open looks at one process, nil if it is none of this state directory. The
// pidfd is taken first, so that it is of the process that is looked at.
func (t *tree) open(pid int) *process {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	p := &process{pid: pid, pidfd: fd, role: roleOf(pid), parent: parentOf(pid)}
	if p.role != "" {
		p.sandbox = t.sandboxWith(pid)
	}
	if p.sandbox == "" {
		unix.Close(fd)
		return nil
	}
	return p
}

// sandboxWith is the sandbox whose files a process has open: they are where they
// should be, in the trash, or removed.
func (t *tree) sandboxWith(pid int) string {
	fds, err := os.ReadDir(procfs.Path(pid, "fd"))
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		link := procfs.Path(pid, "fd/"+fd.Name())
		if f, ok := t.files[inodeOf(link)]; ok && t.has(f.path, link) {
			return f.sandbox
		}
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		if rest, ok := strings.CutPrefix(target, t.path+"/"); ok {
			if name := sandboxOf(rest); name != "" {
				return name
			}
		}
	}
	return ""
}

// has says whether a file of the tree is the one that a process has open. An
// inode that was freed since the walk may be anybody's file by now: both must
// have it at the same time.
func (t *tree) has(path, link string) bool {
	info, err := t.root.Lstat(path)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && inode{st.Dev, st.Ino} == inodeOf(link)
}

// inodeOf is the inode of a file that a process has open, the zero one if that
// is not known.
func inodeOf(link string) inode {
	var st unix.Stat_t
	if unix.Stat(link, &st) != nil {
		return inode{}
	}
	return inode{st.Dev, st.Ino}
}

// parentOf is the parent of a process, 0 if that is not known.
func parentOf(pid int) int {
	n, _ := strconv.Atoi(procfs.Status(pid, "PPid"))
	return n
}

// lineage is a process, its parent, its parent's parent and so on.
func lineage(pid int) []int {
	var out []int
	for pid > 1 && len(out) < 64 {
		out = append(out, pid)
		pid = parentOf(pid)
	}
	return out
}

// members are the processes in cgroup directories.
func members(dirs []string) []int {
	var out []int
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err != nil {
			continue // removed meanwhile
		}
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				out = append(out, pid)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// exists says whether a process is there that has not ended.
func exists(pid int) bool {
	state := procfs.Status(pid, "State")
	return state != "" && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}
