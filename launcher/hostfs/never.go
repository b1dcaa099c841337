// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"fmt"
	"slices"

	"github.com/moby/sys/mountinfo"

	"sandboxctl.dev/gofer"
)

// Own is something of this program that sandboxes must not get.
type Own struct {
	Spot Spot
	// Name is its path, for errors.
	Name string
	// Writes says that sandboxes may read it.
	Writes bool
	// State says that it is the state directory, in which named volumes are.
	State bool
}

// NeverShared are all places at which what is given can be reached or replaced.
func (t *Table) NeverShared(own []Own) ([]gofer.Place, error) {
	var out []gofer.Place
	for _, o := range own {
		at, err := t.reachable(o.Spot)
		if err != nil {
			return nil, err
		}
		for _, l := range at {
			p := gofer.Place{Device: l.device, Path: l.path, Name: o.Name, Writes: o.Writes, State: o.State}
			if !slices.ContainsFunc(out, func(q gofer.Place) bool {
				return q.Device == p.Device && q.Path == p.Path && (p.Writes || !q.Writes)
			}) {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// reachable are the locations of what is at a spot, of what is mounted in it, and
// of the mount points on the way to it: removing the directory under a mount, from
// another mount namespace, unmounts what is on it.
func (t *Table) reachable(s Spot) ([]location, error) {
	m, err := t.mountOf(s)
	if err != nil {
		return nil, err
	}
	var out []location
	add := func(m *mountinfo.Info, p, rest string) {
		l := inside(m, p)
		if rest != "" {
			l.path += "/" + rest
		}
		out = append(append(out, l), t.layers(m, l.path, maxOverlays)...)
	}
	add(m, s.Path, s.rest)
	if s.rest == "" {
		for _, b := range t.below(s.Path) {
			add(b, b.Mountpoint, "")
		}
	}
	for range t.mounts { // a bound: parents of damaged lists could go round
		parent := t.byID[m.Parent]
		if parent == nil || parent == m || !gofer.Within(m.Mountpoint, parent.Mountpoint) {
			break
		}
		add(parent, m.Mountpoint, "")
		m = parent
	}
	return out, nil
}

// Refusal says why a tree is not shared with a sandbox.
type Refusal struct {
	// Path is what was asked for, Mount the mount point that is to blame.
	Path, Mount, Why string
	// Kernel says that it is a filesystem of the kernel's, which nobody gets.
	Kernel bool
}

func (r *Refusal) Error() string {
	if r.Mount == r.Path {
		return fmt.Sprintf("open %s: %s", r.Path, r.Why)
	}
	return fmt.Sprintf("open %s: %s is mounted there, and %s", r.Path, r.Mount, r.Why)
}

// Check says whether the tree at a spot may be shared, with all that is mounted
// in it. The gofer looks again, at the mounts that it really has: this is for the
// host's names in the error, and for the layers of overlays, which only the host
// knows. volume says that the spot is a named volume's. It returns the overlays it has
// looked into.
func (t *Table) Check(s Spot, readOnly, volume bool, never []gofer.Place) (overlays []string, err error) {
	own, err := t.mountOf(s)
	if err != nil {
		return nil, err
	}
	checked := func(m *mountinfo.Info, p string, volume bool) error {
		if slices.Contains(gofer.RefusedTypes, m.FSType) {
			return &Refusal{Path: s.Path, Mount: p, Why: m.FSType + " is never shared with a sandbox", Kernel: true}
		}
		at := inside(m, p)
		for _, l := range append(t.layers(m, at.path, maxOverlays), at) {
			for i := range never {
				if why := never[i].Forbids(l.device, l.path, readOnly, volume); why != "" {
					return &Refusal{Path: s.Path, Mount: p, Why: why}
				}
			}
		}
		if m.FSType == "overlay" {
			overlays = append(overlays, at.device)
		}
		return nil
	}
	if err := checked(own, s.Path, volume); err != nil {
		return nil, err
	}
	for _, m := range t.below(s.Path) {
		if m == own {
			continue
		}
		if err := checked(m, m.Mountpoint, false); err != nil {
			return nil, err
		}
	}
	return overlays, nil
}
