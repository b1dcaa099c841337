// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"context"
	"errors"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/snapshot"
	"sandboxctl.dev/launcher/volume"
)

// images checks the store of images: that nothing in it is half an image, and that it has
// those that sandboxes run from.
func (v *view) images(state string) error {
	s, err := image.OpenStoreReadOnly(state)
	if err != nil {
		s = nil // there is none, or nobody can take an image from it
	} else {
		defer s.Close()
		left, err := s.Leftovers()
		if err != nil {
			return err
		}
		if left.Trees > 0 {
			v.add(LeftoverImage, "%d images were not finished", left.Trees)
		}
	}
	for _, r := range v.list.Records {
		if r.Phase != actual.PhaseRunning {
			continue
		}
		for i := range r.Containers {
			if img := r.Containers[i].Image; img != nil && (s == nil || !s.Has(img.Digest)) {
				v.add(MissingImage, "%s runs from %s (%s), which is not in the store or damaged", r.Name, img.Ref, img.Digest)
			}
		}
	}
	return nil
}

// snapshots checks that none is half made. One that is missing keeps nothing from a start.
func (v *view) snapshots(store *actual.Store) error {
	s, err := snapshot.Look(store.RootDir())
	if err != nil {
		return nil //nolint:nilerr // there is none, or nobody can begin from one
	}
	defer s.Close()
	names, err := s.Unfinished()
	if err != nil {
		return err
	}
	for _, n := range names {
		v.add(LeftoverSnapshot, "the snapshot %s was not finished", n)
	}
	return nil
}

// volumes checks named volumes: that none is half made, and that sandboxes have theirs.
func (v *view) volumes(ctx context.Context, store *actual.Store) error {
	s, err := volume.Look(store.RootDir())
	if err != nil {
		s = nil // there is none, or nobody can take a volume from it
	} else {
		defer s.Close()
		names, err := s.Unfinished(ctx)
		if err != nil {
			return err
		}
		for _, n := range names {
			v.add(LeftoverVolume, "the volume %s was not finished", n)
		}
	}
	for _, r := range v.list.Records {
		if r.Phase != actual.PhaseRunning {
			continue
		}
		e, err := desired.FromCanonical(r.Spec, r.SourceFile)
		if err != nil {
			continue // of a container, which has no manifest
		}
		for i := range e.Sandbox.Spec.Volumes {
			if named := e.Sandbox.Spec.Volumes[i].Volume; named != nil {
				if err := usable(s, named.Name); err != nil {
					v.add(MissingVolume, "%s runs with the volume %s: %v", r.Name, named.Name, err)
				}
			}
		}
	}
	return nil
}

func usable(s *volume.Store, name string) error {
	if s == nil {
		return fmt.Errorf("%w: %s", volume.ErrNotFound, name)
	}
	e, err := s.Look(name)
	if err == nil && e.Problem != "" {
		err = errors.New(e.Problem)
	}
	return err
}
