// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/sizes"
	"sandboxctl.dev/launcher/volume"
	"sandboxctl.dev/reconcile/declared"
)

// checkSizes refuses sizes of named volumes that differ from those in the manifests directory,
// or that this host can't enforce.
func (v verbs) checkSizes(w *world.World, ms []manifest) error {
	var all []sizes.Size
	for i := range ms {
		all = append(all, ms[i].Sizes...)
	}
	if len(all) == 0 {
		return nil
	}
	mine := slices.Clone(all)
	for _, s := range w.In.Desired.Sizes {
		if !among(ms, s.By) && slices.ContainsFunc(mine, func(m sizes.Size) bool { return m.Volume == s.Volume }) {
			all = append(all, s)
		}
	}
	problems := sizes.Conflicts(all)
	for _, s := range mine {
		if why := v.cannotLimit(s.Volume); why != nil {
			problems = append(problems, desired.Problem{Position: s.Position, Name: s.By, Field: "size", Message: why.Error()})
		}
	}
	if len(problems) > 0 {
		return problemsError(problems)
	}
	return nil
}

// cannotLimit says why a volume can't have a size, nil if it can, or if that can't be told. A
// state directory that is not there yet will be in the file system of the directory above it.
func (v verbs) cannotLimit(name string) error {
	at := filepath.Clean(v.State)
	dir, err := os.Open(at)
	for errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		dir, err = os.Open(at)
	}
	if err != nil {
		return nil //nolint:nilerr // the start of a sandbox tells
	}
	defer dir.Close()
	if err := volume.CanLimit(dir); err != nil || at != filepath.Clean(v.State) {
		return err
	}
	store, err := volume.Look(dir)
	if err != nil {
		return nil //nolint:nilerr // there is no volume yet, or the start tells
	}
	defer store.Close()
	return store.CanSize(name)
}

// makeVolumes makes the volumes that were declared. A daemon that runs does the same: it is
// for who has none, and to tell at once what can't be done.
func (v verbs) makeVolumes(ctx context.Context, ms []manifest) error {
	if !slices.ContainsFunc(ms, func(m manifest) bool { return m.Volume != nil }) {
		return nil
	}
	state, err := actual.OpenStore(v.State)
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }()
	var errs []error
	for i := range ms {
		spec := ms[i].Volume
		if spec == nil {
			continue
		}
		_, name, _ := objects.Split(ms[i].name())
		a := declared.Action{Name: name, Size: int64(spec.Size), Fresh: spec.Fresh(nil)}
		if err := (world.Volumes{State: state.RootDir()}).Declare(ctx, &a); err != nil {
			errs = append(errs, fmt.Errorf("make volume %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// reclaimed are the volumes that go with their documents: what these say before they are
// deleted. The order of a person is needed for it: no document that vanishes removes a volume.
func reclaimed(w *world.World, names []string) (out []string) {
	for _, n := range names {
		if o := w.In.Desired.Objects.Lookup(n); o != nil && o.Volume != nil && o.Volume.Reclaim == desired.ReclaimDelete {
			_, name, _ := objects.Split(n)
			out = append(out, name)
		}
	}
	return out
}

// reclaim removes volumes whose documents were deleted, when the sandboxes are gone that were
// deleted with them.
func (v verbs) reclaim(ctx context.Context, names, sandboxes []string, timeout time.Duration) error {
	if len(names) == 0 {
		return nil
	}
	w, err := v.Once(ctx)
	if err != nil {
		return err
	}
	if left := slices.DeleteFunc(slices.Clone(sandboxes), func(n string) bool { return !w.OnRecord(n) }); len(left) > 0 && w.Alive {
		if err := await.Until(ctx, v.Host, left, await.Deleted, timeout); err != nil {
			return err
		}
	}
	// The daemon may be about to make one that it has seen declared a moment ago.
	if err := v.VolumesSettled(ctx); err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		err := v.RemoveVolume(ctx, name, false)
		switch {
		case errors.Is(err, volume.ErrNotFound):
		case err != nil:
			errs = append(errs, fmt.Errorf("volume %s is kept: %w; then `sandboxctl volume rm %s` removes it", name, err, name))
		}
	}
	return errors.Join(errs...)
}

// tellKept says that a volume stays whose document was deleted.
func (v verbs) tellKept(name string) {
	_, short, _ := objects.Split(name)
	fmt.Fprintf(v.Stderr, "volume %s is kept with all that is in it; `sandboxctl volume rm %s` removes it\n", show.Clean(short), show.Clean(short))
}

// isNetwork says whether a full name is that of a Network document.
func isNetwork(name string) bool { return strings.HasPrefix(name, objects.Name(objects.Network, "")) }

// isVolume says whether a full name is that of a Volume document.
func isVolume(name string) bool { return strings.HasPrefix(name, objects.Name(objects.Volume, "")) }
