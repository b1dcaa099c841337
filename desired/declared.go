// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"cmp"
	"fmt"
	"reflect"

	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/sizes"
	"sandboxctl.dev/desired/yamldoc"
)

// VolumeDocument declares a named volume: it is made although no sandbox uses it yet.
type VolumeDocument struct {
	// `sandboxctl.dev/v1alpha1`.
	APIVersion string `json:"apiVersion"`
	// `Volume`.
	Kind     string     `json:"kind"`
	Metadata Metadata   `json:"metadata"`
	Spec     VolumeSpec `json:"spec,omitzero"`
}

// VolumeSpec says how a named volume is to be.
type VolumeSpec struct {
	// How much it may hold, at least `64Ki`. The file system of the state directory must have
	// project quotas, see [Sizes](../guide/volumes.md#how-much). A change takes effect at once,
	// and restarts nothing. Default: no limit of its own.
	Size scalar.Bytes `json:"size,omitempty"`
	// Whom it belongs to when it is made, in ids of the first sandbox that uses it; this counts
	// before what that sandbox says.
	Ownership *FreshOwnership `json:"ownership,omitempty"`
	// What `sandboxctl delete` of this document does to the volume: `Retain` keeps it, `Delete`
	// removes it with all that is in it, when no sandbox uses it. It is never removed because
	// the document has vanished. Default: `Retain`.
	Reclaim string `json:"reclaim,omitempty"`
}

// FreshOwnership says whom a volume belongs to when it is made.
type FreshOwnership struct {
	// The user of the sandbox.
	UID *uint32 `json:"uid,omitempty"`
	// The group of the sandbox.
	GID *uint32 `json:"gid,omitempty"`
	// The permissions of the directory itself, such as `"2770"`.
	Mode FileMode `json:"mode,omitempty"`
}

// Values of VolumeSpec.Reclaim.
const (
	ReclaimRetain = "Retain"
	ReclaimDelete = "Delete"
)

// MinVolumeSize is the least size that a volume can have: below it an empty file system
// would be full.
const MinVolumeSize = 64 << 10

var volumeSchema = SchemaOf(func() yamldoc.Schema {
	return yamldoc.Schema{Type: reflect.TypeFor[VolumeDocument](), Required: objectRequired[VolumeDocument](objects.Volume)}
})

func readVolume(d *yamldoc.Doc, policy Policy, doc *Document) {
	var vd VolumeDocument
	if !decodeObject(d, &vd) {
		return
	}
	vd.Spec.Reclaim = cmp.Or(vd.Spec.Reclaim, ReclaimRetain)
	v := new(Validator)
	v.metadata(&vd.Metadata)
	v.volumeSize("spec.size", vd.Spec.Size)
	v.OneOf("spec.reclaim", vd.Spec.Reclaim, ReclaimRetain, ReclaimDelete)
	if o := vd.Spec.Ownership; o != nil {
		v.owner("spec.ownership", &Ownership{UID: o.UID, GID: o.GID, Mode: o.Mode})
	}
	report(d, v.Errors(), "")
	if policy != nil {
		report(d, policy.CheckVolume("kind"), ReasonPolicyDenied)
	}
	doc.Object, doc.Volume = objects.New(objects.Volume, vd.Metadata.Name, vd.Spec.values(), nil), &vd.Spec
	if vd.Spec.Size > 0 {
		doc.Sizes = []sizes.Size{{Volume: vd.Metadata.Name, Size: vd.Spec.Size, By: doc.Name, Position: d.Place("spec.size")}}
	}
}

// values are what a document says, for those who compare two.
func (s *VolumeSpec) values() map[string][]byte {
	out := map[string][]byte{"reclaim": []byte(s.Reclaim)}
	if s.Size > 0 {
		out["size"] = []byte(s.Size.String())
	}
	if o := s.Ownership; o != nil {
		for name, id := range map[string]*uint32{"uid": o.UID, "gid": o.GID} {
			if id != nil {
				out["ownership."+name] = fmt.Append(nil, *id)
			}
		}
		if o.Mode != "" {
			out["ownership.mode"] = []byte(o.Mode)
		}
	}
	return out
}

// Value is what a document says by one of its keys, such as size.
func (s *VolumeSpec) Value(key string) string { return string(s.values()[key]) }

// Fresh is whom a volume is given to when it is made: the document counts before what a
// sandbox says. spec may be nil.
func (s *VolumeSpec) Fresh(said *Ownership) *Ownership {
	if s == nil || s.Ownership == nil {
		return said
	}
	out := Ownership{When: OwnershipFresh}
	if said != nil {
		out = *said
	}
	o := s.Ownership
	out.UID, out.GID, out.Mode = cmp.Or(o.UID, out.UID), cmp.Or(o.GID, out.GID), cmp.Or(o.Mode, out.Mode)
	return &out
}

func (v *Validator) volumeSize(at string, size scalar.Bytes) {
	if size != 0 && size < MinVolumeSize {
		v.Add(at, "expected at least %s", scalar.Bytes(MinVolumeSize))
	}
}

// noteSizes notes the sizes that the volumes of a spec, which is the field at, give.
func (d *Document) noteSizes(from *yamldoc.Doc, volumes []Volume, at string) {
	for i := range volumes {
		if named := volumes[i].Volume; named != nil && named.Size > 0 {
			d.Sizes = append(d.Sizes, sizes.Size{Volume: named.Name, Size: named.Size, By: d.Name, Position: from.Place(fmt.Sprintf("%s.volumes[%d].volume.size", at, i))})
		}
	}
}

// VolumeSizes are the sizes that named volumes are to have, by name.
func (s *Snapshot) VolumeSizes() (out map[string]scalar.Bytes) {
	set := func(name string, size scalar.Bytes) {
		if out == nil {
			out = map[string]scalar.Bytes{}
		}
		out[name] = max(out[name], size)
	}
	for i := range s.Entries {
		volumes := s.Entries[i].Sandbox.Spec.Volumes
		for j := range volumes {
			if named := volumes[j].Volume; named != nil && named.Size > 0 {
				set(named.Name, named.Size)
			}
		}
	}
	for i := range s.Objects {
		if o := &s.Objects[i]; o.Volume != nil {
			_, name, _ := objects.Split(o.Name())
			set(name, o.Volume.Size)
		}
	}
	return out
}

// Volume is what a document declares of a named volume, nil if none does.
func (os Objects) Volume(name string) *VolumeSpec {
	if o := os.Lookup(objects.Name(objects.Volume, name)); o != nil {
		return o.Volume
	}
	return nil
}
