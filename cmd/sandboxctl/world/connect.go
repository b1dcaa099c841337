// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/sentry"
)

// Connect is sentry.Connect, and says why a sandbox does not run.
func (h *Host) Connect(ctx context.Context, store *actual.Store, name string) (*sentry.Control, *actual.Record, error) {
	c, rec, err := sentry.Connect(ctx, store, name)
	switch {
	case errors.Is(err, sentry.ErrNoSandbox):
		err = h.NotStarted(ctx, name)
	case errors.Is(err, sentry.ErrNotRunning):
		if w, werr := h.Once(ctx); werr == nil && w.Status(name) != nil {
			err = fmt.Errorf("%w: it is %s", err, w.state(name))
		}
	}
	return c, rec, err
}

// NotStarted is the error for a name that nothing is on record of: it may have a
// manifest, and wait for something.
func (h *Host) NotStarted(ctx context.Context, name string) error {
	w, err := h.Once(ctx)
	if err != nil {
		return err
	}
	if w.Status(name) == nil {
		return w.NoSuch(name)
	}
	return fmt.Errorf("sandbox %s has not been started: it is %s", name, w.state(name))
}

// state is the phase of a sandbox that has a status, and why it has that.
func (w *World) state(name string) string {
	s := w.Status(name)
	if why := Headline(s); why != "" {
		return s.Phase + " (" + show.Clean(why) + ")"
	}
	return s.Phase
}
