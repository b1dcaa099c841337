// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
)

// MakeMountPoints makes what the sandbox mounts on, where that is missing in a tree that
// it writes to. The sentry would make it too; but when two sandboxes with the same tree
// start at once, the slower one finds that it exists by now, and its start fails. An error
// says where something can't be mounted and the sentry could make nothing either: it would
// fail in words of its own, at each start. What can't be told is left to it.
func (s *Served) MakeMountPoints(st *setup.Setup) error {
	mounted := s.mounted(st)
	// gVisor mounts something at /tmp where the root has nothing.
	for _, dest := range append(slices.Sorted(maps.Keys(mounted)), "/tmp") {
		at := around(mounted, dest)
		on, what := mounted[at], mounted[dest]
		if on == nil {
			continue
		}
		var made error
		name := strings.Trim(strings.TrimPrefix(dest, at), "/")
		if on.isDir && !on.readOnly {
			made = makeMountPoint(on.mount, name, what, st.Maps)
		}
		if _, asked := mounted[dest]; !asked {
			continue
		}
		if err := on.takes(name, at, what == nil || what.isDir, made); err != nil {
			return fmt.Errorf("mount point %s: %w", dest, err)
		}
	}
	return nil
}

// around is the innermost mount that a mount point is in, "" if it is in none that is known.
func around(mounted map[string]*tree, dest string) string {
	for at := dest; at != "/"; {
		at = path.Dir(at)
		if _, found := mounted[at]; found {
			return at
		}
	}
	return ""
}

// takes says why a directory or a file can't be mounted at a name of the tree, which is
// mounted at a place. A directory need not be there: the sentry makes one of its own. made
// says what came of making it.
func (t *tree) takes(name, at string, isDir bool, made error) error {
	if !t.isDir {
		return operation.Precondition(fmt.Errorf("one file is mounted at %s, and nothing can be mounted below it; choose another place", at))
	}
	found, err := t.look(name)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return operation.Precondition(fmt.Errorf("what is mounted at %s has a file on the way to %s; choose another place", at, name))
	case err == nil && found != isDir:
		return operation.Precondition(fmt.Errorf("a %s is to be mounted on %s of what is mounted at %s, which is a %s; choose another place", kind(isDir), name, at, kind(found)))
	case errors.Is(err, unix.ENOENT) && !isDir && (t.readOnly || errors.Is(made, unix.EROFS)):
		return operation.Precondition(fmt.Errorf("what is mounted at %s is read-only and has no file %s, on which one file could be mounted; make it there, it may be empty, or choose another place", at, name))
	}
	return nil
}

func kind(isDir bool) string {
	if isDir {
		return "directory"
	}
	return "file"
}

// look says whether what a tree has of a name is a directory. It follows no link.
func (t *tree) look(name string) (isDir bool, err error) {
	if t.memory != nil {
		return inMemory(t.memory, name)
	}
	f, err := OpenBeneath(int(t.mount.Fd()), name, unix.O_PATH)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	return err == nil && info.IsDir(), err
}

// inMemory is look for a volume in memory.
func inMemory(s *setup.Source, name string) (isDir bool, err error) {
	name, err = path.Join(s.SubPath, name), unix.ENOENT
	for i := range s.Files {
		switch f := s.Files[i].Name; {
		case f == name:
			return false, nil
		case strings.HasPrefix(name, f+"/"):
			return false, unix.ENOTDIR
		case strings.HasPrefix(f, name+"/"):
			isDir, err = true, nil
		}
	}
	return isDir, err
}

// MountPoints are the places in the root where something is mounted, and whether that is
// a directory.
func (s *Served) MountPoints(st *setup.Setup) map[string]bool {
	points := map[string]bool{"/tmp": true} // gVisor mounts something there where the root has nothing
	for dest, t := range s.mounted(st) {
		if dest != "/" && !st.OnMount(dest) {
			points[dest] = t == nil || t.isDir
		}
	}
	return points
}

// mounted are the trees by where they are mounted, nil for what writes don't reach the
// host in.
func (s *Served) mounted(st *setup.Setup) map[string]*tree {
	mounted := map[string]*tree{}
	for dest, src := range st.ServedAt() {
		if src != nil && src.Empty {
			continue // in the place of a file that is there
		}
		mounted[dest] = nil
		for i := range st.App().Volumes {
			if src == &st.App().Volumes[i] {
				mounted[dest] = s.of[i+1]
			}
		}
	}
	if st.App().Overlay == desired.OverlayNone {
		mounted["/"] = s.of[0]
	}
	return mounted
}

// makeMountPoint makes a directory, or a file to mount a file on, with those above it.
// It follows no link: a sandbox that writes to the tree could make one at any time.
func makeMountPoint(top *os.File, name string, what *tree, ids *idmap.Maps) error {
	dir, err := OpenBeneath(int(top.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY)
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if err != nil {
			return err
		}
		isFile := i == len(parts)-1 && what != nil && !what.isDir
		next, errOpen := openOrMake(dir, part, isFile, ids)
		dir.Close()
		dir, err = next, errOpen
	}
	if err == nil {
		dir.Close()
	}
	return err
}

// openOrMake opens what is in a directory, after making it if it is not there.
func openOrMake(dir *os.File, name string, isFile bool, ids *idmap.Maps) (*os.File, error) {
	fd := int(dir.Fd())
	f, err := OpenBeneath(fd, name, unix.O_PATH)
	if !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	uid, gid := ids.Owner()
	var parent, made unix.Stat_t
	if err := unix.Fstatat(fd, "", &parent, unix.AT_EMPTY_PATH); err != nil {
		return nil, err
	}
	if ids != nil && (int(parent.Uid) != uid || parent.Mode&unix.S_IWUSR == 0) {
		return nil, unix.EACCES // the ids that the sandbox has on the host may not write here
	}
	mode := uint32(0o755)
	if isFile {
		mode = 0o644
		err = unix.Mknodat(fd, name, unix.S_IFREG|mode, 0)
	} else {
		err = unix.Mkdirat(fd, name, mode)
	}
	if errors.Is(err, unix.EEXIST) {
		return OpenBeneath(fd, name, unix.O_PATH)
	}
	if err != nil {
		return nil, err
	}
	// Nothing blocks, should it have been replaced by now.
	f, err = OpenBeneath(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if ids != nil {
		err = f.Chown(uid, gid)
	}
	if err = errors.Join(err, unix.Fstat(int(f.Fd()), &made)); err == nil {
		// The umask of this process has taken some of it away.
		err = unix.Fchmod(int(f.Fd()), made.Mode&0o7000|mode)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
