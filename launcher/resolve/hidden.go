// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// gVisor looks at neither linux.maskedPaths nor linux.readonlyPaths. What they
// name in the trees that the host serves gets a mount of its own over it: an
// empty one, or the same tree read-only. What they name in proc, sysfs and the
// other filesystems of the sentry is left as it is: that is the sandbox's own,
// holds nothing of the host and changes nothing but the sandbox.

// hide adds the mounts that mask paths and make others read-only, and removes those
// that a masked path hides. Each path is where links lead in the container, through
// other mounts too: /var/run/key is /run/key where /var/run is a link to /run.
func hide(st *setup.Setup, img *hostfs.Image) error {
	masked, err := resolveHidden(st, img, st.App().Masked)
	if err != nil {
		return fmt.Errorf("mask %w", err)
	}
	if slices.Contains(masked, "/") {
		return operation.Permanentf("linux.maskedPaths: one leads to the root of the sandbox, which can't be masked")
	}
	readonly, err := resolveHidden(st, img, st.App().Readonly)
	if err != nil {
		return fmt.Errorf("make read-only: %w", err)
	}
	dropMasked(st, masked)
	served := st.ServedAt()
	for _, p := range masked {
		_, mode, err := find(served, p)
		if err != nil {
			return fmt.Errorf("mask %s: %w", p, err)
		}
		switch mode {
		case unix.S_IFDIR:
			st.App().Spec.Mounts = append(st.App().Spec.Mounts, specs.Mount{Destination: p, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "noexec"}})
		case unix.S_IFREG:
			st.AddBind(p, setup.Source{ReadOnly: true, Empty: true})
		}
	}
	for _, p := range readonly {
		if setup.IsMasked(p, masked) || st.Restrict(p) {
			continue
		}
		src, mode, err := find(served, p)
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
		if mode == unix.S_IFDIR || mode == unix.S_IFREG {
			src.ReadOnly = true
			st.AddBind(p, src)
		}
	}
	return nil
}

// dropMasked removes the mounts at and below masked paths. gVisor mounts what is deeper
// later, so that they would come out on top of what masks them.
func dropMasked(st *setup.Setup, masked []string) {
	app := st.App()
	mounts, volumes := app.Spec.Mounts, app.Volumes
	app.Spec.Mounts, app.Volumes = nil, nil
	for _, m := range mounts {
		var src *setup.Source
		if setup.IsBind(m) {
			src, volumes = &volumes[0], volumes[1:]
		}
		switch {
		case setup.IsMasked(m.Destination, masked):
		case src != nil:
			st.AddBind(m.Destination, *src)
		default:
			app.Spec.Mounts = append(app.Spec.Mounts, m)
		}
	}
}

// resolveHidden follows the links of paths, and leaves out those in others.
func resolveHidden(st *setup.Setup, img *hostfs.Image, paths []string) (out []string, err error) {
	trees := containerTrees{served: st.ServedAt(), image: img, open: map[*setup.Source]*os.File{}}
	defer trees.close()
	for _, p := range paths {
		at, err := trees.resolve(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		out = append(out, at)
	}
	return setup.Outermost(out), nil
}

// find returns what is at p in the container as a source, and of which type it
// is: 0 if it is not there or not the host's. The source is opened below what
// allows the tree that it is in: another thing that is put there meanwhile is
// still one that the sandbox may have.
func find(served map[string]*setup.Source, p string) (found setup.Source, mode uint32, err error) {
	tree, rel := treeAt(served, p, "")
	if tree == nil || !tree.HasFiles() {
		return setup.Source{}, 0, nil
	}
	// The tree must be there: if it is away for a moment, nothing in it would be hidden.
	dir, err := hostfs.OpenSource(tree)
	if err != nil {
		return setup.Source{}, 0, err
	}
	f, err := openBelow(dir, rel)
	if rel != "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
		return setup.Source{}, 0, nil
	}
	if err != nil {
		return setup.Source{}, 0, err
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return setup.Source{}, 0, err
	}
	path, err := os.Readlink(proc.FDPath(f))
	return setup.Source{Path: path, Kind: tree.Kind, Allowed: tree.Allowed, Field: tree.Field, Options: tree.Options}, stat.Mode & unix.S_IFMT, err
}
