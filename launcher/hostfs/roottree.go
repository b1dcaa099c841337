// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// Tree is a directory of the host as a sandbox sees it: with the owners that files have
// there, and with links that lead nowhere outside.
type Tree struct {
	root *os.Root
	ids  *idmap.Maps
}

// OpenTree opens the directory of a source.
func OpenTree(s *setup.Source, ids *idmap.Maps) (*Tree, error) {
	dir, err := OpenSource(s)
	if err != nil {
		return nil, inField(s.Field, fmt.Errorf("open %s: %w", nameOf(s), operation.PathPrecondition(err)))
	}
	defer dir.Close()
	root, err := os.OpenRoot(proc.FDPath(dir))
	if err != nil {
		return nil, inField(s.Field, fmt.Errorf("open %s: %w", nameOf(s), err))
	}
	return &Tree{root, ids}, nil
}

// Close closes it.
func (t *Tree) Close() { _ = t.root.Close() } // nothing was written by it

// Open implements fs.FS. It opens nothing: a file of the host may wait for somebody, and
// who writes the tree chooses what is in it.
func (t *Tree) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

// ReadLink implements fs.ReadLinkFS.
func (t *Tree) ReadLink(name string) (string, error) {
	return t.root.Readlink(filepath.FromSlash(name))
}

// Lstat implements fs.ReadLinkFS.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	info, err := t.root.Lstat(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	return &guestInfo{info, t.ids}, nil
}

// guestInfo has owners as the entries of images have them.
type guestInfo struct {
	fs.FileInfo

	ids *idmap.Maps
}

// UID is the user of the sandbox whose it is.
func (i *guestInfo) UID() uint32 { u, _ := i.owner(); return u }

// GID is the group.
func (i *guestInfo) GID() uint32 { _, g := i.owner(); return g }

func (i *guestInfo) owner() (uid, gid uint32) {
	st, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return nobodyID, nobodyID
	}
	if i.ids == nil {
		return st.Uid, st.Gid
	}
	return idmap.InSandbox(i.ids.UIDs, st.Uid, nobodyID), idmap.InSandbox(i.ids.GIDs, st.Gid, nobodyID)
}
