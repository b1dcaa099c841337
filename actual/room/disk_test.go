// SPDX-License-Identifier: Apache-2.0

package room

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// What root could use besides does not count as room.
func TestDiskLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		disk     Disk
		full     error
		pressure bool
	}{
		{Disk{Total: 100 << 30, Free: 50 << 30}, nil, false},
		{Disk{Total: 100 << 30, Free: 900 << 20}, nil, true},
		{Disk{Total: 100 << 30, Free: 1 << 20}, unix.ENOSPC, true},
		{Disk{Total: 1 << 20, Free: 100 << 10}, nil, true},
		{Disk{Total: 1 << 20, Free: 0}, unix.ENOSPC, true},
		{Disk{Total: 1 << 30, Free: 1 << 29, Files: 1000, FreeFiles: 3}, unix.ENOSPC, true},
		{Disk{Total: 1 << 30, Free: 1 << 29, Files: 0, FreeFiles: 0}, nil, false}, // btrfs
		{Disk{}, nil, false}, // one that does not tell
		{Disk{Total: 1 << 30, Free: 1 << 29, ReadOnly: true}, unix.EROFS, true},
	} {
		if err := c.disk.Full(); !errors.Is(err, c.full) {
			t.Errorf("%+v: %v, expected %v", c.disk, err, c.full)
		}
		if got := c.disk.Pressure(); (got != "") != c.pressure {
			t.Errorf("%+v: %q", c.disk, got)
		}
	}
}
