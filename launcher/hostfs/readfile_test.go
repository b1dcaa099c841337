// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A file is another one when it is written or replaced, and the same when its filesystem
// is mounted again, or its mode, owner or links change.
func TestFileID(t *testing.T) {
	t.Parallel()
	st := unix.Stat_t{Dev: 40, Ino: 7, Size: 12, Mtim: unix.Timespec{Sec: 5, Nsec: 6}, Ctim: unix.Timespec{Sec: 5}, Nlink: 1, Mode: unix.S_IFREG | 0o600}
	first := fileID(&st)
	for name, c := range map[string]struct {
		change func(*unix.Stat_t)
		same   bool
	}{
		"nothing":       {func(*unix.Stat_t) {}, true},
		"mounted again": {func(st *unix.Stat_t) { st.Dev = 41 }, true},
		"chmod":         {func(st *unix.Stat_t) { st.Mode, st.Ctim.Sec = unix.S_IFREG|0o644, 9 }, true},
		"linked":        {func(st *unix.Stat_t) { st.Nlink, st.Ctim.Sec = 2, 9 }, true},
		"replaced":      {func(st *unix.Stat_t) { st.Ino = 8 }, false},
		"longer":        {func(st *unix.Stat_t) { st.Size = 13 }, false},
		"a second":      {func(st *unix.Stat_t) { st.Mtim.Sec = 6 }, false},
		"a nanosecond":  {func(st *unix.Stat_t) { st.Mtim.Nsec = 7 }, false},
	} {
		changed := st
		c.change(&changed)
		if same := fileID(&changed) == first; same != c.same {
			t.Errorf("%s: the same: %v", name, same)
		}
	}
}
