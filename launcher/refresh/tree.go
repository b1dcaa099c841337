// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
)

// tree is a volume in memory of a sandbox that runs, and what is to be in it.
type tree struct {
	name string // of the volume
	// mount is which of the gofer's mounts it is.
	mount int
	// subPath is what of it the sandbox sees, "" for all of it. With file that is a single
	// file, which the gofer has open: it is overwritten, since one that took its name would
	// not be seen.
	subPath string
	file    bool
	owner   *desired.Ownership
	files   []setup.MemoryFile
}

const (
	// resolve leads nowhere but to what is named: the tree of a gofer is not trusted to have no links.
	resolve = unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH
	// temporary is the name of a file that is being written. It can't be one of a volume:
	// those have no control characters. A crash may leave it, the next refresh removes it.
	temporary = ".sandboxctl\x1fnew"
	// most is what the files of a volume may take while earlier versions of them are still
	// open in the sandbox: a guest that closes none of them must not take this host's memory.
	most = 3 * desired.MaxFileSets
)

// write puts the files into the volumes of the gofer of an identity, in a sandbox with these
// id mappings.
func write(id process.Identity, maps *idmap.Maps, trees []tree) error {
	p, err := process.Open(id)
	if err != nil {
		return fmt.Errorf("open its gofer (pid %d): %w", id.PID, err)
	}
	defer p.Close()
	return apart(func() error {
		// The root and working directory of this thread alone are changed by the next call.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("leave the working directory: %w", err)
		}
		if err := unix.Setns(p.FD(), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter the mount namespace of its gofer (pid %d): %w", id.PID, err)
		}
		var errs []error
		for i := range trees {
			if err := trees[i].replace(maps); err != nil {
				errs = append(errs, fmt.Errorf("volume %s: %w", trees[i].name, err))
			}
		}
		return errors.Join(errs...)
	})
}

// replace is write of one volume, on a thread that is in the mount namespace.
func (t *tree) replace(maps *idmap.Maps) error {
	at := gofer.MountPoint(t.mount)[1:]
	place, err := dirfd.Open(unix.AT_FDCWD, at, unix.O_PATH|unix.O_DIRECTORY, resolve)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer place.Close()
	var stx unix.Statx_t
	if err := unix.Statx(int(place.Fd()), "", unix.AT_EMPTY_PATH, 0, &stx); err != nil {
		return fmt.Errorf("look at it: %w", err)
	}
	if stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return errors.New("expected a mount: its gofer has something else there")
	}
	fd, err := unix.OpenTree(int(place.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("clone its mount: %w", err)
	}
	clone := os.NewFile(uintptr(fd), at)
	defer clone.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("look at its filesystem: %w", err)
	}
	// What else a gofer serves is somebody's: nothing of it is ever written.
	if fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("expected it on a tmpfs, it is on a filesystem of type %#x", fs.Type)
	}
	if used := int64(fs.Blocks-fs.Bfree) * fs.Bsize; used > most-desired.MaxFileSets {
		return fmt.Errorf("the sandbox has %d bytes of earlier versions of its files open, at most %d are kept; restart it", used, most-desired.MaxFileSets)
	}
	writable := &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY, Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, writable); err != nil {
		return fmt.Errorf("make a clone of its mount writable: %w", err)
	}
	top, err := dirfd.Open(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, resolve)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer top.Close()
	w := &writer{top: int(top.Fd()), files: ownerOf(maps, t.owner)}
	w.root.uid, w.root.gid = maps.Owner()
	if t.file {
		return w.overwrite(t.files)
	}
	return w.replace(t.subPath, t.files)
}

// writer changes the files below a directory.
type writer struct {
	top  int
	root owner // of the directories
	// files is whose the files are, nil for the root's.
	files *owner
}

