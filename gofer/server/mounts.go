// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"io"
	"slices"

	"github.com/moby/sys/mountinfo"

	"sandboxctl.dev/gofer"
)

// judgeMounts refuses to serve what this process must not have in its jail, in a list of
// mounts such as mountinfo. By now its mounts are the jail and the served trees, whatever
// came along below these, and nothing else: it is these that are judged. Before that it could
// only be told by paths, which somebody who may write there swaps meanwhile. A list that
// can't be read, or has no root, is refused as well: nothing can be told of what is served.
func judgeMounts(list io.Reader, cfg *gofer.Config) error {
	mounts, err := mountinfo.GetMountsFromReader(list, nil)
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	root := false
	for _, m := range mounts {
		root = root || m.Mountpoint == "/"
		if why := forbids(cfg, m); why != "" {
			return fmt.Errorf("refuse to serve the mount at %s: %s", m.Mountpoint, why)
		}
	}
	if !root {
		return fmt.Errorf("list mounts: there is no root")
	}
	return nil
}

// forbids says why a mount must not be in the jail, "" if it may.
func forbids(c *gofer.Config, m *mountinfo.Info) string {
	if slices.Contains(gofer.RefusedTypes, m.FSType) {
		return m.FSType + " is never shared with a sandbox"
	}
	device, readOnly, volume := gofer.Device(m), gofer.IsReadOnly(m), isVolume(c, m)
	for i := range c.NeverShared {
		if why := c.NeverShared[i].Forbids(device, m.Root, readOnly, volume); why != "" {
			return why
		}
	}
	// What the layers of an overlay are can only be looked up on the host.
	if len(c.NeverShared) > 0 && m.FSType == "overlay" && !slices.Contains(c.Overlays, device) {
		return "it is an overlay that was mounted a moment ago; try again"
	}
	return ""
}

// isVolume says whether a mount is one that the launcher has opened as a named volume, and
// shows what was opened then.
func isVolume(c *gofer.Config, m *mountinfo.Info) bool {
	for i := range c.Mounts {
		if v := c.Mounts[i].Volume; v != "" && v == m.Root && m.Mountpoint == gofer.MountPoint(i) {
			return true
		}
	}
	return false
}
