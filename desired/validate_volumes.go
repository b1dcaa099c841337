// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sandboxctl.dev/desired/nesting"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// MaxVolumes bounds the volumes of a sandbox. For each one its start opens and locks a
// directory, and its gofer keeps it open.
const MaxVolumes = 100

// reservedMounts are gVisor's own inside a sandbox.
var reservedMounts = []string{"/proc", "/sys", "/dev"}

func (v *Validator) volumes(volumes []Volume) {
	if len(volumes) > MaxVolumes {
		v.Add("spec.volumes", "expected at most %d volumes, got %d; mount a directory above several of them", MaxVolumes, len(volumes))
		return
	}
	names, paths := map[string]bool{}, map[string]bool{}
	for i, vol := range volumes {
		at := fmt.Sprintf("spec.volumes[%d]", i)
		v.Name(at+".name", vol.Name)
		if names[vol.Name] {
			v.Add(at+".name", "volume %q is given twice; rename one of them", vol.Name)
		}
		names[vol.Name] = true
		v.mountPath(at+".mountPath", vol.MountPath)
		if paths[vol.MountPath] {
			v.Add(at+".mountPath", "two volumes are mounted at %s; move one of them", vol.MountPath)
		}
		paths[vol.MountPath] = true
		v.volumeOptions(at, vol.Options)
		set := 0
		if vol.HostPath != "" {
			set++
			v.HostPath(at+".hostPath", vol.HostPath)
			if vol.HostPath == "/" {
				v.Add(at+".hostPath", "the whole host is not a volume; name the directory the sandbox needs")
			}
		}
		if vol.Volume != nil {
			set++
			v.Name(at+".volume.name", vol.Volume.Name)
			v.volumeSize(at+".volume.size", vol.Volume.Size)
		}
		if onDisk := vol.HostPath != "" || vol.Volume != nil; !onDisk {
			if vol.Shared {
				v.Add(at+".shared", "is for a hostPath or a named volume: no other sandbox has anything else of this one")
			}
			if vol.SubPath != "" && vol.InMemory() == nil {
				v.Add(at+".subPath", "is for a hostPath, a named volume, config and secret")
			}
		}
		v.subPath(at+".subPath", vol.SubPath)
		v.shown(at+".subPath", &vol)
		v.ownership(at+".ownership", &vol)
		if vol.Tmpfs != nil {
			set++
			if vol.Tmpfs.Size < 0 {
				v.Add(at+".tmpfs.size", "expected a positive amount")
			}
		}
		if vol.EmptyDir != nil {
			set++
			v.OneOf(at+".emptyDir.medium", vol.EmptyDir.Medium, MediumDisk, MediumMemory)
			v.DiskSize(at+".emptyDir.size", vol.EmptyDir.Size)
		}
		if vol.Config != nil {
			set++
			v.fileSet(at+".config", vol.Config, false)
		}
		if vol.Secret != nil {
			set++
			v.fileSet(at+".secret", vol.Secret, true)
		}
		if set != 1 {
			v.Add(at, "expected exactly one of hostPath, volume, emptyDir, tmpfs, config, secret, got %d", set)
		}
	}
	v.nesting(volumes)
}

// nesting checks that there is something to mount each volume on, as far as that is known.
func (v *Validator) nesting(volumes []Volume) {
	known := make([]nesting.Volume, len(volumes))
	for i := range volumes {
		known[i] = volumes[i].nested()
	}
	for i, why := range nesting.Problems(known) {
		v.Add(fmt.Sprintf("spec.volumes[%d].mountPath", i), "%s", why)
	}
}

// nested is what the manifest tells of what a volume shows. The keys of a whole document
// are known at a start.
func (v *Volume) nested() nesting.Volume {
	n := nesting.Volume{Name: v.Name, At: v.MountPath, Shape: nesting.Directory, In: v.SubPath}
	set := v.InMemory()
	switch {
	case v.HostPath != "":
		n.Shape = nesting.Unknown
	case set == nil:
	case set.Name == "" || len(set.Items) > 0:
		n.Files, n.Named = set.names(), true
		if slices.Contains(n.Files, v.SubPath) {
			n.Shape = nesting.File
		}
	case v.SubPath != "":
		n.Shape = nesting.File
	}
	return n
}

// maxOnDisk is how many files on the disk a sandbox may have: its sentry is held to the
// size of each by a filter, which can be so long.
const maxOnDisk = 16

