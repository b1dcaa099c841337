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

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
)

// Place is where an OCI client wants the group of a container: a path below the
// root of every hierarchy.
type Place string

// Own is the place of a sandbox's group where nobody asks for another.
func Own(name, uid string) Place { return Place(path.Join(parent, name+"-"+uid)) }

// Find returns the directories that there are at a place, in every hierarchy and
// sorted, also those that another program made.
func (h *Host) Find(p Place) ([]string, error) {
	var out []string
	for _, m := range h.mounts() {
		d := path.Join(m, string(p))
		switch _, err := os.Lstat(d); {
		case err == nil:
			out = append(out, d)
		case !errors.Is(err, os.ErrNotExist):
			return nil, fmt.Errorf("look for cgroup: %w", err)
		}
	}
	return out, nil
}

// ParsePlace reads linux.cgroupsPath: an absolute path, one relative to this
// program's own group, or systemd's SLICE:PREFIX:NAME, which becomes the path
// that systemd would use. Empty is a group of the name given.
func ParsePlace(cgroupsPath, name string) (Place, error) {
	p := cgroupsPath
	switch parts := strings.Split(p, ":"); {
	case p == "":
		p = path.Join(parent, name)
	case len(parts) == 3:
		var err error
		if p, err = systemdPath(parts[0], parts[1], parts[2]); err != nil {
			return "", fmt.Errorf("cgroupsPath %q: %w", cgroupsPath, err)
		}
	case !path.IsAbs(p):
		p = parent + "/" + p // not Join, which would hide a ".."
	}
	for c := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if !validName(c) {
			return "", fmt.Errorf("cgroupsPath %q: expected a path without empty, . or .. components", cgroupsPath)
		}
	}
	p = strings.Trim(p, "/")
	if p == parent {
		return "", fmt.Errorf("cgroupsPath %q: the groups of all sandboxes are in it", cgroupsPath)
	}
	return Place(p), nil
}

// systemdPath is where systemd puts the scope PREFIX-NAME of a slice.
func systemdPath(slice, prefix, name string) (string, error) {
	base, ok := strings.CutSuffix(cmp.Or(slice, "system.slice"), ".slice")
	if !ok || base == "" || strings.Contains(slice+prefix+name, "/") || name == "" {
		return "", errors.New("expected SLICE.slice:PREFIX:NAME")
	}
	out, upTo := "", ""
	if base != "-" {
		// a-b.slice is in a.slice.
		for part := range strings.SplitSeq(base, "-") {
			if part == "" {
				return "", errors.New("expected SLICE.slice:PREFIX:NAME")
			}
			upTo = strings.TrimPrefix(upTo+"-"+part, "-")
			out = path.Join(out, upTo+".slice")
		}
	}
	if strings.HasSuffix(name, ".slice") {
		return path.Join(out, name), nil
	}
	if prefix != "" {
		name = prefix + "-" + name
	}
	return path.Join(out, name+".scope"), nil
}

// CreateAt makes the group of a container in every hierarchy there is, so that
// what it uses is accounted also without limits, and sets its resources. A group
// that holds processes, or has groups below it that do, is somebody else's and is refused. What is asked for and
// can't be had is an error. On error nothing is left but parent directories.
func (h *Host) CreateAt(own string, p Place, r *specs.LinuxResources) (_ *Group, err error) {
	g := &Group{mark: h.markOf(own)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.discard())
		}
	}()
	for _, m := range h.mounts() {
		if err := h.add(g, m, p); err != nil {
			return nil, err
		}
	}
	g.apply = func() error {
		if err := h.delegateAll(p); err != nil {
			return err
		}
		return g.Set(r)
	}
	if err := g.apply(); err != nil {
		if !g.trimmed() {
			return nil, err
		}
		g.unset = true // it gets its limits with its first process
	}
	return g, nil
}

// add makes the directory of a place in one hierarchy, unless the group has it.
func (h *Host) add(g *Group, mount string, p Place) error {
	full := path.Join(mount, string(p))
	if slices.ContainsFunc(g.dirs, func(d *dir) bool { return d.path == full }) {
		return nil
	}
	// What was removed in a hierarchy is made again, and again. A hierarchy that is not mounted
	// any more would have us try that until the time is over.
	if _, err := os.Lstat(mount); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("create cgroup %s: the hierarchy is not mounted any more: %w", full, err)
	}
	controllers := h.controllersOf(mount)
	return g.made(func() (*dir, error) {
		d, err := makeAt(mount, p, controllers)
		if err != nil {
			return nil, fmt.Errorf("create cgroup %s: %w", full, err)
		}
		return d, nil
	})
}

// controllersOf are the v1 controllers of a hierarchy, none if it is cgroup2.
func (h *Host) controllersOf(mount string) []string {
	var out []string
	for _, c := range slices.Sorted(maps.Keys(h.v1)) {
		if h.v1[c] == mount {
			out = append(out, c)
		}
	}
	return out
}

