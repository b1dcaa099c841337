// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// openNoLinks opens an absolute host path of which no component may be a
// symbolic or magic link. It is resolved here, once; from then on only the
// descriptor is used, so that swapping a component later changes nothing.
func openNoLinks(path string, flags uint64) (*os.File, error) {
	return OpenAt(unix.AT_FDCWD, path, flags, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// OpenBeneath opens name below the directory of a descriptor, following
// nothing that leads out of it.
func OpenBeneath(dir int, name string, flags uint64) (*os.File, error) {
	return OpenAt(dir, name, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// OpenAt opens a path below the directory of a descriptor, as openat2 resolves it.
func OpenAt(dir int, path string, flags, resolve uint64) (*os.File, error) {
	for {
		f, err := dirfd.Open(dir, path, flags, resolve)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, unix.EAGAIN):
			continue // renames elsewhere race with the resolution, again and again
		case errors.Is(err, unix.ELOOP):
			return nil, operation.Permanentf("%w: a component is a symbolic link, which could be changed to lead elsewhere; name the real path", err)
		case errors.Is(err, unix.ENOSYS):
			return nil, fmt.Errorf("%w: openat2 needs Linux 5.6 or later", err)
		default:
			return nil, err
		}
	}
}

// refusedFS are those of gofer.RefusedTypes that a source may be itself.
var refusedFS = map[int64]string{
	unix.PROC_SUPER_MAGIC:    "proc",
	unix.SYSFS_MAGIC:         "sysfs",
	unix.CGROUP_SUPER_MAGIC:  "cgroup",
	unix.CGROUP2_SUPER_MAGIC: "cgroup2",
	unix.DEBUGFS_MAGIC:       "debugfs",
	unix.TRACEFS_MAGIC:       "tracefs",
	unix.SECURITYFS_MAGIC:    "securityfs",
	unix.BPF_FS_MAGIC:        "bpf",
	unix.DEVPTS_SUPER_MAGIC:  "devpts",
	unix.NSFS_MAGIC:          "nsfs",
}

// OpenSource opens the source, following nothing. One that a policy allows is opened
// below the path of the policy: who may write there, and swaps a directory for a
// link or "..", never leads out of it. A named volume and the names of siblings are open
// already.
func OpenSource(s *setup.Source) (*os.File, error) {
	if s.Volume != "" || s.Names {
		if s.Dir == nil {
			return nil, fmt.Errorf("the %s is not open", nameOf(s))
		}
		return OpenBeneath(int(s.Dir.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY)
	}
	if s.Allowed == "" {
		return openNoLinks(s.Path, unix.O_PATH)
	}
	root, err := openNoLinks(s.Allowed, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%w: the host policy allows %s, which has to be made first", err, s.Allowed)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s of the host policy: %w", s.Allowed, err)
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(s.Path, s.Allowed), "/")
	if rel == "" {
		return root, nil
	}
	defer root.Close()
	return OpenBeneath(int(root.Fd()), rel, unix.O_PATH)
}

// tree is a detached mount that is about to be served.
type tree struct {
	mount    *os.File
	isDir    bool
	readOnly bool
	// spot is where on the host it is from, field where it is asked for.
	spot  Spot
	field string
	// file is what it is of, if it is a single file of the host.
	file *actual.SharedFile
	// volume says that it is of a named volume, or of the names of siblings, at which of the mounts it is.
	volume bool
	at     int
	// memory is what it shows, if the gofer makes it in memory.
	memory *setup.Source
}

// nameOf is what a source is called in messages.
func nameOf(s *setup.Source) string {
	if s.Names {
		return "directory of names"
	}
	if s.Volume != "" {
		return path.Join("volume "+s.Volume, s.SubPath)
	}
	return s.Path
}

// detach returns a detached private mount of a directory or regular file,
// without set-user-ID and devices, read-only if asked. What is mounted below a
// directory comes along.
func detach(s setup.Source) (*tree, error) {
	path := nameOf(&s)
	src, err := OpenSource(&s)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, operation.PathPrecondition(err))
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, operation.Permanentf("open %s: expected a directory or a regular file, it is a %s", path, info.Mode().Type())
	}
	if err := refuseKernelFS(src, path); err != nil {
		return nil, err
	}
	t := &tree{isDir: info.IsDir(), readOnly: s.ReadOnly, field: s.Field, volume: s.Volume != "" || s.Names}
	if t.spot, err = SpotOf(src); err != nil {
		return nil, err
	}
	if !t.isDir {
		var st unix.Stat_t
		if err := unix.Fstatat(int(src.Fd()), "", &st, unix.AT_EMPTY_PATH); err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		t.file = &actual.SharedFile{Path: path, Device: st.Dev, Inode: st.Ino}
	}
	flags := uint(unix.AT_EMPTY_PATH | unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	attrFlags := uint(unix.AT_EMPTY_PATH)
	if t.isDir && !s.Options.Single && !t.volume { // nothing that is mounted in a volume is a part of it
		flags |= unix.AT_RECURSIVE
		attrFlags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(src.Fd()), "", flags)
	if err != nil {
		return nil, fmt.Errorf("clone mount of %s: %w", path, err)
	}
	t.mount = os.NewFile(uintptr(fd), path)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if s.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if s.Options.Atime != 0 {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME
		attr.Attr_set |= s.Options.Atime
	}
	if err := unix.MountSetattr(fd, "", attrFlags, attr); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict mount of %s: %w", path, err), t.mount.Close())
	}
	return t, nil
}

