// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// group is the cgroup that everything measured runs in: a larger share of the
// processors than others have, and the processor time of the measurement alone.
type group struct {
	dirs []string // of the group, in each hierarchy
	cpu  []string // patterns of files with processor time, those of peers beside the group included
	root []string // cgroup.procs of the root group in each: this process ends there
}

const groupName = "sandboxctl-bench"

// enterGroup moves this process, whose children stay with it.
func enterGroup() (*group, error) {
	g := &group{}
	const at = "/sys/fs/cgroup/"
	var err error
	if _, statErr := os.Stat(at + "cgroup.controllers"); statErr == nil {
		dir := at + groupName
		// Sandboxes have groups of their own, below another parent.
		g.cpu = []string{dir + "*/cpu.stat", at + "sandboxctl/cpu.stat"}
		_ = os.WriteFile(at+"cgroup.subtree_control", []byte("+cpu"), 0) // else there is the time and no weight
		if err = g.enter(at, dir); err == nil {
			_ = share(groupName)
		}
	} else {
		g.cpu = []string{at + "cpuacct/" + groupName + "*/cpuacct.usage"}
		err = errors.Join(g.enter(at+"cpu", at+"cpu/"+groupName), g.enter(at+"cpuacct", at+"cpuacct/"+groupName))
		if err == nil {
			err = share(groupName)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the cgroup of the measurement: %w", err), g.leave())
	}
	return g, nil
}

// share gives a cgroup, which it makes, a larger share of the processors.
func share(name string) error {
	dir, file, value := "/sys/fs/cgroup/cpu/"+name, "cpu.shares", "51200"
	if roots := groupRoots(); len(roots) == 1 {
		dir, file, value = filepath.Join(roots[0], name), "cpu.weight", "10000"
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
}

func (g *group) enter(root, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	g.dirs = append(g.dirs, dir)
	g.root = append(g.root, filepath.Join(root, "cgroup.procs"))
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// leave moves this process to the root group and removes the group.
func (g *group) leave() error {
	var errs []error
	for i, root := range g.root {
		errs = append(errs, os.WriteFile(root, []byte("0"), 0), removeGroup(g.dirs[i]))
	}
	return errors.Join(errs...)
}

// removeGroup removes a cgroup. Processes in it may be ending.
func removeGroup(dir string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s can't be removed: %w", dir, err)
		}
	}
}

// groupRoots are the directories of all hierarchies.
func groupRoots() []string {
	const at = "/sys/fs/cgroup"
	if _, err := os.Stat(at + "/cgroup.controllers"); err == nil {
		return []string{at}
	}
	dirs, _ := filepath.Glob(at + "/*") // it is a good pattern
	return dirs
}

// removeGroups removes a cgroup and what is below it, in all hierarchies.
func removeGroups(name string) error {
	var errs []error
	for _, at := range groupRoots() {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(at, name), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			errs = append(errs, removeGroup(dir))
		}
	}
	return errors.Join(errs...)
}

// used is the processor time since the group was made.
func (g *group) used() (time.Duration, error) {
	var sum time.Duration
	for _, pattern := range g.cpu {
		files, err := filepath.Glob(pattern) // there are none before the first sandbox
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return 0, err
			}
			d, err := parseUsage(string(text))
			if err != nil {
				return 0, fmt.Errorf("%s: %w", f, err)
			}
			sum += d
		}
	}
	return sum, nil
}

// parseUsage reads cpuacct.usage (nanoseconds) and cpu.stat (usage_usec).
func parseUsage(text string) (time.Duration, error) {
	unit := time.Nanosecond
	if _, rest, ok := strings.Cut(text, "usage_usec "); ok {
		text, _, _ = strings.Cut(rest, "\n")
		unit = time.Microsecond
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return time.Duration(n) * unit, err
}