func makeAt(mount string, p Place, controllers []string) (*dir, error) {
	cpuset := slices.Contains(controllers, cpusetController)
	at, name, err := walkTo(mount, p, func(dir *os.File, c string) error {
		err := crashpoint.Do(crashpoint.CgroupParent, func() error { return unix.Mkdirat(int(dir.Fd()), c, 0o755) })
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if cpuset {
			return inheritCpuset(dir, c)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = crashpoint.Do(crashpoint.CgroupCreate, func() error { return unix.Mkdirat(int(at.Fd()), name, 0o755) })
	existed := errors.Is(err, unix.EEXIST)
	if err != nil && !existed {
		return nil, errors.Join(err, at.Close())
	}
	d, err := openMade(at, path.Join(mount, path.Dir(string(p))), name, controllers, existed)
	if err != nil {
		if !existed {
			// No record and no group names the directory: nobody else would remove it.
			_ = unix.Unlinkat(int(at.Fd()), name, unix.AT_REMOVEDIR)
		}
		return nil, errors.Join(err, at.Close())
	}
	return d, nil
}

// openMade prepares a directory that makeAt has made or found, and opens it.
func openMade(at *os.File, dirPath, name string, controllers []string, existed bool) (*dir, error) {
	if slices.Contains(controllers, cpusetController) {
		if err := inheritCpuset(at, name); err != nil {
			return nil, err
		}
	}
	if existed {
		// Left by an attempt that was cut short, or in use. Who is below it counts too:
		// with the group the kernel would kill all of them.
		group, err := openDir(int(at.Fd()), name)
		if err != nil {
			return nil, err
		}
		err = unoccupied(group, path.Join(dirPath, name), 0)
		group.Close()
		if err != nil {
			return nil, fmt.Errorf("it exists already and %w", err)
		}
	}
	return newDir(at, dirPath, name, controllers)
}

// walkTo opens the parent directory of a place, following no link, and returns
// the last component. enter is called for every other before it is opened.
func walkTo(mount string, p Place, enter func(dir *os.File, component string) error) (*os.File, string, error) {
	at, err := os.OpenFile(mount, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", err
	}
	parts := strings.Split(string(p), "/")
	for _, c := range parts[:len(parts)-1] {
		err := enter(at, c)
		var next *os.File
		if err == nil {
			next, err = openDir(int(at.Fd()), c)
		}
		at.Close()
		if err != nil {
			return nil, "", err
		}
		at = next
	}
	return at, parts[len(parts)-1], nil
}

// inheritCpuset gives a v1 cpuset what its parent has: one without processors
// and memory can't hold a process.
func inheritCpuset(parentDir *os.File, name string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := readFile(int(parentDir.Fd()), path.Join(name, file))
		if err != nil {
			return err
		}
		if strings.TrimSpace(own) != "" {
			continue
		}
		value, err := readFile(int(parentDir.Fd()), file)
		if err != nil {
			return err
		}
		if err := writeFile(int(parentDir.Fd()), path.Join(name, file), strings.TrimSpace(value)); err != nil {
			return err
		}
	}
	return nil
}

// delegateAll makes the controllers of cgroup2 available to a place, as far as
// that is possible: Set says what is missing.
func (h *Host) delegateAll(p Place) error {
	if h.v2 == "" {
		return nil
	}
	b, err := os.ReadFile(path.Join(h.v2, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	for c := range strings.FieldsSeq(string(b)) {
		_ = h.delegate(p, c)
	}
	return nil
}

// OpenRecorded is Open or OpenAt, as the record says: p is empty for a group that Create
// made.
func (h *Host) OpenRecorded(p Place, dirs []string) (*Group, error) {
	if p == "" {
		return h.Open(dirs)
	}
	return h.OpenAt(p, dirs)
}

// OpenAt is Open for the directories of a group that CreateAt made.
func (h *Host) OpenAt(p Place, dirs []string) (*Group, error) {
	g := &Group{}
	for _, d := range dirs {
		mount, ok := strings.CutSuffix(d, "/"+string(p))
		if !ok || !slices.Contains(h.mounts(), mount) {
			return nil, errors.Join(fmt.Errorf("open cgroup: %q is not one of %s", d, p), g.Close())
		}
		at, name, err := walkTo(mount, p, func(*os.File, string) error { return nil })
		var opened *dir
		if err == nil {
			if opened, err = newDir(at, path.Dir(d), name, h.controllersOf(mount)); err != nil {
				at.Close()
			}
		}
		switch {
		case err == nil:
			g.dirs = append(g.dirs, opened)
		case !errors.Is(err, os.ErrNotExist):
			return nil, errors.Join(fmt.Errorf("open cgroup %s: %w", d, err), g.Close())
		}
	}
	return g, nil
}

// openAll opens what there is of the group of a place in every hierarchy.
func (h *Host) openAll(p Place) (*Group, error) {
	var dirs []string
	for _, m := range h.mounts() {
		dirs = append(dirs, path.Join(m, string(p)))
	}
	return h.OpenAt(p, dirs)
}
