// SPDX-License-Identifier: Apache-2.0

package gofer

import (
	"path"
	"strings"
)

// Place is a file or directory of the host, told by the filesystem it is on and
// where it is in there. Unlike a path it is the same wherever the filesystem is
// mounted, however often, and whichever part of it is bind-mounted.
type Place struct {
	// Device is MAJOR:MINOR of the filesystem, as in mountinfo.
	Device string `json:"device"`
	// Path is the clean, absolute path inside the filesystem.
	Path string `json:"path"`
	// Name is its path, for errors.
	Name string `json:"name"`
	// Writes says that it may be read: only a mount that can be written is refused.
	Writes bool `json:"writes,omitempty"`
	// State says that it is the state directory: a mount that was opened as a named volume
	// may show the data of one, or the names of siblings.
	State bool `json:"state,omitempty"`
}

// Directories of named volumes in the state directory: volumes/NAME/data is what a sandbox
// gets.
const (
	VolumesDir    = "volumes"
	VolumeDataDir = "data"
)

// Directories with the names of siblings in the state directory: sandboxes/NAME/names is
// what a sandbox on networks is shown.
const (
	sandboxesDir = "sandboxes"
	NamesDir     = "names"
)

// holdsVolume says whether the place is the state directory and root the data of a named
// volume in it, or a directory in that, or what a sandbox is shown of names, read-only.
// Whatever else is in the state directory, also of the volume, is never shared.
func (p *Place) holdsVolume(root string, readOnly bool) bool {
	below, in := strings.CutPrefix(root, strings.TrimSuffix(p.Path, "/")+"/")
	parts := strings.Split(below, "/")
	if !p.State || !in || len(parts) < 3 || parts[1] == "" {
		return false
	}
	return parts[0] == VolumesDir && parts[2] == VolumeDataDir || readOnly && len(parts) == 3 && parts[0] == sandboxesDir && parts[2] == NamesDir
}

// Overlaps says how a mount of the tree at root, in the filesystem of a device,
// and the place overlap: "" if they don't.
func (p *Place) Overlaps(device, root string) string {
	switch {
	case p.Device != device:
		return ""
	case Within(root, p.Path):
		return "is part of"
	case Within(p.Path, root):
		return "holds"
	}
	return ""
}

// Within says whether a clean absolute path is dir or below it.
func Within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// Forbids says why a mount must not be served, "" if the place has nothing to do
// with it. volume says that it was opened as a named volume, below the descriptor of the
// state directory: a path that leads to the same directory is refused.
func (p *Place) Forbids(device, root string, readOnly, volume bool) string {
	if p.Writes && readOnly {
		return ""
	}
	how := p.Overlaps(device, path.Clean(root))
	switch {
	case how != "" && volume && p.holdsVolume(path.Clean(root), readOnly):
		return ""
	case how == "":
		return ""
	case p.Writes:
		return "it " + how + " " + p.Name + ", which no sandbox may write"
	}
	return "it " + how + " " + p.Name + ", which is sandboxctl's own and never shared with a sandbox"
}