// overwrite changes the content of files that keep their inodes. Who reads one meanwhile may
// see a part of each content, and never a file that is empty or cut short.
func (w *writer) overwrite(files []setup.MemoryFile) error {
	for _, f := range files {
		same, err := w.has(f)
		if err == nil && !same {
			err = w.overwriteOne(f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) overwriteOne(f setup.MemoryFile) error {
	old, err := dirfd.Open(w.top, f.Name, unix.O_WRONLY|unix.O_NOFOLLOW, resolve)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.Name, err)
	}
	defer old.Close()
	fd := int(old.Fd())
	// First: without memory nothing is changed, not half of it.
	if len(f.Data) > 0 {
		if err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(f.Data))); err != nil {
			return fmt.Errorf("take memory for %s: %w", f.Name, err)
		}
	}
	err = writeAll(fd, f.Data)
	if err == nil {
		err = unix.Ftruncate(fd, int64(len(f.Data)))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Name, err)
	}
	return nil
}

// replace puts each file that differs into its place in one step, and removes those that are
// not there any more.
func (w *writer) replace(subPath string, files []setup.MemoryFile) error {
	dirs, names := map[string]bool{}, map[string]bool{}
	for d := subPath; d != "" && d != "."; d = path.Dir(d) {
		dirs[d] = true
	}
	for _, f := range files {
		names[f.Name] = true
		for d := path.Dir(f.Name); d != "."; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	for _, f := range files {
		if same, err := w.has(f); err != nil {
			return err
		} else if same {
			continue
		}
		if err := w.put(f); err != nil {
			return fmt.Errorf("write %s: %w", f.Name, err)
		}
	}
	return w.prune(w.top, "", dirs, names)
}

// has says whether a file has the content already.
func (w *writer) has(f setup.MemoryFile) (bool, error) {
	old, err := dirfd.Open(w.top, f.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, resolve)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", f.Name, err)
	}
	defer old.Close()
	b, err := io.ReadAll(io.LimitReader(old, int64(len(f.Data))+1))
	if err != nil {
		return false, fmt.Errorf("read %s: %w", f.Name, err)
	}
	return bytes.Equal(b, f.Data), nil
}

// put writes a file beside its place and renames it there.
func (w *writer) put(f setup.MemoryFile) error {
	if err := w.makeDirs(path.Dir(f.Name)); err != nil {
		return err
	}
	if err := unix.Unlinkat(w.top, temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	// The kernel takes no file of a user that the user namespace of the tmpfs does not have.
	fd := -1
	err := w.root.as(func() (err error) {
		fd, err = unix.Openat(w.top, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = writeAll(fd, f.Data)
	if err == nil && w.files != nil {
		err = unix.Fchown(fd, w.files.uid, w.files.gid)
	}
	if err == nil {
		err = unix.Fchmod(fd, f.Mode)
	}
	if err == nil {
		err = w.root.as(func() error { return unix.Renameat(w.top, temporary, w.top, f.Name) })
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(w.top, temporary, 0))
	}
	return nil
}

// makeDirs makes the directories of a file that are missing, as at a start.
func (w *writer) makeDirs(dir string) error {
	if dir == "." {
		return nil
	}
	if err := w.makeDirs(path.Dir(dir)); err != nil {
		return err
	}
	err := w.root.as(func() error { return unix.Mkdirat(w.top, dir, 0o755) })
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return unix.Fchmodat(w.top, dir, 0o755, 0) // not left to the umask
}

// prune removes what is below a directory and is not to be there any more.
func (w *writer) prune(dir int, at string, dirs, names map[string]bool) error {
	list, err := dirfd.Open(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, resolve)
	if err != nil {
		return fmt.Errorf("list %s: %w", at, err)
	}
	defer list.Close()
	entries, err := list.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", at, err)
	}
	for _, e := range entries {
		name := path.Join(at, e.Name())
		switch {
		case names[name]:
		case e.IsDir():
			sub, err := dirfd.Open(dir, e.Name(), unix.O_RDONLY|unix.O_DIRECTORY, resolve)
			if err != nil {
				return fmt.Errorf("open %s: %w", name, err)
			}
			err = w.prune(int(sub.Fd()), name, dirs, names)
			sub.Close()
			if err == nil && !dirs[name] {
				err = unix.Unlinkat(dir, e.Name(), unix.AT_REMOVEDIR)
			}
			if err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		default:
			if err := unix.Unlinkat(dir, e.Name(), 0); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return nil
}

func writeAll(fd int, b []byte) error {
	for at := int64(0); len(b) > 0; {
		n, err := unix.Pwrite(fd, b, at)
		if err != nil {
			return err
		}
		at, b = at+int64(n), b[n:]
	}
	return nil
}
