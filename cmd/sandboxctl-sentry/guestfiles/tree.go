// SPDX-License-Identifier: Apache-2.0

// Package guestfiles reads and writes files of a sandbox for clients, through the file
// systems of the guest as its first process sees them, as root of the sandbox: images
// without programs have files too. It starts nothing in the guest.
//
// Below the path that the client names no symbolic link is followed: each name is one
// component, looked up in an open directory. The application could put a link there to
// have root of the sandbox read or write something else than was meant. Links of procfs
// that lead to open files are not followed at all.
package guestfiles

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"sandboxctl.dev/cmd/sandboxctl-sentry/application"
	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
)

// Bounds of what is walked.
const (
	// maxDepth bounds how many directories are open at a time.
	maxDepth = 256
	maxPath  = 4095
)

// tree is the view of files that the first process of a sandbox has.
type tree struct {
	ctx   context.Context
	creds *auth.Credentials
	vfs   *vfs.VirtualFilesystem
	mntns *vfs.MountNamespace
	root  vfs.VirtualDentry
}

// serveFiles is serve with the files of the sandbox. A client of one that has none is told why.
func serveFiles(k *kernel.Kernel, work *clientwork.Work, socket int, f func(*tree, *client)) error {
	return serve(work, socket, func(c *client) {
		t, err := open(k, c)
		if err != nil {
			answer(c, err)
			return
		}
		defer t.close()
		f(t, c)
	})
}

func open(k *kernel.Kernel, c *client) (*tree, error) {
	ctx := &waiting{k.SupervisorContext(), c.left}
	first := application.Of(k)
	if first == nil || first.Leader() == nil {
		return nil, errors.New("the application has not been started")
	}
	mntns := first.Leader().MountNamespace()
	if mntns == nil || !mntns.TryIncRef() {
		return nil, errors.New("the application has ended")
	}
	return &tree{ctx, auth.NewRootCredentials(k.RootUserNamespace()), k.VFS(), mntns, mntns.Root(ctx)}, nil
}

func (t *tree) close() {
	t.root.DecRef(t.ctx)
	t.mntns.DecRef(t.ctx)
}

// named is the operation on a path that the client named.
func (t *tree) named(p string, follow bool) *vfs.PathOperation {
	return &vfs.PathOperation{
		Root: t.root, Start: t.root, Path: fspath.Parse(p), FollowFinalSymlink: follow, ResolveFlags: linux.RESOLVE_NO_MAGICLINKS,
	}
}

// in is the operation on one name in an open directory, which follows nothing but a mount.
// That the last component is not followed is not enough: gVisor follows it if it is to be
// a directory.
func (t *tree) in(dir *vfs.FileDescription, name string) *vfs.PathOperation {
	return &vfs.PathOperation{
		Root: t.root, Start: dir.VirtualDentry(), Path: fspath.Parse(name), ResolveFlags: linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_MAGICLINKS,
	}
}

const attributes = linux.STATX_TYPE | linux.STATX_MODE | linux.STATX_UID | linux.STATX_GID | linux.STATX_SIZE | linux.STATX_MTIME

func (t *tree) stat(op *vfs.PathOperation) (linux.Statx, error) {
	return t.vfs.StatAt(t.ctx, t.creds, op, &vfs.StatOptions{Mask: attributes})
}

// openAt opens what is known to be a regular file or a directory by now. It does not wait
// for anything if it is something else meanwhile.
func (t *tree) openAt(op *vfs.PathOperation, flags uint32) (*vfs.FileDescription, linux.Statx, error) {
	var st linux.Statx
	nofollow := uint32(linux.O_NOFOLLOW)
	if op.FollowFinalSymlink {
		nofollow = 0
	}
	fd, err := t.vfs.OpenAt(t.ctx, t.creds, op, &vfs.OpenOptions{Flags: flags | nofollow | linux.O_NONBLOCK | linux.O_NOCTTY | linux.O_LARGEFILE})
	if err != nil {
		return nil, st, err
	}
	if st, err = fd.Stat(t.ctx, vfs.StatOptions{Mask: attributes}); err != nil {
		fd.DecRef(t.ctx)
		return nil, st, err
	}
	return fd, st, nil
}

func kind(st linux.Statx) uint16 { return st.Mode & linux.FileTypeMask }

func isDir(st linux.Statx) bool { return kind(st) == linux.ModeDirectory }

// checkPath makes a path of a client's absolute.
func checkPath(p string) (string, error) {
	switch {
	case p == "":
		return "", errors.New("the path is empty")
	case strings.Contains(p, "\x00"):
		return "", errors.New("the path has a null byte")
	case len(p) > maxPath:
		return "", fmt.Errorf("the path has %d bytes, expected at most %d", len(p), maxPath)
	}
	return path.Join("/", p), nil
}

// checkName checks one component.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > linux.NAME_MAX {
		return fmt.Errorf("bad name %q", name)
	}
	return nil
}

func notThere(err error) bool { return linuxerr.Equals(linuxerr.ENOENT, err) }
