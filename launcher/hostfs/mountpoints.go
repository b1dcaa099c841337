// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
)

// MakeMountPoints makes what the sandbox mounts on, where that is missing in a tree that
// it writes to. The sentry would make it too; but when two sandboxes with the same tree
// start at once, the slower one finds that it exists by now, and its start fails. What
// can't be made here is left to the sentry, which says why.
func (s *Served) MakeMountPoints(st *setup.Setup) {
	mounted := s.mounted(st)
	// gVisor mounts something at /tmp where the root has nothing.
	for _, dest := range append(slices.Sorted(maps.Keys(mounted)), "/tmp") {
		at := dest
		for at != "/" {
			at = path.Dir(at)
			if on, found := mounted[at]; found {
				if on != nil && on.isDir && !on.readOnly {
					makeMountPoint(on.mount, strings.Trim(strings.TrimPrefix(dest, at), "/"), mounted[dest], st.Maps)
				}
				break
			}
		}
	}
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
func makeMountPoint(top *os.File, name string, what *tree, ids *idmap.Maps) {
	dir, err := OpenBeneath(int(top.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY)
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if err != nil {
			return
		}
		isFile := i == len(parts)-1 && what != nil && !what.isDir
		next, errOpen := openOrMake(dir, part, isFile, ids)
		dir.Close()
		dir, err = next, errOpen
	}
	if err == nil {
		dir.Close()
	}
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