// Served is what a gofer serves of the host, before it is started.
type Served struct {
	Mounts []gofer.Mount
	// Sockets are the sentry's ends of the connections, root first. That of a root which
	// is an image is the file of the image.
	Sockets []int
	trees   []*tree
	// of are the trees of the sources, in their order; nil where one has no tree of
	// its own.
	of []*tree
}

// OpenSources opens every served tree and gives it, with one end of its lisafs
// connection, to the gofer. image is the file of the image that the root is, which
// the sentry gets itself; nil if the root is none. On error everything opened is owned
// by the two donations.
func OpenSources(sources []setup.Source, image *os.File, toGofer, toSentry *proc.Donation) (*Served, error) {
	out := &Served{}
	for _, s := range sources {
		if s.Image != nil { // see MountOf
			if image == nil {
				return nil, fmt.Errorf("%s: the image is not open", s.Field)
			}
			out.Sockets = append(out.Sockets, toSentry.Give(image))
			out.of = append(out.of, nil)
			continue
		}
		if s.Disk != nil {
			out.of = append(out.of, nil) // the sentry has a file instead of a connection
			continue
		}
		m := gofer.Mount{FD: -1, ReadOnly: s.ReadOnly, Empty: s.Empty, NoDevices: s.Options.NoDev}
		var t *tree
		switch {
		case s.Empty:
		case s.InMemory != "":
			m.Tree, m.Secret, m.At = memoryTree(&s), true, s.SubPath
			t = &tree{isDir: !s.IsFile(), readOnly: true, memory: &s}
		case s.Host:
			trees, err := hostTree(s, &m, toGofer)
			if err != nil {
				return nil, fmt.Errorf("prepare host root: %w", err)
			}
			out.trees = append(out.trees, trees...)
		default:
			var err error
			if t, err = detach(s); err != nil {
				return nil, inField(s.Field, err)
			}
			m.FD, m.IsDir, t.at = toGofer.Give(t.mount), t.isDir, len(out.Mounts)
			out.trees = append(out.trees, t)
		}
		a, b, err := proc.SocketPair()
		if err != nil {
			return nil, err
		}
		m.SocketFD = toGofer.Give(a)
		out.Sockets = append(out.Sockets, toSentry.Give(b))
		out.Mounts = append(out.Mounts, m)
		out.of = append(out.of, t)
	}
	return out, nil
}

// MountOf is which of the mounts of a gofer a source is, that of an index: those that the
// sentry has a file of are none.
func MountOf(sources []setup.Source, index int) (n int) {
	for i := range index {
		if sources[i].Image == nil && sources[i].Disk == nil {
			n++
		}
	}
	return n
}

// Files are the single files among the served trees that a manifest names.
func (s *Served) Files() (out []actual.SharedFile) {
	for _, t := range s.trees {
		if t.file != nil && t.field != "" && t.field != hostRootField {
			out = append(out, *t.file)
		}
	}
	return out
}

// inField says which field of the manifest or config.json an error is about.
func inField(field string, err error) error {
	if field == "" {
		return err
	}
	return fmt.Errorf("%s: %w", field, err)
}
