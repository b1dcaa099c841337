// SPDX-License-Identifier: Apache-2.0

package room

import (
	"errors"
	"strings"
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

// What is asked for must fit beside what is kept for logs and what others may write.
func TestLacks(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	disk := Disk{Total: 2000 * mib, Free: 600 * mib} // 100 of it are kept for logs
	for _, c := range []struct {
		disk          Disk
		others, asked int64
		want          string
	}{
		{disk, 0, 500 * mib, ""},
		{disk, 0, 501 * mib, "it asks for 501Mi, 500Mi are free beside what is kept for logs, and other sandboxes may still write 0Mi"},
		{disk, 400 * mib, 100 * mib, ""},
		{disk, 400 * mib, 101 * mib, "other sandboxes may still write 400Mi"},
		{disk, 900 * mib, mib, "500Mi are free"},
		{Disk{Total: 2000 * mib, Free: 50 * mib}, 0, mib, "0Mi are free"},
		{Disk{}, 0, 500 * mib, ""}, // a filesystem that does not count
	} {
		if got := c.disk.Lacks(c.asked, c.others); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, expected %q", c, got, c.want)
		}
	}
}
