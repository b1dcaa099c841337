// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/lisafs"
)

// permissions are the bits of a mode that are not the type.
const permissions = 0o7777

func (f *control) OpenCreate(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string, flags uint32) (*lisafs.ControlFD, lisafs.Statx, *lisafs.OpenFD, int, error) {
	fail := func(err error) (*lisafs.ControlFD, lisafs.Statx, *lisafs.OpenFD, int, error) {
		return nil, lisafs.Statx{}, nil, -1, err
	}
	access := flags & unix.O_ACCMODE
	if access == unix.O_ACCMODE {
		return fail(unix.EINVAL)
	}
	// With O_EXCL it is this call that makes the file: nothing of the host is
	// opened by its name.
	fd, err := openat(f.fd, name, int(access)|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint32(mode)&permissions)
	if err != nil {
		return fail(err)
	}
	undo := func(err error, fds ...int) (*lisafs.ControlFD, lisafs.Statx, *lisafs.OpenFD, int, error) {
		for _, fd := range fds {
			unix.Close(fd)
		}
		_ = unix.Unlinkat(f.fd, name, 0)
		return fail(err)
	}
	// The file that was made, not one that has its name by now.
	located, err := reopen(fd, unix.O_PATH)
	if err != nil {
		return undo(err, fd)
	}
	stat, err := f.conn.own(located, mode, uid, gid)
	if err != nil {
		return undo(err, fd, located)
	}
	donated, err := unix.Dup(fd)
	if err != nil {
		return undo(err, fd, located)
	}
	c := f.child(name, located, stat)
	o := &open{conn: f.conn, fd: fd}
	o.Init(&c.ControlFD, access, o)
	return &c.ControlFD, stat, &o.OpenFD, donated, nil
}

func (f *control) Mkdir(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	if err := unix.Mkdirat(f.fd, name, uint32(mode)&permissions); err != nil {
		return nil, lisafs.Statx{}, err
	}
	return f.made(name, unix.S_IFDIR, mode, uid, gid, unix.AT_REMOVEDIR)
}

// Mknod implements lisafs.ControlFDImpl. The sentry takes EPERM as: keep a FIFO or
// a socket in memory under this name, where it is of use inside, and to nobody of
// the host. A character device 0:0 is of no device; overlays mark what is removed
// with it.
func (f *control) Mknod(mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, name string, minor, major uint32) (*lisafs.ControlFD, lisafs.Statx, error) {
	t := uint32(mode.FileType())
	whiteout := t == unix.S_IFCHR && minor == 0 && major == 0
	if t != unix.S_IFREG && !whiteout {
		return nil, lisafs.Statx{}, unix.EPERM
	}
	if err := unix.Mknodat(f.fd, name, t|uint32(mode)&permissions, 0); err != nil {
		return nil, lisafs.Statx{}, err
	}
	return f.made(name, t, mode, uid, gid, 0)
}

func (f *control) Symlink(name, target string, uid lisafs.UID, gid lisafs.GID) (*lisafs.ControlFD, lisafs.Statx, error) {
	if err := unix.Symlinkat(target, f.fd, name); err != nil {
		return nil, lisafs.Statx{}, err
	}
	return f.made(name, unix.S_IFLNK, 0, uid, gid, 0)
}

// made locates what was just made in f, gives it its owner, and removes it where
// that fails.
func (f *control) made(name string, fileType uint32, mode linux.FileMode, uid lisafs.UID, gid lisafs.GID, unlinkFlags int) (*lisafs.ControlFD, lisafs.Statx, error) {
	fd, stat, err := f.conn.locate(f.fd, name)
	if err != nil {
		return nil, stat, err
	}
	// The host has put something else there, which is not to be given away.
	if uint32(stat.Mode)&unix.S_IFMT != fileType {
		unix.Close(fd)
		return nil, stat, unix.EEXIST
	}
	if stat, err = f.conn.own(fd, mode, uid, gid); err != nil {
		unix.Close(fd)
		_ = unix.Unlinkat(f.fd, name, unlinkFlags)
		return nil, stat, err
	}
	return &f.child(name, fd, stat).ControlFD, stat, nil
}

// own gives a file that was just made its owner, and the bits of its mode that
// the kernel takes away from who creates a file or changes an owner.
func (c *connectionImpl) own(fd int, mode linux.FileMode, uid lisafs.UID, gid lisafs.GID) (lisafs.Statx, error) {
	if err := chown(fd, uid, gid); err != nil {
		return lisafs.Statx{}, err
	}
	stat, err := c.stat(fd, "")
	if err != nil {
		return stat, err
	}
	special := uint16(mode) & (unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX)
	if stat.Mode&special == special {
		return stat, nil
	}
	if err := chmod(fd, uint32(stat.Mode|special)); err != nil {
		return stat, err
	}
	return c.stat(fd, "")
}

// Link implements lisafs.ControlFDImpl. The seccomp filter allows linkat(2) no
// flags, so that the file can't be named by its descriptor. Its name is used, in
// its directory, and the link is removed again if it is of another file.
func (f *control) Link(dir lisafs.ControlFDImpl, name string) (*lisafs.ControlFD, lisafs.Statx, error) {
	to := dir.(*control)
	want, err := f.Stat()
	if err != nil {
		return nil, want, err
	}
	from, own, err := f.directory()
	if err != nil {
		return nil, want, err
	}
	err = unix.Linkat(from, own, to.fd, name, 0)
	unix.Close(from)
	if err != nil {
		return nil, want, err
	}
	fd, stat, err := to.conn.locate(to.fd, name)
	if err != nil {
		return nil, stat, err
	}
	if !sameFile(&stat, &want) {
		unix.Close(fd)
		_ = unix.Unlinkat(to.fd, name, 0)
		return nil, stat, unix.ENOENT
	}
	return &to.child(name, fd, stat).ControlFD, stat, nil
}

// directory opens the directory that the file is in, with O_PATH, and returns the
// file's name in it. The kernel knows both; lisafs does not after all renames, nor
// after those by the host. It goes there from the root of the jail, name by name,
// and follows no link.
func (f *control) directory() (fd int, name string, err error) {
	proc, self := throughProc(f.fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(proc, self, buf)
	if err != nil {
		return -1, "", err
	}
	// The name of a removed file gets " (deleted)" added, and is not found.
	names := strings.Split(strings.TrimPrefix(string(buf[:n]), "/"), "/")
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW
	if fd, err = openat(unix.AT_FDCWD, "/", flags, 0); err != nil {
		return -1, "", err
	}
	last := len(names) - 1
	for _, n := range names[:last] {
		next, err := openat(fd, n, flags, 0)
		unix.Close(fd)
		if err != nil {
			return -1, "", err
		}
		fd = next
	}
	return fd, names[last], nil
}

func (f *control) Unlink(name string, flags uint32) error {
	if flags&^unix.AT_REMOVEDIR != 0 {
		return unix.EINVAL
	}
	return unix.Unlinkat(f.fd, name, int(flags))
}

func (f *control) RenameAt(oldName string, newDir lisafs.ControlFDImpl, newName string) error {
	return f.RenameAt2(oldName, newDir, newName, 0)
}

func (f *control) RenameAt2(oldName string, newDir lisafs.ControlFDImpl, newName string, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	return unix.Renameat2(f.fd, oldName, newDir.(*control).fd, newName, uint(flags))
}
