// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxBelow bounds how deep below a sandbox's group others are looked for.
const maxBelow = 32

// emptied removes the groups below one, which root has made there: the kernel
// removes no group with others below it. It returns who is still in the group or
// below it, "" if no process is. No process is signalled: somebody else moved it
// there, if the group is one of v1.
func emptied(group *os.File, at string, depth int) (holder string) {
	if procs, err := readFile(int(group.Fd()), "cgroup.procs"); err == nil && procs != "" {
		holder = fmt.Sprintf("%s holds processes %s", at, strings.Join(strings.Fields(procs), ", "))
	}
	names, err := childGroups(group)
	if err != nil {
		return holder
	}
	if depth == maxBelow && len(names) > 0 {
		return at + " has groups below it, too deep to be removed here"
	}
	for _, name := range names {
		child, err := openDir(int(group.Fd()), name)
		if err != nil {
			continue // it is gone
		}
		below := emptied(child, path.Join(at, name), depth+1)
		child.Close()
		if unix.Unlinkat(int(group.Fd()), name, unix.AT_REMOVEDIR) != nil && holder == "" {
			holder = below
		}
	}
	return holder
}

// unoccupied is the error that a process is in a group or below it.
func unoccupied(group *os.File, at string, depth int) error {
	procs, err := readFile(int(group.Fd()), "cgroup.procs")
	if trimmed(err) && depth > 0 {
		return nil // it was removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("can't be read: %w", err)
	}
	if procs != "" {
		return fmt.Errorf("holds processes, in %s: %s", at, strings.Join(strings.Fields(procs), ", "))
	}
	names, err := childGroups(group)
	if err != nil {
		return fmt.Errorf("can't be read: %w", err)
	}
	if depth == maxBelow && len(names) > 0 {
		return fmt.Errorf("%s has groups below it, too deep to be looked at", at)
	}
	for _, name := range names {
		child, err := openDir(int(group.Fd()), name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = unoccupied(child, path.Join(at, name), depth+1)
		child.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// childGroups are the names of the groups in one, read again each time.
func childGroups(group *os.File) ([]string, error) {
	dir, err := openDir(int(group.Fd()), ".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, err
}
