// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// freezers are the control files of both versions: the one that says whether a
// group itself was frozen, and the one, with its value, that thaws it.
var freezers = []struct{ self, file, thawed string }{
	{"cgroup.freeze", "cgroup.freeze", "0"},
	{"freezer.self_freezing", "freezer.state", "THAWED"},
}

// FrozenBy returns the group that keeps every process of this one from running:
// itself or one above it. "" if there is none. A process that is started in a
// frozen group never executes its program, and its parent waits for that.
func (g *Group) FrozenBy() (string, error) { return FrozenBy(g.Dirs()) }

// FrozenBy is that of the group with these directories.
func FrozenBy(dirs []string) (string, error) {
	for _, d := range dirs {
		for p := d; p != "/" && p != "."; p = path.Dir(p) {
			frozen, inside, err := selfFrozen(p)
			if err != nil {
				return "", fmt.Errorf("look whether %s is frozen: %w", p, err)
			}
			if frozen {
				return p, nil
			}
			if !inside {
				break
			}
		}
	}
	return "", nil
}

// selfFrozen says whether a group was frozen itself, and whether the directory is
// a group that could be: the root of a hierarchy is none.
func selfFrozen(p string) (frozen, inside bool, err error) {
	for _, f := range freezers {
		b, err := os.ReadFile(path.Join(p, f.self))
		if trimmed(err) {
			continue // no such group, or no longer
		}
		if err != nil {
			return false, false, err
		}
		return strings.TrimSpace(string(b)) == "1", true, nil
	}
	return false, false, nil
}

// Thaw lets the processes of the group run, as far as it is frozen itself. With v1
// a frozen process does not even die.
func (g *Group) Thaw() error {
	var errs []error
	for _, d := range g.dirs {
		for _, f := range freezers {
			errs = append(errs, d.setIfThere(f.file, f.thawed))
		}
	}
	return errors.Join(errs...)
}
