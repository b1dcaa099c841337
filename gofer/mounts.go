// SPDX-License-Identifier: Apache-2.0

package gofer

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// RefusedTypes are filesystems that are windows on the kernel: serving one to a
// sandbox would hand it the host.
var RefusedTypes = []string{
	"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf", "devpts", "nsfs",
	"devtmpfs", "configfs", "efivarfs", "pstore", "binfmt_misc", "fusectl", "mqueue", "autofs",
}

// checkMounts refuses to serve what this process must not have in its jail. By
// now its mounts are the jail and the served trees, whatever came along below
// these, and nothing else: it is these that are judged. Before that it could
// only be told by paths, which somebody who may write there swaps meanwhile.
// proc is a descriptor of the host's procfs, which is in no mount any more.
func checkMounts(proc int) error {
	fd, err := unix.Openat(proc, "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	return judgeMounts(f)
}

// judgeMounts finds a refused filesystem in a list of mounts such as
// mountinfo. A list that can't be read, or has no root, is refused as
// well: nothing can be told of what is served.
func judgeMounts(list io.Reader) error {
	root := false
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		fields, rest, ok := strings.Cut(lines.Text(), " - ")
		f := strings.Fields(fields)
		if !ok || len(f) < 5 {
			return fmt.Errorf("list mounts: %q is no mount", lines.Text())
		}
		root = root || f[4] == "/"
		typ, _, _ := strings.Cut(rest, " ")
		if slices.Contains(RefusedTypes, typ) {
			return fmt.Errorf("%s is mounted at %s of what is to be served, which is never shared with a sandbox", typ, f[4])
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	if !root {
		return fmt.Errorf("list mounts: there is no root")
	}
	return nil
}
