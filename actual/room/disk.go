// SPDX-License-Identifier: Apache-2.0

package room

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Bounds of what is kept free, by the size of the disk.
const (
	leastFree  = 64 << 10 // below that nothing is created
	leastLogs  = 128 << 10
	mostFree   = 16 << 20
	mostLogs   = 1 << 30
	leastFiles = 16
	mostSum    = 4 << 30
)

// Disk is the room on the disk of a state directory. What only root may use does
// not count: it is there to mend the host with.
type Disk struct {
	Total, Free      uint64 // bytes
	Files, FreeFiles uint64 // inodes; Files is 0 where they are not counted
	ReadOnly         bool
}

// LeastFree is the free space below which nothing is created: 1 % of the disk.
func (d Disk) LeastFree() uint64 { return min(max(d.Total/100, leastFree), mostFree) }

// LeastFreeForLogs is the free space below which no logs are written and old ones
// are removed: 5 % of the disk.
func (d Disk) LeastFreeForLogs() uint64 { return min(max(d.Total/20, leastLogs), mostLogs) }

// MostLogs is how much the logs of all sandboxes may take together: 10 % of the
// disk.
func (d Disk) MostLogs() uint64 { return min(d.Total/10, mostSum) }

// Full says why nothing can be created, nil if something can.
func (d Disk) Full() error {
	switch {
	case d.ReadOnly:
		return fmt.Errorf("the disk of the state directory: %w", unix.EROFS)
	case d.Total > 0 && d.Free < d.LeastFree():
		return fmt.Errorf("the disk of the state directory has %d KiB free, %d KiB are needed: %w", d.Free>>10, d.LeastFree()>>10, unix.ENOSPC)
	case d.Files > 0 && d.FreeFiles < leastFiles:
		return fmt.Errorf("the disk of the state directory has room for %d files: %w", d.FreeFiles, unix.ENOSPC)
	}
	return nil
}

// Lacks says why there is no room for what a sandbox asks for beside what others may still
// write, "" if there is.
func (d Disk) Lacks(asked, others int64) string {
	free := int64(d.Free) - int64(d.LeastFreeForLogs())
	if d.Total == 0 || asked <= free-others { // one without a total does not count
		return ""
	}
	return fmt.Sprintf("no room for what it may write to the disk of the state directory (emptyDir, overlay: disk): it asks for %s, %s are free beside what is kept for logs, and other sandboxes may still write %s; ask for less, or make room",
		mebibytes(asked), mebibytes(max(free, 0)), mebibytes(others))
}

// mebibytes is an amount for people, in whole ones.
func mebibytes(n int64) string { return fmt.Sprintf("%dMi", n>>20) }

// Pressure says what is not done because room ran out, "" if there is enough.
func (d Disk) Pressure() string {
	switch err := d.Full(); {
	case d.ReadOnly:
		return err.Error() + "; what runs is left as it is until it can be written"
	case err != nil:
		return err.Error() + "; nothing is started or replaced and no logs are kept until there is room; sandboxes can be removed"
	case d.Total > 0 && d.Free < d.LeastFreeForLogs():
		return fmt.Sprintf("the disk of the state directory has %d KiB free: below %d KiB no logs are kept", d.Free>>10, d.LeastFreeForLogs()>>10)
	}
	return ""
}
