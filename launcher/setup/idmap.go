// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
)

// maxIDMap is how many ranges the kernel takes.
const maxIDMap = 340

// IDMaps say who the users of a sandbox are on the host. The gofer serves its
// files in a user namespace with these mappings: it has no power over what
// belongs to others, and what it makes belongs to these.
type IDMaps struct {
	UIDs []specs.LinuxIDMapping `json:"uids"`
	GIDs []specs.LinuxIDMapping `json:"gids"`
}

// check refuses what the kernel would, and what a gofer can't work with.
func (m *IDMaps) check() error {
	return errors.Join(checkIDMap("uidMappings", m.UIDs), checkIDMap("gidMappings", m.GIDs))
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

// Maps says whether a user and a group of the sandbox are somebody on the host.
func (m *IDMaps) Maps(uid, gid uint32) bool {
	if m == nil {
		return true
	}
	_, u := hostID(m.UIDs, uid)
	_, g := hostID(m.GIDs, gid)
	return u && g
}

// Owner is who root of the sandbox is on the host.
func (m *IDMaps) Owner() (uid, gid int) {
	if m == nil {
		return 0, 0
	}
	u, _ := hostID(m.UIDs, 0)
	g, _ := hostID(m.GIDs, 0)
	return int(u), int(g)
}

func manifestMaps(m *desired.IDMappings) *IDMaps {
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
	return &IDMaps{conv(m.UIDs), conv(m.GIDs)}
}

// ContainerMaps are those of a container's config.json, nil without a user
// namespace. A namespace given by path lends its mappings: whatever happens to
// it later, the gofer has a namespace of its own with the same.
func ContainerMaps(l *specs.Linux, path string, userns bool, mapsOf func(path string) (*IDMaps, error)) (*IDMaps, error) {
	m := &IDMaps{l.UIDMappings, l.GIDMappings}
	given := len(m.UIDs)+len(m.GIDs) > 0
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

// ParseIDMap reads lines of "inside outside size".
func ParseIDMap(s string) ([]specs.LinuxIDMapping, error) {
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
