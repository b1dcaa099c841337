// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// gVisor looks at neither linux.maskedPaths nor linux.readonlyPaths. What they
// name in the trees that the host serves gets a mount of its own over it: an
// empty one, or the same tree read-only. What they name in proc, sysfs and the
// other filesystems of the sentry is left as it is: that is the sandbox's own,
// holds nothing of the host and changes nothing but the sandbox.

// below says whether a clean absolute path is dir or in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// maxHidden bounds the masked and read-only paths of a container: each is
// compared with all others.
const maxHidden = 1000

// checkHidden refuses paths that can't be hidden or made read-only.
func checkHidden(l *specs.Linux) error {
	if n := len(l.MaskedPaths) + len(l.ReadonlyPaths); n > maxHidden {
		return fmt.Errorf("linux.maskedPaths, readonlyPaths: expected at most %d, got %d", maxHidden, n)
	}
	for i, p := range l.MaskedPaths {
		if !filepath.IsAbs(p) || filepath.Clean(p) == "/" {
			return fmt.Errorf("linux.maskedPaths[%d]: expected an absolute path that is not /, got %q", i, p)
		}
	}
	for i, p := range l.ReadonlyPaths {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("linux.readonlyPaths[%d]: expected an absolute path, got %q", i, p)
		}
	}
	return nil
}

// outermost are the clean paths without those in others.
func outermost(paths []string) (out []string) {
	for _, p := range paths {
		p = filepath.Clean(p)
		inside := func(q string) bool { return p != filepath.Clean(q) && below(p, filepath.Clean(q)) }
		if !slices.ContainsFunc(paths, inside) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// isMasked says whether a masked path hides what is at path.
func isMasked(path string, masked []string) bool {
	return slices.ContainsFunc(masked, func(m string) bool { return below(filepath.Clean(path), m) })
}

// hide adds the mounts that mask paths and make others read-only. The mounts of
// the container are there already, without those that a masked path hides:
// gVisor mounts what is deeper later, so that it would come out on top.
func (st *setup) hide() error {
	served := st.servedAt()
	for _, p := range st.masked {
		_, mode, err := st.find(served, p)
		if err != nil {
			return fmt.Errorf("mask %s: %w", p, err)
		}
		switch mode {
		case unix.S_IFDIR:
			st.spec.Mounts = append(st.spec.Mounts, specs.Mount{Destination: p, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "noexec"}})
		case unix.S_IFREG:
			st.addBind(p, source{readOnly: true, empty: true})
		}
	}
	for _, p := range outermost(st.readonly) {
		if isMasked(p, st.masked) || st.restrict(p) {
			continue
		}
		src, mode, err := st.find(served, p)
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
		if mode == unix.S_IFDIR || mode == unix.S_IFREG {
			src.readOnly = true
			st.addBind(p, src)
		}
	}
	return nil
}

// hideInBundle is hide for a manifest's bundle. It looks at the bundle's files, so
// that it is for a sandbox that is about to be started.
func (st *setup) hideInBundle() error {
	if len(st.masked)+len(st.readonly) == 0 {
		return nil
	}
	if err := st.hide(); err != nil {
		return fmt.Errorf("spec.root.bundle: %w", err)
	}
	return nil
}

// restrict makes what is mounted at dest read-only. It returns false if that is
// no tree of the host.
func (st *setup) restrict(dest string) bool {
	if dest == "/" {
		st.root.readOnly, st.spec.Root.Readonly = true, true
		return true
	}
	n := 0
	for i, m := range st.spec.Mounts {
		if !isBind(m) {
			continue
		}
		if filepath.Clean(m.Destination) == dest {
			st.volumes[n].readOnly = true
			st.spec.Mounts[i].Options = st.volumes[n].bindOptions()
			return true
		}
		n++
	}
	return false
}

// own are the filesystems of the sentry that are there without being asked for.
var own = []string{"/proc", "/sys", "/dev"}

// servedAt is what is mounted where: trees of the host, and nil for what is the
// sentry's.
func (st *setup) servedAt() map[string]*source {
	at := map[string]*source{"/": &st.root}
	for _, d := range own {
		at[d] = nil
	}
	n := 0
	for _, m := range st.spec.Mounts {
		var src *source
		if isBind(m) {
			src = &st.volumes[n]
			n++
		}
		at[filepath.Clean(m.Destination)] = src
	}
	return at
}

// find returns what is at p in the container as a source, and of which type it
// is: 0 if it is not there or not the host's. The source is opened below what
// allows the tree that it is in: another thing that is put there meanwhile is
// still one that the sandbox may have.
func (st *setup) find(served map[string]*source, p string) (found source, mode uint32, err error) {
	at := p
	tree, ok := served[at]
	for ; !ok; tree, ok = served[at] {
		at = filepath.Dir(at)
	}
	if tree == nil || tree.empty {
		return source{}, 0, nil
	}
	dir, err := tree.open()
	if err != nil {
		return source{}, 0, err
	}
	defer dir.Close()
	f := dir
	if rel := strings.TrimPrefix(strings.TrimPrefix(p, at), "/"); rel != "" {
		// Links lead where they lead in the container.
		f, err = openAt2(int(dir.Fd()), rel, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return source{}, 0, nil
		}
		if err != nil {
			return source{}, 0, err
		}
		defer f.Close()
	}
	var stat unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return source{}, 0, err
	}
	path, err := os.Readlink(fdPath(f))
	return source{path: path, allowed: tree.allowed, field: tree.field, options: tree.options}, stat.Mode & unix.S_IFMT, err
}
