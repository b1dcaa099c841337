// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/room"
)

// The reserve: 16 records of the largest size that a manifest makes, or what an
// eighth of a small disk holds.
const (
	reserveDir   = "reserve"
	reserveSlots = 16
	reserveSize  = 64 << 10
)

// Disk looks at the disk.
func (s *Store) Disk() (room.Disk, error) {
	st, err := s.root.Statfs()
	if err != nil {
		return room.Disk{}, fmt.Errorf("look at the disk of the state directory: %w", err)
	}
	return room.Disk{
		Total: st.Blocks * uint64(st.Bsize), Free: st.Bavail * uint64(st.Bsize), Files: st.Files, FreeFiles: st.Ffree,
		ReadOnly: st.Flags&unix.ST_RDONLY != 0,
	}, nil
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
