// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
)

// DiskSource is an empty directory on the disk of the state directory.
type DiskSource struct {
	// Volume is the name of the manifest's volume.
	Volume string `json:"volume"`
	// Size is what its files may hold, 0 for the default.
	Size int64 `json:"size,omitempty"`
}

// HasFiles says whether it has files before the sandbox writes some: of the host, or of an
// image. Nothing is to be looked up in another one.
func (s *Source) HasFiles() bool { return !s.Empty && s.InMemory == "" && s.Disk == nil }

// OnDisk is what the sandbox writes to the disk of the state directory, in the order in
// which gVisor takes the files for it.
func (st *Setup) OnDisk() (out []actual.OnDisk) {
	if st.App().Overlay == desired.OverlayDisk {
		out = append(out, actual.OnDisk{Size: st.diskSize(st.App().OverlaySize)})
	}
	for i := range st.App().Volumes {
		if d := st.App().Volumes[i].Disk; d != nil {
			out = append(out, actual.OnDisk{Volume: d.Volume, Size: st.diskSize(d.Size)})
		}
	}
	return out
}

// diskSize: without a policy there is a size too. A sentry that is given none fills the
// disk.
func (st *Setup) diskSize(asked int64) int64 {
	return cmp.Or(asked, st.DefaultDisk, int64(hostpolicy.BuiltInDiskSize))
}

// WithDiskSizes are the mounts of the application with the sizes that nobody asked for.
// They are not in Spec, which is compared with that of a checkpoint: one that was taken
// when the policy had another default stays good.
func (st *Setup) WithDiskSizes(mounts []specs.Mount) []specs.Mount {
	mounts, n := slices.Clone(mounts), 0
	for i := range mounts {
		if !IsBind(mounts[i]) {
			continue
		}
		if d := st.App().Volumes[n].Disk; d != nil && d.Size == 0 {
			mounts[i].Options = append(slices.Clip(mounts[i].Options), sizeOption(st.diskSize(0)))
		}
		n++
	}
	return mounts
}

func sizeOption(size int64) string { return fmt.Sprintf("size=%d", size) }

// MountConfs is gVisor's --gofer-mount-confs: one LOWER:UPPER a tree, with the size of an
// upper layer that has one. anon is a file that is given to the sentry.
func (st *Setup) MountConfs() string {
	app := st.App()
	lower, upper := "lisafs", "none"
	switch app.Overlay {
	case desired.OverlayMemory:
		upper = "memory"
	case desired.OverlayDisk:
		upper = "anon"
	}
	if app.Root.Image != nil {
		lower = "erofs"
		if upper == "none" {
			// Also above one that is read-only: it has the files of /etc that are the
			// sandbox's own, and mount points that the image lacks.
			upper = "memory"
		}
	}
	root := lower + ":" + upper
	switch {
	case app.Overlay == desired.OverlayDisk:
		root += ":" + sizeOption(st.diskSize(app.OverlaySize))
	case app.OverlaySize > 0:
		root += ":" + sizeOption(app.OverlaySize)
	}
	confs := []string{root}
	for i := range app.Volumes {
		if app.Volumes[i].Disk != nil {
			confs = append(confs, "none:anon")
		} else {
			confs = append(confs, "lisafs:none")
		}
	}
	return strings.Join(confs, ",")
}

// addEmptyDir appends an emptyDir. Its mode is that of Kubernetes' ones: every user of
// the sandbox can write there.
func (st *Setup) addEmptyDir(v *desired.Volume) error {
	onDisk, size := v.EmptyDir.Medium == desired.MediumDisk, int64(v.EmptyDir.Size)
	options := []string{"nosuid", "mode=0777"}
	if size > 0 {
		options = append(options, sizeOption(size))
	}
	if v.ReadOnly {
		options = append(options, "ro")
	}
	o, err := parseMountOptions(&specs.Mount{Type: "tmpfs", Options: append(options, v.Options...)}, false)
	if err != nil {
		return err
	}
	if onDisk {
		st.AddBind(v.MountPath, Source{Disk: &DiskSource{Volume: v.Name, Size: size}, ReadOnly: v.ReadOnly, Options: o})
		return nil
	}
	st.App().Spec.Mounts = append(st.App().Spec.Mounts, specs.Mount{Destination: v.MountPath, Type: "tmpfs", Source: "tmpfs", Options: o.forSentry()})
	return nil
}
