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
	if unix.Fstat(int(s.root.Fd()), &st) != nil {
		return 0
	}
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	return lockHolder(string(b), st.Dev, st.Ino)
}

// lockHolder finds the holder of a file's lock in the list of the kernel.
func lockHolder(locks string, dev, ino uint64) int {
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), ino)
	for line := range strings.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF; with -> it waits.
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" || f[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 1 {
			return pid
		}
	}
	return 0
}
