// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/launcher/volume"
	"sandboxctl.dev/reconcile/declared"
)

// VolumeLooker looks at named volumes of a state directory again and again. What has not changed
// on record is not read again: a thousand volumes cost each pass one call for each.
type VolumeLooker struct {
	State *os.File // nil if there is none
	seen  map[string]seenVolume
	read  int // how many were read, for tests
}

type seenVolume struct {
	stamp volume.Stamp
	found declared.Found
}

// Look returns what there is of volumes, nil if that can't be told. What can't be told of one
// volume is left out.
func (l *VolumeLooker) Look(names []string) map[string]declared.Found {
	out, state := make(map[string]declared.Found, len(names)), l.State
	var store *volume.Store
	if state != nil {
		s, err := volume.Look(state)
		switch {
		case err == nil:
			store = s
			defer store.Close()
		case !errors.Is(err, fs.ErrNotExist):
			return nil
		}
	}
	before := l.seen
	l.seen = make(map[string]seenVolume, len(names))
	for _, name := range names {
		if store == nil {
			out[name] = declared.Found{}
			continue
		}
		stamp := store.Stamp(name) // before it is read: what is written meanwhile has another one
		if seen, ok := before[name]; ok && seen.stamp == stamp {
			l.seen[name], out[name] = seen, seen.found
			continue
		}
		l.read++
		e, err := store.Look(name)
		switch {
		case errors.Is(err, volume.ErrNotFound), err == nil && e.Problem != "": // incomplete
			out[name] = declared.Found{}
		case err == nil:
			out[name] = declared.Found{Exists: true, Size: e.Size}
			if stamp != (volume.Stamp{}) {
				l.seen[name] = seenVolume{stamp, out[name]}
			}
		}
	}
	return out
}

// lookAtVolumes looks once, at the state that is looked at.
func (v *viewer) lookAtVolumes(names []string) map[string]declared.Found {
	var l VolumeLooker
	if v.store != nil {
		l.State = v.store.RootDir()
	}
	return l.Look(names)
}

// ErrVolumeUsed says that a volume is kept.
var ErrVolumeUsed = errors.New("it is in use")

// checkUnused returns an error if a volume is used, or may be.
func (h *Host) checkUnused(ctx context.Context, name string) error {
	users, unknown, err := h.VolumeUsers(ctx)
	switch {
	case err != nil:
		return err
	case len(users[name]) > 0:
		return fmt.Errorf("%w by %s; remove their manifests first, or give --force", ErrVolumeUsed, strings.Join(users[name], ", "))
	case unknown != nil:
		return fmt.Errorf("whether it is in use is not known: %w; give --force to remove it all the same", unknown)
	}
	return nil
}

// RemoveVolume removes a named volume, which nothing may name unless it is forced.
func (h *Host) RemoveVolume(ctx context.Context, name string, force bool) error {
	state, err := actual.OpenStoreReadOnly(h.State)
	if errors.Is(err, actual.ErrNoState) {
		return fmt.Errorf("%w: %s", volume.ErrNotFound, name)
	}
	if err != nil {
		return err
	}
	defer state.Close()
	s, err := volume.Look(state.RootDir())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", volume.ErrNotFound, name)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	check := func() error { return h.checkUnused(ctx, name) }
	if force {
		check = func() error { return nil }
	}
	if err := s.Remove(ctx, name, check); err != nil {
		return err
	}
	fmt.Fprintf(h.Stdout, "volume/%s removed\n", show.Clean(name))
	return nil
}

// VolumeUsers are the sandboxes, and Volume documents as volume/NAME, that name a volume, by the name of the volume. unknown says why
// there may be more of them, nil if there are not.
func (h *Host) VolumeUsers(ctx context.Context) (by map[string][]string, unknown, err error) {
	w, err := h.OnceUnjudged(ctx)
	if err != nil {
		return nil, nil, err
	}
	by = map[string][]string{}
	add := func(user string, spec *desired.Spec) {
		for i := range spec.Volumes {
			if named := spec.Volumes[i].Volume; named != nil && !slices.Contains(by[named.Name], user) {
				by[named.Name] = append(by[named.Name], user)
			}
		}
	}
	for i := range w.In.Desired.Entries {
		add(w.In.Desired.Entries[i].Sandbox.Metadata.Name, &w.In.Desired.Entries[i].Sandbox.Spec)
	}
	for i := range w.In.Desired.Objects {
		if o := &w.In.Desired.Objects[i]; o.Pool != nil {
			add(o.Name(), &o.Pool.Template) // its claims use it
		}
	}
	for i := range w.In.Desired.Objects {
		if kind, name, _ := objects.Split(w.In.Desired.Objects[i].Name()); kind == objects.Volume {
			by[name] = append(by[name], w.In.Desired.Objects[i].Name())
		}
	}
	for i := range w.In.Actual.Sandboxes {
		rec := w.In.Actual.Sandboxes[i].Record
		e, err := desired.FromCanonical(rec.Spec, rec.SourceFile)
		if err != nil {
			unknown = errors.Join(unknown, fmt.Errorf("the record of %s can't be read: %w", rec.Name, err))
			continue
		}
		add(rec.Name, &e.Sandbox.Spec)
	}
	for i := range w.In.Actual.Quarantined {
		unknown = errors.Join(unknown, fmt.Errorf("the record of %s can't be read; see `sandboxctl describe %s`", w.In.Actual.Quarantined[i].Name, w.In.Actual.Quarantined[i].Name))
	}
	if !w.Summary.Complete {
		unknown = errors.Join(unknown, fmt.Errorf("not all manifests are known: %s: %s", w.Summary.Reason, w.Summary.Message))
	}
	for name := range by {
		slices.Sort(by[name])
	}
	return by, unknown, nil
}
