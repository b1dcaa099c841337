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

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/setup"
)

// identityMaps map every id that this process's own user namespace has to itself:
// a daemon that runs in one, as in an unprivileged container, can't map others.
var identityMaps = sync.OnceValues(func() (*setup.IDMaps, error) {
	m := &setup.IDMaps{}
	for name, to := range map[string]*[]specs.LinuxIDMapping{"uid_map": &m.UIDs, "gid_map": &m.GIDs} {
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

// apply has a process start as root of a new user namespace with the mappings.
func mapUsers(m *setup.IDMaps, attr *syscall.SysProcAttr) {
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings, attr.GidMappings = sysMaps(m.UIDs), sysMaps(m.GIDs)
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

// mapsOf are the mappings of the user namespace at a path, which is opened once.
// The kernel tells them of processes only, so one that is in it is looked for.
func mapsOf(path string) (*setup.IDMaps, error) {
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
func mapsOfProcess(proc string, want *unix.Stat_t) (*setup.IDMaps, error) {
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
	m := &setup.IDMaps{}
	for name, to := range map[string]*[]specs.LinuxIDMapping{"uid_map": &m.UIDs, "gid_map": &m.GIDs} {
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
			return nil, fmt.Errorf("expected three numbers, got %q", untrusted.Line(line, 80))
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
