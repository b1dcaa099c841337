// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// group is the cgroup that everything measured runs in: a larger share of the
// processors than others have, and the processor time of the measurement alone.
type group struct {
	dirs []string // of the group, in each hierarchy
	cpu  []string // files with processor time
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
		g.cpu = []string{dir + "/cpu.stat", at + "sandboxctl/cpu.stat"}
		_ = os.WriteFile(at+"cgroup.subtree_control", []byte("+cpu"), 0) // else there is the time and no weight
		if err = g.enter(at, dir); err == nil {
			_ = os.WriteFile(dir+"/cpu.weight", []byte("10000"), 0)
		}
	} else {
		g.cpu = []string{at + "cpuacct/" + groupName + "/cpuacct.usage"}
		err = errors.Join(g.enter(at+"cpu", at+"cpu/"+groupName), g.enter(at+"cpuacct", at+"cpuacct/"+groupName))
		if err == nil {
			err = os.WriteFile(at+"cpu/"+groupName+"/cpu.shares", []byte("51200"), 0)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the cgroup of the measurement: %w", err), g.leave())
	}
	return g, nil
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
		errs = append(errs, os.WriteFile(root, []byte("0"), 0))
		removed := false
		for deadline := time.Now().Add(10 * time.Second); !removed && time.Now().Before(deadline); {
			removed = os.Remove(g.dirs[i]) == nil
			if !removed {
				time.Sleep(50 * time.Millisecond) // processes that are ending
			}
		}
		if !removed {
			errs = append(errs, fmt.Errorf("%s can't be removed: processes are in it", g.dirs[i]))
		}
	}
	return errors.Join(errs...)
}

// used is the processor time since the group was made.
func (g *group) used() (time.Duration, error) {
	var sum time.Duration
	for i, f := range g.cpu {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) && i > 0 {
			continue // there has been no sandbox yet
		}
		if err != nil {
			return 0, err
		}
		d, err := parseUsage(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		sum += d
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
