// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// markName is the extended attribute of a group that holds the path of the state
// directory it was made for. A process can overwrite its arguments, but it can't
// leave its group or change this: only root of the host can.
const markName = "trusted.sandboxctl.state"

// maxMark is the longest path that is read from a mark.
const maxMark = unix.PathMax

// Mark has every group that is made from now on carry the path of a state
// directory.
func (h *Host) Mark(state string) { h.mark = state }

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

// Marked is a group that carries a mark, whether or not a record knows it.
type Marked struct {
	Name, UID string // of its sandbox
	State     string // the path of the state directory
	dirs      []string
}

// String is the first directory of the group.
func (m *Marked) String() string { return m.dirs[0] }

// Marked lists the groups of sandboxes that carry a mark, sorted. It looks where
// groups are unless an OCI client asks for another place.
func (h *Host) Marked() ([]Marked, error) {
	found := map[string]*Marked{}
	for _, mount := range h.mounts() {
		if err := addMarked(found, path.Join(mount, parent)); err != nil {
			return nil, fmt.Errorf("look for cgroups: %w", err)
		}
	}
	var out []Marked
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if m := found[name]; m.State != "" {
			out = append(out, *m)
		}
	}
	return out, nil
}

func addMarked(found map[string]*Marked, at string) error {
	d, err := openDir(unix.AT_FDCWD, at)
	if trimmed(err) {
		return nil // no sandbox has had a group in this hierarchy
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: at, Err: err}
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		name, id, ok := splitOwn(n)
		if !ok {
			continue
		}
		m := found[n]
		if m == nil {
			m = &Marked{Name: name, UID: id}
			found[n] = m
		}
		p := path.Join(at, n)
		m.dirs = append(m.dirs, p)
		if m.State == "" {
			if m.State, err = readMark(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// splitOwn splits the name of a group into that of its sandbox and its uid.
func splitOwn(n string) (name, id string, ok bool) {
	i := strings.LastIndexByte(n, '-')
	if i < 1 || !uid.MatchString(n[i+1:]) {
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
	slices.Sort(out)
	return slices.Compact(out), nil
}

func addMembers(out *[]int, group *os.File, at string, depth int) error {
	if depth > maxBelow {
		return fmt.Errorf("%s has groups below it, too deep to be looked at", at)
	}
	procs, err := readFile(int(group.Fd()), "cgroup.procs")
	if err != nil {
		return err
	}
	for f := range strings.FieldsSeq(procs) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return err
		}
		*out = append(*out, pid)
	}
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
