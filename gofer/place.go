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
// with it.
func (p *Place) Forbids(device, root string, readOnly bool) string {
	if p.Writes && readOnly {
		return ""
	}
	how := p.Overlaps(device, path.Clean(root))
	switch {
	case how == "":
		return ""
	case p.Writes:
		return "it " + how + " " + p.Name + ", which no sandbox may write"
	}
	return "it " + how + " " + p.Name + ", which is sandboxctl's own and never shared with a sandbox"
}
