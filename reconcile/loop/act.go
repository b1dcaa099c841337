// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"maps"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/reconcile"
)

// gaveUp notes that an operation waits from now on and holds no worker.
func (l *Loop) gaveUp(name string) {
	if waiting, _ := l.waiting(); l.jobs[name] != nil && waiting < maxWaiting {
		l.jobs[name].waits = true
	}
}

// waiting is how many operations hold no worker, but for stops, and how many of these
// there are.
func (l *Loop) waiting() (n, stops int) {
	for _, j := range l.jobs {
		switch {
		case j.action.Lane == reconcile.LaneStop:
			stops++
		case j.waits:
			n++
		}
	}
	return n, stops
}

// planned are the names that something is to be done for, now or later.
func planned(plan *reconcile.Plan) map[string]bool {
	out := map[string]bool{}
	for i := range plan.Actions {
		out[plan.Actions[i].Name] = true
	}
	for i := range plan.Delayed {
		out[plan.Delayed[i].Name] = true
	}
	return out
}

// forgetRetries drops what failed and is not to be done any more.
func (l *Loop) forgetRetries(plan *reconcile.Plan) {
	if len(l.progress.Retries) == 0 {
		return
	}
	wanted := planned(plan)
	for name := range l.progress.Retries {
		if !wanted[name] && l.jobs[name] == nil {
			delete(l.progress.Retries, name)
			l.news = true
		}
	}
}

// act cancels and starts what the plan says, as far as there are workers. It
// returns how long nothing more can be due.
func (l *Loop) act(ctx context.Context, in reconcile.Input, plan *reconcile.Plan) time.Duration {
	l.announce(in, plan)
	l.dropRequests(in)
	l.forgetRetries(plan)
	next := l.opts.Resync
	if !plan.Wake.IsZero() {
		next = min(next, plan.Wake.Sub(in.Now))
	}
	for _, c := range plan.Cancel {
		l.cancel(c)
	}
	free, again := l.workers(in.Now)
	l.crowded = false
	var start []func()
	for _, a := range l.queue.order(plan.Actions) {
		if a.Op == reconcile.OpRepair && l.opts.Repairer == nil {
			continue
		}
		if free[a.Lane] == 0 {
			l.crowded = l.crowded || a.Lane == reconcile.LaneRemove
			next = min(next, again) // or when one reports
			continue
		}
		if a.Op == reconcile.OpCreate && a.Lane == reconcile.LaneRestart {
			if wait := l.starts.wait(in.Now, in.Desired.Bounds().StartsPerSecond); wait > 0 {
				next = min(next, wait)
				continue
			}
		}
		free[a.Lane]--
		start = append(start, l.begin(ctx, a, in.Now))
	}
	pullAgain, pulls := l.actPulls(ctx, &in, plan)
	next, start = min(next, pullAgain), append(start, pulls...)
	start = append(start, l.actVolumes(ctx, plan)...)
	// Before they begin: who sees what they do must know that somebody does it.
	next = min(next, l.publish(len(start) > 0))
	for _, f := range start {
		f()
	}
	return max(next, time.Millisecond)
}

// workers is how many more operations each lane can begin, and when one that holds
// a worker will have had it for too long.
func (l *Loop) workers(now time.Time) (free [reconcile.LaneCount]int, again time.Duration) {
	for lane := range free {
		free[lane] = l.opts.Workers
	}
	waiting, stops := l.waiting()
	free[reconcile.LaneStop], free[reconcile.LaneRemove] = max(maxWaiting-stops, 0), maxRemoving
	again = l.opts.Resync
	for _, j := range l.jobs {
		if j.waits || j.action.Lane == reconcile.LaneStop {
			continue
		}
		left := patience - now.Sub(j.began)
		if left <= 0 && waiting < maxWaiting {
			j.waits = true
			waiting++
			continue
		}
		again = min(again, max(left, time.Second))
		free[j.action.Lane] = max(free[j.action.Lane]-1, 0)
	}
	return free, again
}

// begin notes that an operation is under way, and returns what starts it.
func (l *Loop) begin(ctx context.Context, a reconcile.Action, now time.Time) func() {
	if _, counted := l.removals[a.Name]; a.Reason == actual.ReasonManifestRemoved && !a.Approved && !counted {
		l.removals[a.Name] = now
	}
	ctx, cancel := operation.New(ctx, func() {
		select {
		case l.waits <- a.Name:
		case <-l.ended:
		}
	})
	l.queue.served(a.Name)
	l.news = true
	l.progress.Operations[a.Name] = a.Operation()
	l.jobs[a.Name] = &job{action: a, began: now, cancel: cancel}
	l.opts.Log.Info(a.Op.String(), keySandbox, a.Name, keyReason, a.Reason, keyPass, l.pass)
	return func() { go l.work(ctx, a) }
}

// cancel ends an operation that has lost its reason.
func (l *Loop) cancel(c reconcile.Cancel) {
	j := l.jobs[c.Name]
	op := l.progress.Operations[c.Name]
	if j == nil || op.Cancelled {
		return
	}
	op.Cancelled, l.news = true, true
	l.progress.Operations[c.Name] = op
	l.opts.Log.Info("cancel "+j.action.Op.String(), keySandbox, c.Name, keyReason, c.Reason, keyPass, l.pass)
	j.cancel(&operation.Cancelled{Reason: c.Reason})
}

// dropRequests removes requests that have been carried out, or ask for what
// there is not.
func (l *Loop) dropRequests(in reconcile.Input) {
	if l.opts.Requests == nil {
		return
	}
	waiting := map[string]bool{}
	for _, r := range in.Actual.Requests {
		spent := r.Kind == actual.RequestRepair && l.progress.Tried[r.Name] == r.Token
		if spent {
			waiting[r.Name] = true
		}
		if spent || in.Done(r) {
			if err := l.opts.Requests.DropRequest(r); err != nil {
				l.opts.Log.Warn("request not removed", keyError, err)
			}
		}
	}
	before := len(l.progress.Tried)
	maps.DeleteFunc(l.progress.Tried, func(name, _ string) bool { return !waiting[name] })
	l.news = l.news || len(l.progress.Tried) < before
}
