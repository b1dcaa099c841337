// SPDX-License-Identifier: Apache-2.0

package pulling

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
)

// OfPool is what a pool needs the image of its template for, as if that were a sandbox: nil if the
// root is none, or the pool keeps nothing ready. Its hash changes when the image is to be looked
// for again: with another reference, and with updateStrategy Recreate with any other template.
func OfPool(o *desired.Object) *desired.Entry {
	if o == nil || o.Pool == nil || *o.Pool.Size == 0 || o.Pool.Template.Root.Image == nil {
		return nil
	}
	img := *o.Pool.Template.Root.Image
	img.PullPolicy = cmp.Or(img.PullPolicy, imageref.PullIfNotPresent)
	of := any(img)
	if o.Pool.UpdateStrategy == desired.UpdateRecreate {
		of = o.Pool.Template
	}
	return &desired.Entry{Sandbox: &desired.Sandbox{Spec: desired.Spec{Root: desired.Root{Image: &img}}}, Hash: digest(of), Source: o.Source}
}

// Template identifies the template of a pool.
func Template(p *desired.PoolSpec) string { return digest(p.Template) }

func digest(of any) string {
	b, err := json.Marshal(of)
	if err != nil {
		return "" // only types of desired are in it, none of which can fail
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
