// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
)

// maxIDMap is how many ranges the kernel takes.
const maxIDMap = 340

// idMaps say who the users of a sandbox are on the host. The gofer serves its
// files in a user namespace with these mappings: it has no power over what
// belongs to others, and what it makes belongs to these.
type idMaps struct{ uids, gids []specs.LinuxIDMapping }

// identityMaps map every id that this process's own user namespace has to itself:
// a daemon that runs in one, as in an unprivileged container, can't map others.
var identityMaps = sync.OnceValues(func() (*idMaps, error) {
	m := &idMaps{}
	for name, to := range map[string]*[]specs.LinuxIDMapping{"uid_map": &m.uids, "gid_map": &m.gids} {
		b, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return nil, fmt.Errorf("read own id mappings: %w", err)
		}
		if *to, err = parseIDMap(string(b)); err != nil {
			return nil, fmt.Errorf("read own id mappings: %w", err)
		}
		for i := range *to {
			r := &(*to)[i]
			r.HostID = r.ContainerID
		}
	}
	return m, nil
})

// check refuses what the kernel would, and what a gofer can't work with.
func (m *idMaps) check() error {
	return errors.Join(checkIDMap("uidMappings", m.uids), checkIDMap("gidMappings", m.gids))
}

func checkIDMap(field string, maps []specs.LinuxIDMapping) error {
	if len(maps) == 0 || len(maps) > maxIDMap {
		return fmt.Errorf("%s: expected 1 to %d ranges, got %d", field, maxIDMap, len(maps))
	}
	for i, a := range maps {
		const end = 1<<32 - 1 // is no id
		if a.Size == 0 || uint64(a.ContainerID)+uint64(a.Size) > end || uint64(a.HostID)+uint64(a.Size) > end {
			return fmt.Errorf("%s[%d]: expected a range of at least one id, within 0 to %d", field, i, uint32(end-1))
		}
		for j, b := range maps[:i] {
			if overlap(a.ContainerID, b.ContainerID, a.Size, b.Size) || overlap(a.HostID, b.HostID, a.Size, b.Size) {
				return fmt.Errorf("%s[%d]: it overlaps with %s[%d]", field, i, field, j)
			}
		}
	}
	if _, ok := hostID(maps, 0); !ok {
		return fmt.Errorf("%s: 0 must be mapped: the gofer serves files as root of the user namespace", field)
	}
	return nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// hostID is the id on the host of one of the sandbox.
func hostID(maps []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// maps says whether a user and a group of the sandbox are somebody on the host.
func (m *idMaps) maps(uid, gid uint32) bool {
	if m == nil {
		return true
	}
	_, u := hostID(m.uids, uid)
	_, g := hostID(m.gids, gid)
	return u && g
}

// owner is who root of the sandbox is on the host.
func (m *idMaps) owner() (uid, gid int) {
	if m == nil {
		return 0, 0
	}
	u, _ := hostID(m.uids, 0)
	g, _ := hostID(m.gids, 0)
	return int(u), int(g)
}

// apply has a process start as root of a new user namespace with the mappings.
func (m *idMaps) apply(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings, attr.GidMappings = sysMaps(m.uids), sysMaps(m.gids)
	attr.GidMappingsEnableSetgroups = true
	attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
}

func sysMaps(maps []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(maps))
	for i, m := range maps {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)}
	}
	return out
}

func manifestMaps(m *desired.IDMappings) *idMaps {
	if m == nil {
		return nil
	}
	conv := func(in []desired.IDMapping) []specs.LinuxIDMapping {
		out := make([]specs.LinuxIDMapping, len(in))
		for i, r := range in {
			out[i] = specs.LinuxIDMapping{ContainerID: r.ContainerID, HostID: r.HostID, Size: r.Size}
		}
		return out
	}
	return &idMaps{conv(m.UIDs), conv(m.GIDs)}
}

// containerMaps are those of a container's config.json, nil without a user
// namespace. A namespace given by path lends its mappings: whatever happens to
// it later, the gofer has a namespace of its own with the same.
func containerMaps(l *specs.Linux, path string, userns bool) (*idMaps, error) {
	m := &idMaps{l.UIDMappings, l.GIDMappings}
	given := len(m.uids)+len(m.gids) > 0
	var err error
	switch {
	case !userns && !given:
		return nil, nil
	case !userns:
		return nil, errors.New("linux.uidMappings, gidMappings: they need a user namespace in linux.namespaces")
	case path != "" && given:
		return nil, errors.New("linux.uidMappings, gidMappings: a user namespace that is joined by path has its own")
	case path != "":
		if m, err = mapsOf(path); err != nil {
			return nil, fmt.Errorf("join user namespace: %w", err)
		}
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("linux: %w", err)
	}
	return m, nil
}

// mapsOf are the mappings of the user namespace at a path, which is opened once.
// The kernel tells them of processes only, so one that is in it is looked for.
func mapsOf(path string) (*idMaps, error) {
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(at)
	var fs unix.Statfs_t
	var want unix.Stat_t
	if err := errors.Join(unix.Fstatfs(at, &fs), unix.Fstat(at, &want)); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("open %s: it is not a namespace", path)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		if m, err := mapsOfProcess("/proc/"+e.Name(), &want); err != nil || m != nil {
			return m, err
		}
	}
	return nil, fmt.Errorf("%s: it is not a user namespace, or no process is in it that tells its mappings", path)
}

// mapsOfProcess returns nil for a process that is in another namespace or gone.
func mapsOfProcess(proc string, want *unix.Stat_t) (*idMaps, error) {
	// All through one descriptor: it is the same process, or none.
	dir, err := os.Open(proc)
	if err != nil {
		return nil, nil //nolint:nilerr // it has ended
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), "ns/user", &st, 0); err != nil || st.Ino != want.Ino || st.Dev != want.Dev {
		return nil, nil //nolint:nilerr // it has ended
	}
	m := &idMaps{}
	for name, to := range map[string]*[]specs.LinuxIDMapping{"uid_map": &m.uids, "gid_map": &m.gids} {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s of %s: %w", name, proc, err)
		}
		f := os.NewFile(uintptr(fd), name)
		b, err := io.ReadAll(io.LimitReader(f, 1<<20))
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", name, proc, err)
		}
		if *to, err = parseIDMap(string(b)); err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", name, proc, err)
		}
	}
	return m, nil
}

// parseIDMap reads lines of "inside outside size".
func parseIDMap(s string) ([]specs.LinuxIDMapping, error) {
	var out []specs.LinuxIDMapping
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("expected three numbers, got %q", printable(line, 80))
		}
		var n [3]uint32
		for i := range f {
			v, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, err
			}
			n[i] = uint32(v)
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]})
	}
	return out, nil
}
