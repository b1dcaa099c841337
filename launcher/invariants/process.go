// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/procfs"
	"sandboxctl.dev/launcher/salvage"
)

// findProcesses finds the sentries and gofers that have a file of the tree open.
// The processes of a sentry's own, which look like it, are part of it.
func findProcesses(t *tree) ([]salvage.Found, error) {
	// A caller without root sees fewer processes. It gets what it can see.
	found, err := salvage.Find(t.owner, func(err error) bool { return errors.Is(err, os.ErrPermission) })
	if err != nil {
		return nil, err
	}
	pids := map[int]bool{}
	for i := range found {
		pids[found[i].Identity.PID] = true
	}
	return slices.DeleteFunc(found, func(f salvage.Found) bool {
		// A process that is about to be started looks like one that was renamed.
		return f.Renamed || pids[parentOf(f.Identity.PID)]
	}), nil
}

// owner is the sandbox of a file that a process has open: it is where it should be,
// in the trash, or removed.
func (t *tree) owner(st *unix.Stat_t, link string) string {
	if f, ok := t.files[inode{st.Dev, st.Ino}]; ok && t.has(f.path, link) {
		return f.sandbox
	}
	target, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	rest, ok := strings.CutPrefix(target, t.path+"/")
	if !ok {
		return ""
	}
	return sandboxOf(rest)
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
