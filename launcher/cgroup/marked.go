// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// markName is the extended attribute of a group that holds the path of the state
// directory it was made for, a zero byte, and the name and uid of its sandbox. A
// process can overwrite its arguments, but it can't leave its group or change this:
// only root of the host can.
const markName = "trusted.sandboxctl.state"

// maxMark is the longest mark that is read.
const maxMark = unix.PathMax + 1 + 255

// Mark has every group that is made from now on carry the path of a state
// directory.
func (h *Host) Mark(state string) { h.mark = state }

// markOf is the mark of the group of a sandbox, which own names as splitOwn reads it.
func (h *Host) markOf(own string) string {
	if h.mark == "" {
		return ""
	}
	return h.mark + "\x00" + own
}

// setMark marks a directory. A host where root may not do that (in a user
// namespace) has groups without marks: what the arguments of processes say is left.
func (d *dir) setMark() error {
	if d.mark == "" {
		return nil
	}
	err := unix.Fsetxattr(d.fd(), markName, []byte(d.mark), 0)
	if err == nil || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return fmt.Errorf("mark cgroup %s: %w", d.path, err)
}

// Marked is the group of a sandbox, whether or not a record knows it.
type Marked struct {
	Name, UID string // of its sandbox
	// State is the path of the state directory, "" if the group has no mark: this
	// host has none, or an earlier version has made it.
	State string
	dirs  []string
}

// String is the first directory of the group.
func (m *Marked) String() string { return m.dirs[0] }

// Marked lists the groups of sandboxes, sorted: those that are where groups are unless
// an OCI client asks for another place, and those at any place that carry a mark and
// that a live process is in, or below. memberships are what /proc/PID/cgroup says of
// processes.
func (h *Host) Marked(memberships []string) ([]Marked, error) {
	l := lookup{found: map[string]*Marked{}, seen: map[string]bool{}}
	for _, mount := range h.mounts() {
		if err := l.below(path.Join(mount, parent)); err != nil {
			return nil, fmt.Errorf("look for cgroups: %w", err)
		}
	}
	for _, m := range memberships {
		for line := range strings.Lines(m) {
			if err := l.above(h.member(line)); err != nil {
				return nil, fmt.Errorf("look for cgroups of processes: %w", err)
			}
		}
	}
	var out []Marked
	for _, own := range slices.Sorted(maps.Keys(l.found)) {
		out = append(out, *l.found[own])
	}
	return out, nil
}

// lookup is what has been found so far.
type lookup struct {
	found map[string]*Marked // by name and uid
	seen  map[string]bool    // directories
}

// below adds the groups in a directory.
func (l *lookup) below(at string) error {
	d, err := openDir(unix.AT_FDCWD, at)
	if trimmed(err) {
		return nil // no sandbox has had a group in this hierarchy
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: at, Err: err}
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	for _, e := range entries {
		if !e.IsDir() {
			continue // a file of the controllers
		}
		if err := l.add(path.Join(at, e.Name()), e.Name()); err != nil {
			return err
		}
	}
	return err
}

// above adds a group of a hierarchy, and those that it is below.
func (l *lookup) above(mount, group string) error {
	for ; mount != "" && group != "/" && group != "."; group = path.Dir(group) {
		at := path.Join(mount, group)
		if l.seen[at] {
			return nil // and what is above it
		}
		if err := l.add(at, ""); err != nil {
			return err
		}
	}
	return nil
}

// add adds the group at a directory if it has a mark, or else if own is the name of
// the group of a sandbox.
func (l *lookup) add(at, own string) error {
	l.seen[at] = true
	if m := l.found[own]; m != nil && m.State != "" {
		m.dirs = append(m.dirs, at) // its mark was read in another hierarchy
		return nil
	}
	mark, err := readMark(at)
	if err != nil {
		return err
	}
	state, owner, _ := strings.Cut(mark, "\x00")
	own = cmp.Or(owner, own)
	name, id, ok := splitOwn(own)
	if !ok {
		return nil
	}
	m := l.found[own]
	if m == nil {
		m = &Marked{Name: name, UID: id}
		l.found[own] = m
	}
	m.dirs = append(m.dirs, at)
	m.State = cmp.Or(m.State, state)
	return nil
}

// member reads a line of /proc/PID/cgroup: where its hierarchy is mounted, "" if it is
// not, and the group of the process in it.
func (h *Host) member(line string) (mount, group string) {
	_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
	controllers, group, ok := strings.Cut(rest, ":")
	if !ok || !path.IsAbs(group) || strings.HasPrefix(group, "/..") {
		return "", "" // of another cgroup namespace: it is not below what is mounted
	}
	if controllers == "" {
		return h.v2, path.Clean(group)
	}
	for c := range strings.SplitSeq(controllers, ",") {
		if mount := h.v1[c]; mount != "" {
			return mount, path.Clean(group)
		}
	}
	return "", ""
}

// splitOwn splits the name of a group into that of its sandbox and its uid.
func splitOwn(n string) (name, id string, ok bool) {
	i := strings.LastIndexByte(n, '-')
	if i < 1 || !isUID(n[i+1:]) {
		return "", "", false
	}
	return n[:i], n[i+1:], true
}

// readMark reads the mark of a directory, "" if it has none or is gone.
func readMark(p string) (string, error) {
	b := make([]byte, maxMark)
	n, err := unix.Lgetxattr(p, markName, b)
	if trimmed(err) || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "getxattr", Path: p, Err: err}
	}
	return string(b[:n]), nil
}

// Members are the processes in the group and in groups below it. 0 stands for
// those of a pid namespace that this program does not see.
//
// A group that had no mark when it was found is asked for it again, and State is set: a
// launcher marks a group before it puts a process into it, and the group may have been
// found just before that, or been removed and made again since.
func (m *Marked) Members() ([]int, error) {
	var out []int
	for _, p := range m.dirs {
		d, err := openDir(unix.AT_FDCWD, p)
		if err == nil {
			err = addMembers(&out, d, p, 0)
			d.Close()
		}
		if err != nil && !trimmed(err) {
			return nil, fmt.Errorf("look for processes of %s: %w", p, err)
		}
	}
	for _, p := range m.dirs {
		if m.State != "" || len(out) == 0 {
			break
		}
		mark, err := readMark(p)
		if err != nil {
			return nil, err
		}
		m.State, _, _ = strings.Cut(mark, "\x00")
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func addMembers(out *[]int, group *os.File, at string, depth int) error {
	if depth > maxBelow {
		return fmt.Errorf("%s has groups below it, too deep to be looked at", at)
	}
	pids, err := readPIDs(int(group.Fd()))
	if err != nil {
		return err
	}
	*out = append(*out, pids...)
	names, err := childGroups(group)
	if err != nil {
		return err
	}
	for _, n := range names {
		child, err := openDir(int(group.Fd()), n)
		if err == nil {
			err = addMembers(out, child, path.Join(at, n), depth+1)
			child.Close()
		}
		if err != nil && !trimmed(err) {
			return err
		}
	}
	return nil
}

// mounts are the mount points of all hierarchies, each once.
func (h *Host) mounts() []string {
	out := slices.AppendSeq([]string{h.v2}, maps.Values(h.v1))
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(m string) bool { return m == "" })
}
