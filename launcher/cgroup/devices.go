// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const devicesController = "devices"

// alwaysAllowed follow every list of rules that takes something away: making
// nodes, and the devices that no program can do without. They are those that
// runc allows, but for consoles, which a sandbox gets as open files.
var alwaysAllowed = []string{"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm"}

// deviceSettings are the rules of devices in the order in which they apply. Only
// v1 has files for them; with cgroup2 alone they are left out, which lets nothing
// into a sandbox: its devices are gVisor's own, and its gofer opens none.
func deviceSettings(rules []specs.LinuxDeviceCgroup) (settings, error) {
	var out settings
	add := func(file, rule string) {
		out = append(out, setting{controller: devicesController, v1: file, value1: rule, optional: true})
	}
	denies := false
	for i, r := range rules {
		rule, err := deviceRule(&r)
		if err != nil {
			return nil, fmt.Errorf("resources.devices[%d]: %w", i, err)
		}
		if r.Allow {
			add("devices.allow", rule)
			continue
		}
		denies = true
		add("devices.deny", rule)
	}
	if denies {
		for _, rule := range alwaysAllowed {
			add("devices.allow", rule)
		}
	}
	return out, nil
}

func deviceRule(r *specs.LinuxDeviceCgroup) (string, error) {
	access := cmp.Or(r.Access, "rwm")
	if strings.Trim(access, "rwm") != "" {
		return "", fmt.Errorf("access %q, expected some of r, w and m", access)
	}
	number := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return strconv.FormatInt(*n, 10)
	}
	switch r.Type {
	case "", "a":
		if number(r.Major) != "*" || number(r.Minor) != "*" {
			return "", fmt.Errorf("type a with numbers, %s:%s, expected c or b", number(r.Major), number(r.Minor))
		}
		// The kernel takes no access here: it is all of them.
		if len(access) != len("rwm") {
			return "", fmt.Errorf("type a with access %q, expected rwm", access)
		}
		return "a", nil
	case "c", "b":
		return fmt.Sprintf("%s %s:%s %s", r.Type, number(r.Major), number(r.Minor), access), nil
	}
	return "", fmt.Errorf("type %q, expected a, b or c", r.Type)
}
