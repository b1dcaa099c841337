// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"reflect"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/fromsnapshot"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// SnapshotPolicy says which snapshots there may be, and who may begin from them.
type SnapshotPolicy struct {
	// Snapshots that `spec.snapshot` may name; a name that ends with `*` is any that begins so.
	// Anyone who may write manifests can read all that is in the memory of such a snapshot.
	// Default: none.
	Names []string `json:"names,omitempty"`
	// How much all snapshots may take together on the disk of the state directory. What is there
	// stays. 0 allows none to be made.
	MaxSize *scalar.Bytes `json:"maxSize,omitempty"`
}

var snapshotType = reflect.TypeFor[SnapshotPolicy]()

// BuiltInMaxSnapshots is how much snapshots may take by a policy that does not say otherwise.
const BuiltInMaxSnapshots = scalar.Bytes(16 << 30)

func (s *SnapshotPolicy) fill() {
	if s.MaxSize == nil {
		s.MaxSize = new(BuiltInMaxSnapshots)
	}
}

func (v *validator) snapshots(s *SnapshotPolicy) {
	fromsnapshot.CheckAllowed("snapshots.names", s.Names, desired.ValidName, v.Add)
	if s.MaxSize != nil {
		v.DiskSize("snapshots.maxSize", *s.MaxSize)
	}
}

// snapshot judges what a sandbox begins from: who wrote its manifest can run commands beside what
// another sandbox had in its memory.
func (v *check) snapshot(s *fromsnapshot.Snapshot) {
	if s != nil && !fromsnapshot.Allowed(v.p.Snapshots.Names, s.From) {
		v.Add("spec.snapshot.from", "%s does not allow the snapshot %s; allowed: %s; name one of these, or have the administrator add it to snapshots.names", v.p.where(), yamldoc.Clip(s.From), listed(v.p.Snapshots.Names))
	}
}
