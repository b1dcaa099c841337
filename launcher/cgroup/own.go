// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// isUID says whether it is what makes the name of a group one that nobody else has.
func isUID(s string) bool { return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" }

// OwnOf opens the group of a process if it is one that was made for the sandbox
// of that name and nobody asked for another place. A group without directories
// if it is not. The caller has proven that the pid is the process it means.
func (h *Host) OwnOf(pid int, name string) (*Group, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, fmt.Errorf("look for cgroup: %w", err)
	}
	place := ownPlace(string(b), name)
	if place == "" {
		return &Group{}, nil
	}
	return h.openAll(place)
}

// ownPlace is the place that /proc/PID/cgroup names for the sandbox, "" if none.
func ownPlace(cgroups, name string) Place {
	for line := range strings.Lines(cgroups) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // ID:CONTROLLERS:PATH
		if len(f) != 3 {
			continue
		}
		if u, ok := strings.CutPrefix(f[2], "/"+parent+"/"+name+"-"); ok && isUID(u) {
			return Place(f[2][1:])
		}
	}
	return ""
}
