// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"

	"sandboxctl.dev/desired/scalar"
)

// DiskPlace is something of a sandbox that is written to the disk of the state directory
// and gone when the sandbox ends.
type DiskPlace struct {
	// Volume is the name of the volume, "" for what is written to the root.
	Volume string
	// Size is what it may hold, 0 if the manifest does not say.
	Size scalar.Bytes
	// Field is what asks for it, Instead what does without the disk.
	Field, Instead string
}

// OnDisk are those places of a defaulted manifest: that of the root first, then the volumes
// in their order.
func (s *Spec) OnDisk() (out []DiskPlace) {
	if s.Overlay == OverlayDisk {
		out = append(out, DiskPlace{Size: s.OverlaySize, Field: "spec.overlay", Instead: "overlay: memory"})
	}
	for i, v := range s.Volumes {
		if d := v.EmptyDir; d != nil && d.Medium == MediumDisk {
			out = append(out, DiskPlace{Volume: v.Name, Size: d.Size, Field: fmt.Sprintf("spec.volumes[%d].emptyDir", i), Instead: "medium: memory"})
		}
	}
	return out
}
