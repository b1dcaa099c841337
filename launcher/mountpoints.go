// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// makeMountPoints makes what a container mounts on and its root does not have,
// as runc does: in a root that is served read-only nobody could do it later. The
// root belongs to the client, who could make them too; no link is followed out
// of it.
func (st *setup) makeMountPoints() error {
	root, err := os.OpenRoot(st.root.path)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	volume := 0
	for _, m := range st.spec.Mounts {
		dir := true
		if isBind(m) {
			if dir, err = st.volumes[volume].isDir(); err != nil {
				return fmt.Errorf("look at mount source: %w", err)
			}
			volume++
		}
		if st.onMount(m.Destination) {
			continue // gVisor makes it, in what is mounted there
		}
		if err := makeMountPoint(root, strings.TrimLeft(path.Clean(m.Destination), "/"), dir); err != nil {
			return fmt.Errorf("make mount point %s: %w", m.Destination, err)
		}
	}
	return nil
}

// checkCopyUp refuses a tmpfs that is to have a copy of what is under it, if there
// is something: it would be missing.
func (st *setup) checkCopyUp() error {
	for _, dest := range st.copyUp {
		root, err := os.OpenRoot(st.root.path)
		if err != nil {
			return fmt.Errorf("open root: %w", err)
		}
		entries, err := fs.ReadDir(root.FS(), strings.TrimLeft(path.Clean(dest), "/"))
		root.Close()
		if err == nil && len(entries) > 0 {
			return terminalf("mounts: tmpcopyup can't be honoured for %s: the root has files there, and they would be missing; use notmpcopyup", dest)
		}
	}
	return nil
}

func (s *source) isDir() (bool, error) {
	if s.empty {
		return false, nil
	}
	info, err := os.Stat(s.path)
	if err != nil {
		return false, err
	}
	return info.IsDir(), nil
}

// onMount says whether a path is below another mount.
func (st *setup) onMount(dest string) bool {
	for _, m := range st.spec.Mounts {
		if strings.HasPrefix(path.Clean(dest), path.Clean(m.Destination)+"/") {
			return true
		}
	}
	return false
}

func makeMountPoint(root *os.Root, name string, dir bool) error {
	if name == "" {
		return nil
	}
	if _, err := root.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		return nil // it is there, or leads where only gVisor can follow
	}
	if dir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
