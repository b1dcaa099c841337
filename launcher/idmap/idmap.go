// SPDX-License-Identifier: Apache-2.0

package idmap

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

// Maps say who the users of a sandbox are on the host. The gofer serves its
// files in a user namespace with these mappings: it has no power over what
// belongs to others, and what it makes belongs to these.
type Maps struct {
	UIDs []specs.LinuxIDMapping `json:"uids"`
	GIDs []specs.LinuxIDMapping `json:"gids"`
}

// check refuses what the kernel would, and what a gofer can't work with.
func (m *Maps) check() error {
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
	if _, ok := OnHost(maps, 0); !ok {
		return fmt.Errorf("%s: 0 must be mapped: the gofer serves files as root of the user namespace", field)
	}
	return nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// OnHost is the id on the host of one of the sandbox, if it is anybody there. Without a
// user namespace, which is no mappings at all, it is the same id.
func OnHost(maps []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	if maps == nil {
		return id, true
	}
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// Maps says whether a user and a group of the sandbox are somebody on the host.
func (m *Maps) Maps(uid, gid uint32) bool {
	if m == nil {
		return true
	}
	_, u := OnHost(m.UIDs, uid)
	_, g := OnHost(m.GIDs, gid)
	return u && g
}

// Owner is who root of the sandbox is on the host.
func (m *Maps) Owner() (uid, gid int) {
	if m == nil {
		return 0, 0
	}
	u, _ := OnHost(m.UIDs, 0)
	g, _ := OnHost(m.GIDs, 0)
	return int(u), int(g)
}

// OfManifest are those of a manifest, nil without.
func OfManifest(m *desired.IDMappings) *Maps {
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
	return &Maps{conv(m.UIDs), conv(m.GIDs)}
}

// OfContainer are those of a container's config.json, nil without a user
// namespace. The mappings of a namespace that is given by path are copied: whatever happens to
// it later, the gofer has a namespace of its own with the same.
func OfContainer(l *specs.Linux, path string, userns bool, mapsOf func(path string) (*Maps, error)) (*Maps, error) {
	m := &Maps{l.UIDMappings, l.GIDMappings}
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

// Parse reads lines of "inside outside size".
func Parse(s string) ([]specs.LinuxIDMapping, error) {
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

// InSandbox is the id in the sandbox of one on the host, or if it has none the other one.
func InSandbox(maps []specs.LinuxIDMapping, host, other uint32) uint32 {
	for _, m := range maps {
		if host >= m.HostID && host-m.HostID < m.Size {
			return m.ContainerID + (host - m.HostID)
		}
	}
	return other
}
