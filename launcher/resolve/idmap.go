// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/idmap"
)

// mapsOf are the mappings of the user namespace at a path, which is opened once.
// The kernel tells them of processes only, so one that is in it is looked for.
func mapsOf(path string) (*idmap.Maps, error) {
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
func mapsOfProcess(proc string, want *unix.Stat_t) (*idmap.Maps, error) {
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
	m := &idmap.Maps{}
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
		if *to, err = idmap.Parse(string(b)); err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", name, proc, err)
		}
	}
	return m, nil
}
