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

	"sandboxctl.dev/actual/atomicfile"
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
func (st *setup) hide(masked, readonly []string) error {
	served := st.servedAt()
	for _, p := range masked {
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
	for _, p := range outermost(readonly) {
		if isMasked(p, masked) || st.restrict(p) {
			continue
		}
		path, mode, err := st.find(served, p)
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
		if mode == unix.S_IFDIR || mode == unix.S_IFREG {
			st.addBind(p, source{path: path, readOnly: true})
		}
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
			st.spec.Mounts[i].Options = []string{"rbind", "ro"}
			return true
		}
		n++
	}
	return false
}

// own are the filesystems of the sentry that are there without being asked for.
var own = []string{"/proc", "/sys", "/dev"}

// servedAt is what is mounted where: trees of the host by their path there, what
// is the sentry's by "".
func (st *setup) servedAt() map[string]string {
	at := map[string]string{"/": st.root.path}
	for _, d := range own {
		at[d] = ""
	}
	n := 0
	for _, m := range st.spec.Mounts {
		src := ""
		if isBind(m) {
			src = st.volumes[n].path
			n++
		}
		at[filepath.Clean(m.Destination)] = src
	}
	return at
}

// find returns the path on the host of what is at p in the container, and of
// which type it is: 0 if it is not there or not the host's.
func (st *setup) find(served map[string]string, p string) (path string, mode uint32, err error) {
	at := p
	for ; ; at = filepath.Dir(at) {
		src, ok := served[at]
		if ok && src == "" {
			return "", 0, nil
		}
		if ok {
			path = src
			break
		}
	}
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", 0, err
	}
	defer dir.Close()
	f := dir
	if rel := strings.TrimPrefix(strings.TrimPrefix(p, at), "/"); rel != "" {
		// Links lead where they lead in the container.
		f, err = openAt2(int(dir.Fd()), rel, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return "", 0, nil
		}
		if err != nil {
			return "", 0, err
		}
		defer f.Close()
	}
	var stat unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "", &stat, unix.AT_EMPTY_PATH); err != nil {
		return "", 0, err
	}
	path, err = os.Readlink(fdPath(f))
	return path, stat.Mode & unix.S_IFMT, err
}

// emptyFile is what is served in the place of masked files, in a container's
// directory.
const emptyFile = "masked"

// serveEmpty makes the empty file of a container and has the masked files served
// from it.
func (l *Launcher) serveEmpty(id string, st *setup) error {
	if !slices.ContainsFunc(st.volumes, func(s source) bool { return s.empty }) {
		return nil
	}
	dir, err := l.store.Dir(id)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := atomicfile.Write(dir, emptyFile, nil, 0o444); err != nil {
		return fmt.Errorf("mask files: %w", err)
	}
	path, err := os.Readlink(fdPath(dir))
	if err != nil {
		return fmt.Errorf("mask files: %w", err)
	}
	for i := range st.volumes {
		if st.volumes[i].empty {
			st.volumes[i].path = filepath.Join(path, emptyFile)
		}
	}
	return nil
}
