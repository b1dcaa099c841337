// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setting is one control file to write.
type setting struct {
	controller string // by its v1 name
	v1, v2     string // files; "" where the version has no such thing
	value1     string
	value2     string
	// from makes value2 out of what the file, and others of the group, say now. nil
	// leaves value2 as it is.
	from func(d *dir) (string, error)
	// optional settings need no effect where there is no file for them.
	optional bool
}

// change is a setting with the file that it is for.
type change struct {
	d           *dir
	file, value string
	controller  string
}

// Set sets the resources of a container. What is asked for and can't be had
// is an error that names it, but for rules of devices without cgroup v1. On error
// the group has the limits that it had.
func (g *Group) Set(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if err := g.checkUsage(r.Memory); err != nil {
		return err
	}
	settings, err := settingsOf(r)
	if err != nil {
		return err
	}
	return g.set(settings, r.Unified)
}

// set writes settings, and cgroup2's files by name.
func (g *Group) set(settings []setting, byName map[string]string) error {
	var changes []change
	for i := range settings {
		w, err := g.locate(&settings[i])
		if err != nil {
			return err
		}
		if w != nil {
			changes = append(changes, *w)
		}
	}
	unified, err := g.unified(byName)
	if err != nil {
		return err
	}
	done, err := writeAll(append(changes, unified...))
	if err != nil {
		// Half of an update would be limits that nobody has asked for.
		slices.Reverse(done)
		_, uerr := writeAll(done)
		return errors.Join(err, uerr)
	}
	return nil
}

// checkUsage refuses a limit of memory below what is used, where that is asked
// for.
func (g *Group) checkUsage(m *specs.LinuxMemory) error {
	if m == nil || m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || m.Limit == nil || *m.Limit <= 0 {
		return nil
	}
	if used := g.Stats().MemoryBytes; used > *m.Limit {
		return fmt.Errorf("resources.memory.limit: %d is less than the %d bytes that are used", *m.Limit, used)
	}
	return nil
}

// locate finds the file of a setting. It returns nil for an optional one that the
// host has no file for.
func (g *Group) locate(s *setting) (*change, error) {
	d, file := g.holder(s.controller, s.v1, s.v2)
	value, onV2 := s.value1, d != nil && d == g.v2()
	if onV2 {
		value = s.value2
	}
	switch {
	case d == nil && s.optional, file == "" && s.optional:
		return nil, nil
	case d == nil:
		return nil, fmt.Errorf("set %s: this host has no cgroup hierarchy for it", s.name())
	case file == "":
		return nil, fmt.Errorf("set %s: this version of cgroups has no such setting", s.name())
	}
	if _, err := readFile(d.fd(), file); errors.Is(err, os.ErrNotExist) {
		if s.optional {
			return nil, nil
		}
		return nil, fmt.Errorf("set %s: this host does not have the %s controller, or not this setting, in %s: %w", file, s.controller, d.path, err)
	}
	if onV2 && s.from != nil {
		var err error
		if value, err = s.from(d); err != nil {
			return nil, err
		}
	}
	return &change{d, file, value, s.controller}, nil
}

func (s *setting) name() string {
	if s.v1 != "" {
		return s.v1
	}
	return s.v2
}

// unified are cgroup2's files by name.
func (g *Group) unified(values map[string]string) ([]change, error) {
	if len(values) == 0 {
		return nil, nil
	}
	d := g.v2()
	if d == nil {
		return nil, errors.New("set resources.unified: this host has no cgroup2 hierarchy")
	}
	var out []change
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !validName(name) || strings.HasPrefix(name, "cgroup.") {
			return nil, fmt.Errorf("set resources.unified: %q is not a file of a controller", name)
		}
		out = append(out, change{d: d, file: name, value: values[name]})
	}
	return out, nil
}

// dependent are the controllers with files that limit each other: the kernel
// takes them in one order only, and which one depends on what they say now. A
// period must not make the share larger than the parent's before the quota is
// lowered; memory must not exceed memory and swap while both are raised.
var dependent = []string{cpuController, memoryController}

// writeAll writes in order, and what the kernel does not take yet again after the
// others, for as long as one more is taken each time. It returns what would undo
// it.
func writeAll(changes []change) (undo []change, err error) {
	for len(changes) > 0 {
		var again []change
		var first error
		for _, w := range changes {
			before := w.before()
			err := w.d.set(w.file, w.value)
			if errors.Is(err, unix.EINVAL) && slices.Contains(dependent, w.controller) {
				again = append(again, w)
				first = errors.Join(first, err)
				continue
			}
			if err != nil {
				return undo, err
			}
			undo = append(undo, before...)
		}
		if len(again) == len(changes) {
			return undo, fmt.Errorf("%w (does it exceed a limit of the parent group, or one that it depends on?)", first)
		}
		changes = again
	}
	return undo, nil
}

// before are the changes that restore what is in force, the last one first. There are
// none for files that don't say it: rules of devices, and those with a line for each of
// several devices.
func (w *change) before() (undo []change) {
	add := func(file string) {
		text, err := readFile(w.d.fd(), file)
		text = strings.TrimSpace(text)
		if file == "memory.oom_control" {
			text, _, _ = strings.Cut(strings.TrimPrefix(text, "oom_kill_disable "), "\n")
		}
		if err == nil && text != "" && !strings.Contains(text, "\n") {
			undo = append(undo, change{w.d, file, text, w.controller})
		}
	}
	if idle, _ := readFile(w.d.fd(), "cpu.idle"); w.file == "cpu.idle" && strings.TrimSpace(idle) == "0" {
		// A group that is idle no longer has the weight of a new one.
		add("cpu.shares")
		add("cpu.weight")
	}
	add(w.file)
	return undo
}
