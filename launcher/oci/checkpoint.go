// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"sandboxctl.dev/launcher/checkpoint"
)

// endTimeout bounds the end of a container that its checkpoint ends.
const endTimeout = 30 * time.Second

// Checkpoint saves the state of a running or paused container in a directory. The
// container ends, unless it is to be left as it is; a paused one, too.
func (r *Runtime) Checkpoint(ctx context.Context, id, image string, leave bool) error {
	return r.locked(ctx, id, func() error { return r.checkpoint(ctx, id, image, leave) })
}

func (r *Runtime) checkpoint(ctx context.Context, id, image string, leave bool) error {
	st, rec, err := r.look(id)
	if err != nil {
		return err
	}
	if st != StatusRunning && st != StatusPaused {
		return fmt.Errorf("cannot checkpoint a container in the %s state", st)
	}
	if st == StatusPaused && !leave {
		// One that is paused could not come to its end by itself.
		if _, err := checkpoint.Take(ctx, r.store, id, image, true); err != nil {
			return err
		}
		return r.launcher.KillSentry(ctx, rec)
	}
	if _, err := checkpoint.Take(ctx, r.store, id, image, leave); err != nil || leave {
		return err
	}
	over, err := ended(ctx, rec, endTimeout)
	if err == nil && !over {
		err = fmt.Errorf("container %s is still running %s after its checkpoint", id, endTimeout)
	}
	return err
}

// CheckRestore says whether the container of a bundle could be restored from a
// checkpoint; see package checkpoint.
func (r *Runtime) CheckRestore(ctx context.Context, bundle, image string) error {
	cfg, err := readBundle(bundle)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(image)
	if err != nil {
		return fmt.Errorf("find checkpoint: %w", err)
	}
	return checkpoint.CheckContainer(ctx, cfg, bundle, path, r.sentry)
}

// Restore starts a created container from a checkpoint.
func (r *Runtime) Restore(ctx context.Context, id, image string) error {
	path, err := filepath.Abs(image)
	if err != nil {
		return fmt.Errorf("find checkpoint: %w", err)
	}
	return r.locked(ctx, id, func() error {
		return r.start(ctx, id, func(ctx context.Context, id string) error { return r.launcher.RestoreContainer(ctx, id, path) })
	})
}
