// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockedBy is the pid of the daemon that holds the lock of the state directory, 0
// if none is known to. It asks the kernel and not a file, which a daemon can't
// write on a disk that is full.
func (s *Store) LockedBy() int {
	var st unix.Stat_t
	if unix.Fstat(int(s.RootDir().Fd()), &st) != nil {
		return 0
	}
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	if pid := lockHolder(string(b), st.Ino, func(_ int, dev string) bool {
		return dev == fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev))
	}); pid != 0 {
		return pid
	}
	// Some filesystems (btrfs) tell another device than the kernel lists.
	return lockHolder(string(b), st.Ino, func(pid int, _ string) bool { return hasOpen(pid, &st) })
}

// lockHolder finds the holder of the lock of an inode in the list of the kernel, for
// whom is says that it is the one on the right device.
func lockHolder(locks string, ino uint64, is func(pid int, dev string) bool) int {
	for line := range strings.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF; with -> it waits.
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" {
			continue
		}
		dev, isFile := strings.CutSuffix(f[5], fmt.Sprintf(":%d", ino))
		if pid, err := strconv.Atoi(f[4]); isFile && err == nil && pid > 1 && is(pid, dev) {
			return pid
		}
	}
	return 0
}

// hasOpen says whether a process has a file open. Not knowing is no.
func hasOpen(pid int, file *unix.Stat_t) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Stat(dir+"/"+fd.Name(), &st) == nil && st.Dev == file.Dev && st.Ino == file.Ino {
			return true
		}
	}
	return false
}
