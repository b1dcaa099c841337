// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

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

// Outermost are the clean paths without those in others.
func Outermost(paths []string) (out []string) {
	for _, p := range paths {
		p = filepath.Clean(p)
		inside := func(q string) bool { return p != filepath.Clean(q) && below(p, filepath.Clean(q)) }
		if !slices.ContainsFunc(paths, inside) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// IsMasked says whether a masked path hides what is at path.
func IsMasked(path string, masked []string) bool {
	return slices.ContainsFunc(masked, func(m string) bool { return below(filepath.Clean(path), m) })
}

// Restrict makes what is mounted at dest read-only. It returns false if that is
// no tree of the host.
func (st *Setup) Restrict(dest string) bool {
	if dest == "/" {
		st.App().Root.ReadOnly, st.App().Spec.Root.Readonly = true, true
		return true
	}
	n := 0
	for i, m := range st.App().Spec.Mounts {
		if !IsBind(m) {
			continue
		}
		if filepath.Clean(m.Destination) == dest {
			st.App().Volumes[n].ReadOnly = true
			st.App().Spec.Mounts[i].Options = st.App().Volumes[n].bindOptions()
			return true
		}
		n++
	}
	return false
}

// own are the filesystems of the sentry that are there without being asked for.
var own = []string{"/proc", "/sys", "/dev"}

// ServedAt is what is mounted where: trees of the host, and nil for what is the
// sentry's.
func (st *Setup) ServedAt() map[string]*Source {
	at := map[string]*Source{"/": &st.App().Root}
	for _, d := range own {
		at[d] = nil
	}
	n := 0
	for _, m := range st.App().Spec.Mounts {
		var src *Source
		if IsBind(m) {
			src = &st.App().Volumes[n]
			n++
		}
		at[filepath.Clean(m.Destination)] = src
	}
	return at
}

// OnMount says whether a path is below another mount.
func (st *Setup) OnMount(dest string) bool {
	for _, m := range st.App().Spec.Mounts {
		if strings.HasPrefix(path.Clean(dest), path.Clean(m.Destination)+"/") {
			return true
		}
	}
	return false
}
