// SPDX-License-Identifier: Apache-2.0

package gofer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// RefusedTypes are filesystems that are windows on the kernel: serving one to a
// sandbox would hand it the host.
var RefusedTypes = []string{
	"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf", "devpts", "nsfs",
	"devtmpfs", "configfs", "efivarfs", "pstore", "binfmt_misc", "fusectl", "mqueue", "autofs",
}

// Device is the filesystem of a mount.
func Device(m *mountinfo.Info) string { return fmt.Sprintf("%d:%d", m.Major, m.Minor) }

// IsReadOnly says whether nothing can be written through a mount.
func IsReadOnly(m *mountinfo.Info) bool {
	return slices.Contains(strings.Split(m.Options, ","), "ro")
}
