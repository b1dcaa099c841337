// SPDX-License-Identifier: Apache-2.0

// Package projquota limits directories by project quotas of ext4 and XFS: a file belongs to the
// project of the directory that it is made in, and the file system bounds what all files of a
// project take. It asks the file system of an open descriptor, never a device by its path.
package projquota

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNone says that a file system has no project quotas that are enforced.
var ErrNone = errors.New("the file system enforces no project quotas")

// xattr is struct fsxattr of linux/fs.h.
type xattr struct {
	flags, extentSize, extents, project, copySize uint32
	_                                             [8]byte
}

// inherits is FS_XFLAG_PROJINHERIT: what is made in the directory belongs to its project.
const inherits = 0x200

// Requests of linux/fs.h that the module sys does not have, as on amd64 and arm64.
const (
	getXattr = 0x801c581f // FS_IOC_FSGETXATTR
	setXattr = 0x401c5820 // FS_IOC_FSSETXATTR
)

// Commands of linux/quota.h and linux/dqblk_xfs.h, which ext4 and XFS both have.
const (
	getQuota  = 0x800007          // Q_GETQUOTA
	setQuota  = 0x800008          // Q_SETQUOTA
	getState  = 'X'<<8 + 8        // Q_XGETQSTATV
	accounted = 1 << 4            // FS_QUOTA_PDQ_ACCT
	enforced  = 1 << 5            // FS_QUOTA_PDQ_ENFD
	ofProject = 2                 // PRJQUOTA
	limitsSet = 1 | 4             // QIF_BLIMITS, QIF_ILIMITS
	block     = 1 << 10           // QIF_DQBLKSIZE
	perFile   = 4 << 10           // a file of one byte takes no less
	spareFile = 1 << 10           // files that a small volume may have besides
	mostID    = uint32(1<<32 - 2) // the last one means none
	firstID   = uint32(1 << 24)   // those below are what people choose
	projects  = "/etc/projects"   // lines ID:PATH
	projectID = "/etc/projid"     // lines NAME:ID
)

// limits is struct if_dqblk of linux/quota.h.
type limits struct {
	blocksHard, blocksSoft, space, filesHard, filesSoft, files, blocksTime, filesTime uint64
	valid                                                                             uint32
	_                                                                                 uint32
}

// state is struct fs_quota_statv of linux/dqblk_xfs.h.
type state struct {
	version int8
	_       uint8
	flags   uint16
	_       [156]byte
}

// Usage is what the files of a project take, and may take.
type Usage struct {
	Bytes int64 `json:"bytes"`
	Files int64 `json:"files"`
	// Size is the most that they may take, 0 if nothing limits them.
	Size int64 `json:"size,omitempty"`
	// MostFiles is how many there may be.
	MostFiles int64 `json:"mostFiles,omitempty"`
}

// Available returns nil if the file system of a directory enforces project quotas, and
// otherwise ErrNone with why it does not.
func Available(dir *os.File) error {
	s := state{version: 1}
	err := quotactl(dir, getState, 0, unsafe.Pointer(&s))
	switch {
	case errors.Is(err, unix.ENOSYS) && kernelLacks():
		return fmt.Errorf("%w: Linux 5.14 is needed to ask it", ErrNone)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTBLK), errors.Is(err, unix.ENODEV):
		return ErrNone
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNone, err)
	case s.flags&accounted == 0:
		return ErrNone
	case s.flags&enforced == 0:
		return fmt.Errorf("%w: they are only counted", ErrNone)
	}
	if _, err := Get(dir, firstID); err != nil { // in a container, not even for root
		return fmt.Errorf("%w: %w", ErrNone, err)
	}
	return nil
}

// Project is the project that what is made in a directory belongs to, 0 if none.
func Project(dir *os.File) (uint32, error) {
	var x xattr
	if err := ioctl(dir, getXattr, &x); err != nil {
		return 0, fmt.Errorf("read the project: %w", err)
	}
	if x.flags&inherits == 0 {
		return 0, nil
	}
	return x.project, nil
}

// Assign gives an empty directory to a project, with all that is made in it.
func Assign(dir *os.File, project uint32) error {
	var x xattr
	err := ioctl(dir, getXattr, &x)
	if err == nil {
		x.project, x.flags = project, x.flags|inherits
		err = ioctl(dir, setXattr, &x)
	}
	if err != nil {
		return fmt.Errorf("set the project: %w", err)
	}
	return nil
}

// Get is what the files of a project take.
func Get(dir *os.File, project uint32) (Usage, error) {
	var l limits
	err := quotactl(dir, getQuota, project, unsafe.Pointer(&l))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) { // XFS: none was ever made
		return Usage{}, nil
	}
	if err != nil {
		return Usage{}, fmt.Errorf("read the quota: %w", err)
	}
	return Usage{Bytes: int64(l.space), Files: int64(l.files), Size: int64(l.blocksHard * block), MostFiles: int64(l.filesHard)}, nil
}

// Limit sets how much the files of a project may take, 0 for no limit. Files of no size take
// room too: how many there may be follows from it.
func Limit(dir *os.File, project uint32, size int64) error {
	l := limits{valid: limitsSet}
	if size > 0 {
		l.blocksHard, l.filesHard = uint64(size+block-1)/block, uint64(size/perFile+spareFile)
	}
	if err := quotactl(dir, setQuota, project, unsafe.Pointer(&l)); err != nil {
		return fmt.Errorf("set the quota: %w", err)
	}
	return nil
}

// Limits says whether the quota of a project is that of a size already.
func (u *Usage) Limits(size int64) bool {
	return u.Size == (size+block-1)/block*block && u.MostFiles == size/perFile+spareFile
}

// ValidID says whether a number can be that of a project of ours.
func ValidID(id uint32) bool { return id >= firstID && id <= mostID }

// Free is the first project from a number on that nobody uses: no file belongs to it, nothing
// limits it, and the administrator has not named it.
func Free(dir *os.File, from uint32) (uint32, error) {
	const most = 10_000
	named := namedIDs()
	for id, tries := max(from, firstID), 0; ValidID(id) && tries < most; id, tries = id+1, tries+1 {
		if named[id] {
			continue
		}
		u, err := Get(dir, id)
		if err != nil {
			return 0, err
		}
		if u == (Usage{}) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("no free project from %d on", from)
}

// namedIDs are the projects that the administrator has named.
func namedIDs() map[uint32]bool {
	out := map[uint32]bool{}
	for _, path := range []string{projects, projectID} {
		f, err := os.Open(path)
		if err != nil {
			continue // there need not be one
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			for word := range strings.SplitSeq(s.Text(), ":") {
				if id, err := strconv.ParseUint(strings.TrimSpace(word), 10, 32); err == nil {
					out[uint32(id)] = true
				}
			}
		}
		f.Close()
	}
	return out
}

func ioctl(f *os.File, request uintptr, x *xattr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(x))); errno != 0 {
		return errno
	}
	return nil
}

func quotactl(f *os.File, command int, id uint32, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command<<8|ofProject), uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// kernelLacks tells a kernel without the call from a file system without quotas. Both answer
// ENOSYS, but only one that has the call looks at the descriptor.
func kernelLacks() bool {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, ^uintptr(0), getState<<8|ofProject, 0, 0, 0, 0)
	return errno == unix.ENOSYS
}
