// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/rootimage"
)

// findImage asks the store of images what a reference or a digest means to it. A verb
// that only looks makes no store where there is none, and waits for nobody.
func (v *viewer) findImage(_ context.Context, ref string) string {
	if v.images == nil {
		store, err := v.h.openImages()
		if err != nil || store == nil {
			return ""
		}
		v.images = store
	}
	return rootimage.Find(v.images, ref)
}

func (v *viewer) closeImages() error {
	if v.images == nil {
		return nil
	}
	return v.images.Close()
}

// openImages opens the store of images to look at it, nil if there is none yet.
func (h *Host) openImages() (*image.Store, error) {
	store, err := image.OpenStoreReadOnly(h.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return store, err
}

// RootImage is the image that a sandbox would have as its root, nil if that is none:
// the one on record, or else what the store has for the reference.
func (h *Host) RootImage(w *World, e *desired.Entry) (*hostfs.Image, error) {
	want := e.Sandbox.Spec.Root.Image
	if want == nil {
		return nil, nil
	}
	store, err := h.openImages()
	if err != nil {
		return nil, err
	}
	if store == nil {
		return nil, fmt.Errorf("there is no image %s in the store", want.Reference())
	}
	defer func() { _ = store.Close() }() // the image stays usable
	digest := w.In.Images[want.Reference()]
	if rec := w.Record(e.Sandbox.Metadata.Name); rec != nil && rec.App().Image != nil {
		digest = rec.App().Image.Digest
	}
	return rootimage.Open(store, want, digest)
}
