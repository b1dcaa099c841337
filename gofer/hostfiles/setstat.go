// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"math"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// SetStat implements lisafs.ControlFDImpl. Each attribute is tried, and those that
// failed are returned. The order matters: another owner takes set-user-ID away,
// and another size changes the times.
func (f *control) SetStat(req lisafs.SetStatReq) (failed uint32, failure error) {
	set := func(mask uint32, change func() error) {
		if mask &= req.Mask; mask == 0 {
			return
		}
		if err := change(); err != nil {
			failed |= mask
			failure = err
		}
	}
	set(unix.STATX_SIZE, func() error { return f.truncate(req.Size) })
	set(unix.STATX_UID|unix.STATX_GID, func() error {
		uid, gid := lisafs.NoUID, lisafs.NoGID
		if req.Mask&unix.STATX_UID != 0 {
			uid = req.UID
		}
		if req.Mask&unix.STATX_GID != 0 {
			gid = req.GID
		}
		return chown(f.fd, uid, gid)
	})
	set(unix.STATX_MODE, func() error { return chmod(f.fd, req.Mode) })
	set(unix.STATX_ATIME|unix.STATX_MTIME, func() error {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
		if req.Mask&unix.STATX_ATIME != 0 {
			ts[0] = unix.Timespec{Sec: req.Atime.Sec, Nsec: req.Atime.Nsec}
		}
		if req.Mask&unix.STATX_MTIME != 0 {
			ts[1] = unix.Timespec{Sec: req.Mtime.Sec, Nsec: req.Mtime.Nsec}
		}
		return unix.UtimesNanoAt(f.fd, "", ts, unix.AT_EMPTY_PATH)
	})
	return failed, failure
}

func (f *control) truncate(size uint64) error {
	switch {
	case f.IsDir():
		return unix.EISDIR
	case !f.IsRegular():
		return unix.EINVAL
	case size > math.MaxInt64:
		return unix.EFBIG
	}
	fd, err := reopen(f.fd, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error { return unix.Ftruncate(fd, int64(size)) })
}

// chown leaves what is NoUID or NoGID as it is: both are -1.
func chown(fd int, uid lisafs.UID, gid lisafs.GID) error {
	return unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
}

// chmod goes through /proc/self/fd: fchmod(2) takes no O_PATH descriptor, and a
// file is not opened for it.
func chmod(fd int, mode uint32) error {
	dir, name := throughProc(fd)
	return unix.Fchmodat(dir, name, mode&permissions, 0)
}
