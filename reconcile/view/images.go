// SPDX-License-Identifier: Apache-2.0

package view

import (
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/pulling"
)

// lookUpImages asks the store for every image that manifests and records name. Those
// of a host without any cost nothing.
func lookUpImages(in *reconcile.Input, find func(ref string) (digest string)) reconcile.Images {
	var out reconcile.Images
	look := func(ref string) {
		if _, known := out[ref]; known || ref == "" {
			return
		}
		if out == nil {
			out = reconcile.Images{}
		}
		out[ref] = find(ref)
	}
	of := func(e *desired.Entry) {
		if e != nil && e.Sandbox.Spec.Root.Image != nil {
			look(e.Sandbox.Spec.Root.Image.Reference())
			look(e.Sandbox.Spec.Root.Image.Digest)
		}
	}
	for i := range in.Desired.Entries {
		of(&in.Desired.Entries[i])
	}
	for _, e := range in.LastGood {
		of(e)
	}
	for i := range in.Desired.Objects {
		of(pulling.OfPool(&in.Desired.Objects[i]))
	}
	for i := range in.Actual.Sandboxes {
		if img := in.Actual.Sandboxes[i].Record.App().Image; img != nil {
			look(img.Digest)
		}
	}
	for _, p := range in.Pulled {
		look(p.Digest)
	}
	return out
}
