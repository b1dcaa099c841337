// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/fsys"
)

// slotPrefix begins the names of the files of a reserve.
const slotPrefix = "slot-"

// NoSpace says of an error that there was no room: for bytes, for files, or for
// this user.
func NoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// Reserve is a directory of files that have been written full, so that a file can
// be replaced on a disk that has no room: one of them is written over and takes
// the place of the old file, which takes its place in the reserve. Space that is
// merely given up would be taken by whatever fills the disk.
type Reserve struct{ dir *os.File }

// NewReserve takes over the directory, in the same filesystem as the files.
func NewReserve(dir *os.File) *Reserve { return &Reserve{dir} }

// Close closes the directory.
func (r *Reserve) Close() error { return r.dir.Close() }

// SweepTemps is SweepTemps of the directory of the reserve.
func (r *Reserve) SweepTemps() (busy int, err error) { return SweepTemps(r.dir) }

// Fill makes what is missing of count files of size bytes. It returns how many
// there are.
func (r *Reserve) Fill(count int, size int64) (int, error) {
	for i := range count {
		name := fmt.Sprintf("%s%02d", slotPrefix, i)
		var st unix.Stat_t
		err := unix.Fstatat(int(r.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size >= size {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return i, fmt.Errorf("fill reserve: %w", err)
		}
		// Written and not only allocated: to write over what is only allocated
		// takes room on some filesystems.
		if err := Write(r.dir, name, make([]byte, size), 0o600); err != nil {
			return i, fmt.Errorf("fill reserve: %w", err)
		}
	}
	return count, nil
}

// Write is atomicfile.Write that takes no room on the disk, for as long as there
// is a file in the reserve that is large enough.
func (r *Reserve) Write(dir *os.File, name string, data []byte, mode fs.FileMode) error {
	if err := (In{fsys.Of(dir)}).checkTarget(name); err != nil {
		return err
	}
	names, err := fsys.Of(r.dir).Names(0)
	if err != nil {
		return fmt.Errorf("list reserve: %w", err)
	}
	err = fmt.Errorf("replace %s: the reserve is used up: %w", name, unix.ENOSPC)
	for _, slot := range names {
		if !strings.HasPrefix(slot, slotPrefix) {
			continue
		}
		done, serr := r.use(slot, dir, name, data, mode)
		if done {
			return serr
		}
		if serr != nil {
			err = fmt.Errorf("replace %s: the reserve can't be used: %w: %w", name, unix.ENOSPC, serr)
		}
	}
	return err
}

// use writes a slot and puts it in the place of a file. done says that it is over:
// no other slot is to be tried.
func (r *Reserve) use(slot string, dir *os.File, name string, data []byte, mode fs.FileMode) (done bool, err error) {
	fd, err := unix.Openat(int(r.dir.Fd()), slot, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, ignoreMissing(err)
	}
	f := os.NewFile(uintptr(fd), slot)
	defer f.Close() // and with it the lock
	if ours, err := r.lockSlot(fd, slot); err != nil || !ours {
		return false, err
	}
	crashpoint.Before(crashpoint.ReserveWrite)
	_, err = f.WriteAt(data, 0)
	crashpoint.After(crashpoint.ReserveWrite)
	if err != nil {
		return false, err // it was too small
	}
	if err := errors.Join(f.Truncate(int64(len(data))), f.Chmod(mode.Perm()), f.Sync()); err != nil {
		return false, err
	}
	// The old file becomes a slot. Where there is none, or no exchange, one is lost
	// until the reserve is filled.
	crashpoint.Before(crashpoint.ReserveSwap)
	err = unix.Renameat2(int(r.dir.Fd()), slot, int(dir.Fd()), name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = unix.Renameat(int(r.dir.Fd()), slot, int(dir.Fd()), name)
	}
	crashpoint.After(crashpoint.ReserveSwap)
	if err != nil {
		return true, fmt.Errorf("replace %s: %w", name, err)
	}
	return true, errors.Join(In{fsys.Of(dir)}.sync(name), In{fsys.Of(r.dir)}.sync(slot))
}

// lockSlot says whether the slot is the caller's alone, and still one.
func (r *Reserve) lockSlot(fd int, slot string) (bool, error) {
	switch err := flock(fd); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, nil
	case err != nil:
		return false, err
	}
	var ours, now unix.Stat_t
	if err := unix.Fstat(fd, &ours); err != nil {
		return false, err
	}
	if err := unix.Fstatat(int(r.dir.Fd()), slot, &now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, ignoreMissing(err)
	}
	return ours.Mode&unix.S_IFMT == unix.S_IFREG && ours.Nlink == 1 && ours.Ino == now.Ino && ours.Dev == now.Dev, nil
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
