// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"path"
	"slices"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/setup"
)

// memoryTree describes a volume in memory: the gofer makes it, and the host has no file
// of it.
func memoryTree(s *setup.Source) *gofer.Tree {
	t := &gofer.Tree{}
	for _, f := range s.Files {
		t.Dirs = append(t.Dirs, dirsOf(f.Name)...)
		t.Files = append(t.Files, gofer.File{Path: f.Name, Mode: f.Mode, Data: f.Data})
		if o := s.Owner; o != nil {
			owner := gofer.Owner{Path: f.Name}
			if o.UID != nil {
				owner.UID = *o.UID
			}
			if o.GID != nil {
				owner.GID = *o.GID
			}
			t.Owners = append(t.Owners, owner)
		}
	}
	return t
}

// dirsOf are the directories above a file, parents first. Making one twice is no error.
func dirsOf(name string) (dirs []gofer.Dir) {
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		dirs = append(dirs, gofer.Dir{Path: d, Mode: 0o755})
	}
	slices.Reverse(dirs)
	return dirs
}
