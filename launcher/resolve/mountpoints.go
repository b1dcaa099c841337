// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/launcher/setup"
)

// makeMountPoints makes what a container mounts on and its root does not have,
// as runc does: in a root that is served read-only nobody could do it later. The
// root belongs to the client, who could make them too; no link is followed out
// of it.
func makeMountPoints(st *setup.Setup) error {
	root, err := os.OpenRoot(st.App().Root.Path)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	volume := 0
	for _, m := range st.App().Spec.Mounts {
		dir := true
		if setup.IsBind(m) {
			if dir, err = isDir(&st.App().Volumes[volume]); err != nil {
				return fmt.Errorf("look at mount source: %w", err)
			}
			volume++
		}
		if st.OnMount(m.Destination) {
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
func checkCopyUp(st *setup.Setup) error {
	for _, dest := range st.App().CopyUp {
		root, err := os.OpenRoot(st.App().Root.Path)
		if err != nil {
			return fmt.Errorf("open root: %w", err)
		}
		entries, err := fs.ReadDir(root.FS(), strings.TrimLeft(path.Clean(dest), "/"))
		root.Close()
		if err == nil && len(entries) > 0 {
			return operation.Permanentf("mounts: tmpcopyup can't be honoured for %s: the root has files there, and they would be missing; use notmpcopyup", dest)
		}
	}
	return nil
}

func isDir(s *setup.Source) (bool, error) {
	if s.Empty {
		return false, nil
	}
	info, err := os.Stat(s.Path)
	if err != nil {
		return false, err
	}
	return info.IsDir(), nil
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
