// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"time"

	"sandboxctl.dev/desired"
)

// Once looks one time.
func (h *Host) Once(ctx context.Context) (*World, error) { return h.once(ctx, true) }

// OnceUnjudged looks one time, whatever the host policy allows: for what needs to know
// only which file is about a name.
func (h *Host) OnceUnjudged(ctx context.Context) (*World, error) { return h.once(ctx, false) }

func (h *Host) once(ctx context.Context, judged bool) (*World, error) {
	v, err := h.newViewer(judged)
	if err != nil {
		return nil, err
	}
	w, err := v.look(ctx)
	return w, errors.Join(err, v.close())
}

// OnceSettled is once, but for a file that is being written just then.
func (h *Host) OnceSettled(ctx context.Context) (*World, error) { return h.settled(ctx, true) }

// SettledUnjudged is OnceUnjudged, but for a file that is being written just then.
func (h *Host) SettledUnjudged(ctx context.Context) (*World, error) { return h.settled(ctx, false) }

func (h *Host) settled(ctx context.Context, judged bool) (*World, error) {
	for tries := 0; ; tries++ {
		w, err := h.once(ctx, judged)
		if err != nil || tries == 10 || w.In.Desired.Reason != desired.ReasonUnsettled {
			return w, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(WatchEvery / 2):
		}
	}
}

// WatchEvery is how often a watching verb looks. What did not change costs a
// stat.
const WatchEvery = 200 * time.Millisecond

// EachLook calls fn with the world again and again until it returns true.
func (h *Host) EachLook(ctx context.Context, fn func(*World) (done bool, err error)) (err error) {
	v, err := h.newViewer(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	tick := time.NewTicker(WatchEvery)
	defer tick.Stop()
	// The first look is made however short the time is: what to say of a
	// timeout is what it sees.
	for lookCtx := context.WithoutCancel(ctx); ; lookCtx = ctx {
		if v.store == nil {
			// The first daemon may have started meanwhile.
			now, err := h.newViewer(true)
			if err != nil {
				return err
			}
			v = now
		} else if err := v.readDaemon(); err != nil {
			return err
		}
		w, err := v.look(lookCtx)
		if err != nil {
			return err
		}
		if done, err := fn(w); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
