// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
)

// openNoLinks opens an absolute host path of which no component may be a
// symbolic or magic link. It is resolved here, once; from then on only the
// descriptor is used, so that swapping a component later changes nothing.
func openNoLinks(path string, flags uint64) (*os.File, error) {
	return openAt2(unix.AT_FDCWD, path, flags, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// openBeneath opens name below the directory of a descriptor, following
// nothing that leads out of it.
func openBeneath(dir int, name string, flags uint64) (*os.File, error) {
	return openAt2(dir, name, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

func openAt2(dir int, path string, flags, resolve uint64) (*os.File, error) {
	for {
		fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			continue // EAGAIN: a rename elsewhere raced with the resolution
		case errors.Is(err, unix.ELOOP):
			return nil, terminalf("%w: a component is a symbolic link, which could be changed to lead elsewhere; name the real path", err)
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

// checkBelow refuses a directory that has a refused filesystem mounted on it or
// anywhere below, as far as paths tell: it says early and in plain words what
// the gofer, which looks at the mounts that it serves and at no path, would end
// itself over.
func checkBelow(dir string) error {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	defer mounts.Close()
	prefix := strings.TrimSuffix(dir, "/") + "/"
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		fields, rest, ok := strings.Cut(lines.Text(), " - ")
		f := strings.Fields(fields)
		if !ok || len(f) < 5 {
			continue
		}
		point := unescapeMount.Replace(f[4])
		typ, _, _ := strings.Cut(rest, " ")
		if (point == dir || strings.HasPrefix(point, prefix)) && slices.Contains(gofer.RefusedTypes, typ) {
			return terminalf("open %s: %s is mounted at %s, which is never shared with a sandbox", dir, typ, point)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	return nil
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// open opens the source, following nothing. One that a policy allows is opened
// below the path of the policy: who may write there, and swaps a directory for a
// link or "..", never leads out of it.
func (s *source) open() (*os.File, error) {
	if s.allowed == "" {
		return openNoLinks(s.path, unix.O_PATH)
	}
	root, err := openNoLinks(s.allowed, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%w: the host policy allows %s, which has to be made first", err, s.allowed)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s of the host policy: %w", s.allowed, err)
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(s.path, s.allowed), "/")
	if rel == "" {
		return root, nil
	}
	defer root.Close()
	return openBeneath(int(root.Fd()), rel, unix.O_PATH)
}

// detach returns a detached private mount of a directory or regular file,
// without set-user-ID and devices, read-only if asked. What is mounted below a
// directory comes along.
func detach(s source) (f *os.File, isDir bool, err error) {
	path := s.path
	src, err := s.open()
	if err != nil {
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, false, terminalf("open %s: expected a directory or a regular file, it is a %s", path, info.Mode().Type())
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(src.Fd()), &fs); err != nil {
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	if name, bad := refusedFS[fs.Type]; bad {
		return nil, false, terminalf("open %s: it is on %s, which is never shared with a sandbox", path, name)
	}
	flags := uint(unix.AT_EMPTY_PATH | unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	attrFlags := uint(unix.AT_EMPTY_PATH)
	if info.IsDir() {
		flags |= unix.AT_RECURSIVE
		attrFlags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(src.Fd()), "", flags)
	if err != nil {
		return nil, false, fmt.Errorf("clone mount of %s: %w", path, err)
	}
	f = os.NewFile(uintptr(fd), path)
	if info.IsDir() {
		// After the clone: what is mounted from here on is not in it.
		if err := checkBelow(path); err != nil {
			return nil, false, errors.Join(err, f.Close())
		}
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if s.readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", attrFlags, attr); err != nil {
		return nil, false, errors.Join(fmt.Errorf("restrict mount of %s: %w", path, err), f.Close())
	}
	return f, info.IsDir(), nil
}

// openSources opens every served tree and gives it, with one end of its lisafs
// connection, to the gofer. It returns the other ends, root first, for the
// sentry. On error everything opened is owned by the two donations.
func openSources(sources []source, toGofer, toSentry *donation) (mounts []gofer.Mount, sockets []int, err error) {
	for _, s := range sources {
		m := gofer.Mount{FD: -1, ReadOnly: s.readOnly}
		if s.host {
			if m.Tree, err = hostTree(s, toGofer); err != nil {
				return nil, nil, fmt.Errorf("prepare host root: %w", err)
			}
		} else {
			f, isDir, err := detach(s)
			if err != nil && s.field != "" {
				err = fmt.Errorf("%s: %w", s.field, err)
			}
			if err != nil {
				return nil, nil, err
			}
			m.FD, m.IsDir = toGofer.give(f), isDir
		}
		a, b, err := socketPair()
		if err != nil {
			return nil, nil, err
		}
		m.SocketFD = toGofer.give(a)
		sockets = append(sockets, toSentry.give(b))
		mounts = append(mounts, m)
	}
	return mounts, sockets, nil
}
