// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/reconcile"
)

// result is what a worker reports.
type result struct {
	action  reconcile.Action
	outcome string // of a recovery
	took    time.Duration
	err     error
	// stopped is the last record of a sandbox that was stopped to be removed, also if
	// that failed then.
	stopped *actual.Record
	exit    *actual.Exit // how it ended
}

// job is an operation under way.
type job struct {
	action reconcile.Action
	began  time.Time
	cancel context.CancelCauseFunc
	// waits says that it holds no worker: it waits for what others decide.
	waits bool
}

// work carries out one operation. A panic in it is that operation's error and
// not the end of the daemon.
func (l *Loop) work(ctx context.Context, a reconcile.Action) {
	select {
	case l.done <- l.carryOut(ctx, a):
	case <-l.ended:
	}
}

func (l *Loop) carryOut(ctx context.Context, a reconcile.Action) (r result) {
	began := time.Now()
	defer func() {
		if p := recover(); p != nil {
			r.err = fmt.Errorf("%s %s: panic: %v\n%s", a.Op, a.Name, p, debug.Stack())
		}
		r.action, r.took = a, time.Since(began)
	}()
	if a.Forget {
		r.stopped, r.err = l.opts.Launcher.Remove(ctx, a.Name, a.Ending)
		return r
	}
	switch a.Op {
	case reconcile.OpCreate:
		r.err = l.opts.Launcher.Create(ctx, a.Entry, a.Request, a.Image)
	case reconcile.OpResume:
		r.err = l.opts.Launcher.Resume(ctx, a.Name, a.Start, a.Ending)
	case reconcile.OpDestroy:
		r.err = l.opts.Launcher.Destroy(ctx, a.Name, a.Ending)
	case reconcile.OpRefresh:
		r.err = l.opts.Launcher.Refresh(ctx, a.Entry, a.Volumes)
	case reconcile.OpRepair:
		r.outcome, r.err = l.opts.Repairer.Repair(ctx, a.Name, a.Request.End)
	default:
		forget := l.opts.Launcher.Forget
		if a.Retire {
			forget = l.opts.Launcher.Retire
		}
		r.err = forget(ctx, a.Name)
	}
	return r
}

// finish takes note of a result.
func (l *Loop) finish(r result) {
	if r.stopped != nil {
		// One operation, and two things to tell: only the second can have failed.
		r.exit = r.stopped.App().LastExit
		l.succeeded(&r)
		r.action.Op, r.exit = reconcile.OpForget, nil
	}
	a := r.action
	if j := l.jobs[a.Name]; j != nil {
		j.cancel(nil)
	}
	delete(l.jobs, a.Name)
	delete(l.progress.Operations, a.Name)
	l.news = true
	var cancelled *operation.Cancelled
	switch {
	case errors.Is(r.err, operation.ErrShutdown):
		l.opts.Log.Info(a.Op.String()+" not finished, the next daemon continues it", keySandbox, a.Name, keyReason, a.Reason, keyTook, r.took)
		return
	case errors.As(r.err, &cancelled):
		delete(l.progress.Retries, a.Name)
		l.opts.Log.Info(a.Op.String()+" cancelled", keySandbox, a.Name, keyReason, cancelled.Reason, keyTook, r.took, keyPass, l.pass)
		l.event(actual.EventNormal, a.Name, actual.EventCancelled, fmt.Sprintf("%s (%s) was cancelled: %s (took %s)", a.Op, a.Reason, cancelled.Reason, r.took.Round(time.Millisecond)))
		return
	}
	if a.Op == reconcile.OpRepair && l.opts.Requests != nil {
		// It may be that it can't be dropped now.
		l.progress.Tried[a.Name] = a.Request.Token
		if err := l.opts.Requests.DropRequest(*a.Request); err != nil {
			l.opts.Log.Warn("request not removed", keyError, err)
		}
	}
	if r.err == nil {
		delete(l.progress.Retries, a.Name)
		if a.Op == reconcile.OpDestroy {
			r.exit = l.lastExit(a.Name)
		}
		l.succeeded(&r)
		return
	}
	if a.Op != reconcile.OpRepair { // which is tried once for each request
		again := l.progress.Retries[a.Name]
		again.Failed(&a, operation.Permanent(r.err), r.err.Error(), time.Now())
		l.progress.Retries[a.Name] = again
	}
	l.opts.Log.Error(a.Op.String()+" failed, will retry", keySandbox, a.Name, keyReason, a.Reason, keyError, r.err, keyPass, l.pass)
	_, failed := outcomeReasons(a.Op)
	l.event(actual.EventWarning, a.Name, failed, r.err.Error())
}

// succeeded tells people of it.
func (l *Loop) succeeded(r *result) {
	a := r.action
	l.opts.Log.Info(a.Op.String()+" done", keySandbox, a.Name, keyReason, a.Reason, keyTook, r.took, keyPass, l.pass)
	done, _ := outcomeReasons(a.Op)
	l.event(actual.EventNormal, a.Name, done, doneMessage(r))
}

func (l *Loop) lastExit(name string) *actual.Exit {
	if l.opts.LastExit == nil {
		return nil
	}
	return l.opts.LastExit(name)
}
