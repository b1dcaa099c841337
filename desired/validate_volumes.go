// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"path"
	"strings"

	"sandboxctl.dev/desired/yamldoc"
)

// reservedMounts are gVisor's own inside a sandbox.
var reservedMounts = []string{"/proc", "/sys", "/dev"}

func (v *Validator) volumes(volumes []Volume) {
	names, paths := map[string]bool{}, map[string]bool{}
	for i, vol := range volumes {
		at := fmt.Sprintf("spec.volumes[%d]", i)
		v.name(at+".name", vol.Name)
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
		if vol.Tmpfs != nil {
			set++
			if vol.Tmpfs.Size < 0 {
				v.Add(at+".tmpfs.size", "expected a positive amount")
			}
		}
		if set != 1 {
			v.Add(at, "expected exactly one of hostPath, tmpfs, got %d", set)
		}
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
		v.pathText(field, p)
		for _, r := range reservedMounts {
			if p == r || strings.HasPrefix(p, r+"/") && p != "/dev/shm" {
				v.Add(field, "%s is the sandbox's own; choose another place", r)
			}
		}
	}
}