// onDisk bounds the places of a sandbox on the disk.
func (v *Validator) onDisk(s *Spec) {
	if places := s.OnDisk(); len(places) > maxOnDisk {
		v.Add(places[maxOnDisk].Field, "is one too many on the disk, where at most %d are possible; use directories of one of them, or medium: memory", maxOnDisk)
	}
}

// DiskSize checks how much files may hold, 0 if that was not said.
func (v *Validator) DiskSize(field string, size scalar.Bytes) {
	if size != 0 && size < MinFileSpace {
		v.Add(field, "expected at least %s, got %s", scalar.Bytes(MinFileSpace), size)
	}
}

// VolumeOptions are what spec.volumes[].options may be: as those of mount(8).
var VolumeOptions = []string{"noexec", "nosuid", "nodev", "noatime"}

func (v *Validator) volumeOptions(at string, options []string) {
	seen := map[string]bool{}
	for i, o := range options {
		field := fmt.Sprintf("%s.options[%d]", at, i)
		switch {
		case o == "ro" || o == "rro" || o == "rw":
			v.Add(field, "use readOnly: true or false to say whether the volume can be written")
		case seen[o]:
			v.Add(field, "%s is given twice; remove one of them", o)
		default:
			v.OneOf(field, o, VolumeOptions...)
		}
		seen[o] = true
	}
}

func (v *Validator) mountPath(field, p string) {
	switch {
	case !path.IsAbs(p) || path.Clean(p) != p:
		v.Add(field, "expected an absolute path without \"..\", \".\" and double or trailing slashes, got %q", yamldoc.Clip(p))
	case p == "/":
		v.Add(field, "/ is the root filesystem; see spec.root")
	default:
		v.PathText(field, p)
		for _, r := range reservedMounts {
			if p == r || strings.HasPrefix(p, r+"/") && p != "/dev/shm" {
				v.Add(field, "%s is the sandbox's own; choose another place", r)
			}
		}
	}
}

// subPath checks a path in a volume. "" is the volume itself.
func (v *Validator) subPath(field, p string) {
	if p == "" {
		return
	}
	v.PathText(field, p)
	if !filepath.IsLocal(p) || path.Clean(p) != p || p == "." {
		v.Add(field, "expected a relative path without \"..\", \".\" and double or trailing slashes, got %q", yamldoc.Clip(p))
	}
}

// Source is where on the host the volume is, as far as it says: a path, or what tells
// named volumes from paths and from each other; "" if it is not on the host.
func (v *Volume) Source() string {
	switch {
	case v.Volume != nil:
		return path.Join("volume "+v.Volume.Name, v.SubPath)
	case v.HostPath != "":
		return path.Join(v.HostPath, v.SubPath)
	}
	return ""
}

// SourceField is the field that Source is from.
func (v *Volume) SourceField() string {
	if v.Volume != nil {
		return "volume"
	}
	return "hostPath"
}

func (v *Validator) ownership(at string, vol *Volume) {
	o := vol.Ownership
	if o == nil {
		return
	}
	switch {
	case vol.InMemory() != nil && (o.Mode != "" || o.When != OwnershipFresh):
		v.Add(at, "expected only uid and gid: mode is a field of config and secret, and their files are new at each start")
	case vol.InMemory() == nil && vol.Volume == nil && vol.HostPath == "":
		v.Add(at, "is for a hostPath, a named volume, config and secret")
	}
	v.owner(at, o)
	v.OneOf(at+".when", o.When, OwnershipFresh, OwnershipMismatch)
}

func (v *Validator) owner(at string, o *Ownership) {
	if o.UID == nil && o.GID == nil && o.Mode == "" {
		v.Add(at, "expected at least one of uid, gid, mode")
	}
	v.ownerID(at+".uid", o.UID)
	v.ownerID(at+".gid", o.GID)
	if n, err := strconv.ParseUint(string(o.Mode), 8, 32); o.Mode != "" && (err != nil || n > 0o7777 || len(o.Mode) > 5) {
		v.Add(at+".mode", `expected permissions such as "0750" or "2770", got %q`, yamldoc.Clip(string(o.Mode)))
	}
}

// ownerID refuses the id that the kernel takes for none.
func (v *Validator) ownerID(field string, id *uint32) {
	if id != nil && *id == math.MaxUint32 {
		v.Add(field, "%d is nobody's id; use a smaller one", *id)
	}
}

// ofHost says whether the files of a volume are files of the host.
func (v Volume) ofHost() bool { return v.HostPath != "" || v.Volume != nil }
