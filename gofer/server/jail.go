// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/gofer/hostfiles"
)

// stage is where the new root is attached before the pivot. /proc exists on
// every host this can run on, and is needed again only by its descriptor.
const stage = "/proc"

// procFD is where /proc/self/fd is mounted for a moment.
const procFD = "/fd"

// jail is the root of this process, in which nothing of the host is.
type jail struct {
	// mounts is the list of the mounts of this process. Nothing can be reached through it.
	mounts *os.File
}

// enterJail makes an empty tmpfs the root of this process and forgets everything else. The
// caller must be alone in its mount namespace.
func enterJail() (_ *jail, err error) {
	// Private, so that nothing done here reaches the host and no later mount
	// of the host reaches this process.
	if err := crashpoint.Do(crashpoint.GoferPrivate, func() error { return unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "") }); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	// Closed again below: through it the host's root user can change settings of the kernel.
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	defer unix.Close(proc)
	// A detached clone: ".." of a descriptor opened in it goes nowhere, where
	// one of the host's procfs would lead to every process's root.
	selfFD, err := unix.OpenTree(unix.AT_FDCWD, "/proc/self/fd", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clone /proc/self/fd: %w", err)
	}
	defer unix.Close(selfFD)

	root, err := newTmpfs(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, false)
	if err != nil {
		return nil, fmt.Errorf("create jail: %w", err)
	}
	defer unix.Close(root)
	if err := crashpoint.Do(crashpoint.GoferRoot, func() error { return moveMount(root, unix.AT_FDCWD, stage) }); err != nil {
		return nil, fmt.Errorf("attach jail: %w", err)
	}
	if err := mountAt(root, procFD[1:], selfFD, true); err != nil {
		return nil, fmt.Errorf("attach /proc/self/fd: %w", err)
	}

	if err := unix.Fchdir(root); err != nil {
		return nil, fmt.Errorf("enter jail: %w", err)
	}
	if err := crashpoint.Do(crashpoint.GoferPivot, func() error { return unix.PivotRoot(".", ".") }); err != nil {
		return nil, fmt.Errorf("pivot root: %w", err)
	}
	// The old root is now mounted over the new one; detach all of it.
	if err := crashpoint.Do(crashpoint.GoferDetach, func() error { return unix.Unmount(".", unix.MNT_DETACH) }); err != nil {
		return nil, fmt.Errorf("detach old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, fmt.Errorf("enter jail: %w", err)
	}
	if err := hostfiles.OpenProcSelfFD(procFD); err != nil {
		return nil, fmt.Errorf("open /proc/self/fd: %w", err)
	}
	if err := unix.Unmount(procFD, unix.MNT_DETACH); err != nil {
		return nil, fmt.Errorf("detach /proc/self/fd: %w", err)
	}
	// It is of this mount namespace and this root, and is made anew when it is read.
	mounts, err := unix.Openat(proc, "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return &jail{os.NewFile(uintptr(mounts), "mountinfo")}, nil
}

// serve puts the served trees into the jail. It can be called once.
func (j *jail) serve(cfg *gofer.Config) error {
	defer j.mounts.Close()
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open jail: %w", err)
	}
	defer unix.Close(root)
	for i, m := range cfg.Mounts {
		if err := crashpoint.Do(crashpoint.GoferTree, func() error { return attach(root, gofer.MountPoint(i)[1:], &m) }); err != nil {
			return fmt.Errorf("attach mount %d: %w", i, err)
		}
	}
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	err = crashpoint.Do(crashpoint.GoferReadOnly, func() error { return unix.MountSetattr(unix.AT_FDCWD, "/", 0, readOnly) })
	if err != nil {
		return fmt.Errorf("make jail read-only: %w", err)
	}
	return judgeMounts(j.mounts, cfg)
}

// attach puts one served tree at name below dir and closes its descriptors.
func attach(dir int, name string, m *gofer.Mount) error {
	if m.Empty {
		return writeNew(dir, name, 0o444, nil)
	}
	if m.Tree == nil {
		defer unix.Close(m.FD)
		return mountAt(dir, name, m.FD, m.IsDir)
	}
	fs, err := newTmpfs(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, m.Secret)
	if err != nil {
		return fmt.Errorf("create tree: %w", err)
	}
	defer unix.Close(fs)
	if err := mountAt(dir, name, fs, true); err != nil {
		return err
	}
	if err := buildTree(fs, m.Tree); err != nil {
		return fmt.Errorf("build tree: %w", err)
	}
	if err := unix.MountSetattr(fs, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make tree read-only: %w", err)
	}
	return nil
}

// buildTree fills the tmpfs of descriptor fs.
func buildTree(fs int, t *gofer.Tree) error {
	for _, d := range t.Dirs {
		if err := unix.Mkdirat(fs, d.Path, d.Mode); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make directory %s: %w", d.Path, err)
		}
		// Not left to the umask: /tmp must be 1777.
		if err := unix.Fchmodat(fs, d.Path, d.Mode, 0); err != nil {
			return fmt.Errorf("set mode of %s: %w", d.Path, err)
		}
	}
	for _, f := range t.Files {
		content := f.Data
		if len(content) == 0 {
			content = []byte(f.Content)
		}
		if err := writeNew(fs, f.Path, f.Mode, content); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	for _, o := range t.Owners {
		if err := unix.Fchownat(fs, o.Path, int(o.UID), int(o.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set owner of %s: %w", o.Path, err)
		}
	}
	for _, l := range t.Links {
		if err := unix.Symlinkat(l.Target, fs, l.Path); err != nil {
			return fmt.Errorf("link %s: %w", l.Path, err)
		}
	}
	for _, b := range t.Binds {
		if err := mountAt(fs, b.Path, b.FD, b.IsDir); err != nil {
			return fmt.Errorf("bind %s: %w", b.Path, err)
		}
		unix.Close(b.FD)
	}
	return nil
}

func writeNew(dir int, name string, mode uint32, b []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// mountAt creates the mount point name below dir and moves the detached mount
// there.
func mountAt(dir int, name string, mount int, isDir bool) error {
	if isDir {
		if err := unix.Mkdirat(dir, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make mount point %s: %w", path.Base(name), err)
		}
	} else if err := writeNew(dir, name, 0o444, nil); err != nil {
		return fmt.Errorf("make mount point %s: %w", path.Base(name), err)
	}
	return moveMount(mount, dir, name)
}

func moveMount(mount, dir int, name string) error {
	if err := unix.MoveMount(mount, "", dir, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move mount: %w", err)
	}
	return nil
}

// newTmpfs returns a detached tmpfs.
func newTmpfs(attrs int, secret bool) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "mode", "0755"); err != nil {
		return -1, fmt.Errorf("configure tmpfs: %w", err)
	}
	// Since Linux 6.4; before, and in a user namespace, it may be swapped.
	if secret {
		_ = unix.FsconfigSetFlag(fs, "noswap")
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("mount tmpfs: %w", err)
	}
	return fd, nil
}
