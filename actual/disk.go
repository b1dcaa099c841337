// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/fsys"
)

// The reserve: 16 records of the largest size that a manifest makes, or what an
// eighth of a small disk holds.
const (
	reserveDir   = "reserve"
	reserveSlots = 16
	reserveSize  = 64 << 10
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

// Disk looks at the disk.
func (s *Store) Disk() (Disk, error) {
	st, err := s.root.Statfs()
	if err != nil {
		return Disk{}, fmt.Errorf("look at the disk of the state directory: %w", err)
	}
	return Disk{
		Total: st.Blocks * uint64(st.Bsize), Free: st.Bavail * uint64(st.Bsize), Files: st.Files, FreeFiles: st.Ffree,
		ReadOnly: st.Flags&unix.ST_RDONLY != 0,
	}, nil
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

// openReserve opens the reserve, if there is one.
func (s *Store) openReserve() error {
	d, err := openDir(s.RootDir(), reserveDir)
	if err != nil {
		return err
	}
	s.reserve = atomicfile.NewReserve(d)
	return nil
}

// FillReserve makes what is missing of the reserve, as far as there is room. For
// the holder of the lock.
func (s *Store) FillReserve() error {
	disk, err := s.Disk()
	if err != nil {
		return err
	}
	if disk.Full() != nil {
		return nil // what is left of it is there
	}
	if s.reserve == nil {
		if err := s.root.Mkdir(reserveDir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create reserve: %w", err)
		}
		if err := s.openReserve(); err != nil {
			return fmt.Errorf("open reserve: %w", err)
		}
	}
	count := reserveSlots
	if disk.Total > 0 {
		count = int(min(reserveSlots, max(1, disk.Total/8/reserveSize)))
	}
	_, err = s.reserve.Fill(count, reserveSize)
	return err
}

// write replaces a file of the state. urgent says that the reserve may be used:
// what is written frees more than it takes.
func (s *Store) write(dir fsys.Dir, file string, b []byte, urgent bool) error {
	err := atomicfile.In{Dir: dir}.Write(file, b, 0o600)
	if urgent {
		return s.orReserve(err, dir, file, b)
	}
	return err
}

// orReserve writes a file by the reserve if there was no room for it.
func (s *Store) orReserve(err error, dir fsys.Dir, file string, b []byte) error {
	if err == nil || s.reserve == nil || !atomicfile.NoSpace(err) {
		return err
	}
	if rerr := s.reserve.Write(fsys.OSFile(dir), file, b, 0o600); rerr != nil {
		return errors.Join(err, rerr)
	}
	return nil
}
