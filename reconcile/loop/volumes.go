// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/declared"
)

// volumeResult is how an action on a volume ended.
type volumeResult struct {
	action declared.Action
	err    error
}

// declareFor is how long volumes are declared before a pass tells of it.
const declareFor = time.Second

// actVolumes begins what the plan says of named volumes, one after the other, so that no number
// of documents takes workers from sandboxes. They end together: a pass for each of a thousand,
// which looks at all of them, would take a square of them. It returns what begins it.
func (l *Loop) actVolumes(ctx context.Context, plan *reconcile.Plan) (start []func()) {
	if l.opts.Volumes == nil {
		return nil
	}
	if l.declares {
		return nil
	}
	for name := range l.progress.VolumeRetries {
		if !plansVolume(plan, name) {
			delete(l.progress.VolumeRetries, name)
			l.news = true
		}
	}
	if len(plan.Volumes) == 0 {
		return nil
	}
	// Those that failed are behind the others: none keeps them waiting.
	do := slices.Clone(plan.Volumes)
	failures := func(a declared.Action) int { return l.progress.VolumeRetries[a.Name].Failures }
	slices.SortStableFunc(do, func(a, b declared.Action) int { return cmp.Compare(failures(a), failures(b)) })
	l.declares = true
	return []func(){func() { go l.declareAll(ctx, do) }}
}

// declareAll makes or changes volumes, and reports how that ended. What there is no time for is
// in the plan of the next pass.
func (l *Loop) declareAll(ctx context.Context, do []declared.Action) {
	var ended []volumeResult
	for begun := time.Now(); len(do) > 0 && ctx.Err() == nil; do = do[1:] {
		if len(ended) > 0 && time.Since(begun) > declareFor {
			break
		}
		ended = append(ended, volumeResult{do[0], l.declare(ctx, &do[0])})
	}
	select {
	case l.volumes <- ended:
	case <-l.ended:
	}
}

func plansVolume(plan *reconcile.Plan, name string) bool {
	for i := range plan.Volumes {
		if plan.Volumes[i].Name == name {
			return true
		}
	}
	for i := range plan.VolumesLater {
		if plan.VolumesLater[i].Name == name {
			return true
		}
	}
	return false
}

// declare makes or changes one volume. A panic in it is its error and not the end of the
// daemon.
func (l *Loop) declare(ctx context.Context, a *declared.Action) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s volume %s: panic: %v\n%s", a.Op(), a.Name, p, debug.Stack())
		}
	}()
	return l.opts.Volumes.Declare(ctx, a)
}

// finishVolumes takes note of how they ended.
func (l *Loop) finishVolumes(ended []volumeResult) {
	l.declares, l.news = false, true
	for i := range ended {
		l.finishVolume(&ended[i])
	}
}

func (l *Loop) finishVolume(r *volumeResult) {
	switch {
	case r.err == nil:
		delete(l.progress.VolumeRetries, r.action.Name)
		l.opts.Log.Info("volume declared", keyVolume, r.action.Name, keyOp, r.action.Op(), keyPass, l.pass)
	case errors.Is(r.err, operation.ErrShutdown):
	default:
		retry := l.progress.VolumeRetries[r.action.Name]
		retry.Failed(&r.action, r.err, time.Now())
		l.progress.VolumeRetries[r.action.Name] = retry
		l.opts.Log.Error("volume not as declared, will retry", keyVolume, r.action.Name, keyOp, r.action.Op(), keyError, r.err, keyPass, l.pass)
	}
}
