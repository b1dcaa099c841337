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

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/pulling"
)

// Pulls have a lane of their own: one that lasts, or whose registry does not answer,
// keeps no worker from a start.
const (
	// maxPulls is how many there are at once, so that a pull gets somewhere.
	maxPulls = 3
	// maxSlowPulls is how many there are with those that have had a place for longer
	// than patience: a registry that does not answer keeps no place from the others.
	maxSlowPulls = 16
	// turn is how long a pull may fetch, or merge without getting any further, while others
	// wait for a place. A registry that gives little at a time can make one last for days.
	turn = 10 * time.Minute
	// reportEvery is how often a pull says how far it is.
	reportEvery = 2 * time.Second
)

// errTurn ends a pull for a time. What it has fetched is kept for the next try.
var errTurn = fmt.Errorf("made room for others after %s; it continues where it was", turn)

var errNotStored = errors.New("the image was fetched, and is not in the store any more")

// pullJob is a pull under way.
type pullJob struct {
	pull  pulling.Pull
	began time.Time
	// turn is when its turn began, or when it last came further with what is this host's
	// own work: a large image must become complete at some time.
	turn   time.Time
	cancel context.CancelCauseFunc
	// told is when it was told to end, zero if it was not.
	told time.Time
}

// pullReport is what a pull says: how far it is, or how it ended.
type pullReport struct {
	ref    string
	step   operation.PullStep
	ended  bool
	digest string
	err    error
	took   time.Duration
}

// actPulls cancels and starts pulls as the plan says. It returns how long nothing more
// can be due, and what begins them.
func (l *Loop) actPulls(ctx context.Context, in *reconcile.Input, plan *reconcile.Plan) (next time.Duration, start []func()) {
	next = l.opts.Resync
	if l.opts.Puller == nil {
		return next, nil
	}
	wanted := map[string]bool{}
	for _, p := range plan.Pulls {
		wanted[p.Ref] = true
		l.updatePull(&p)
	}
	for ref, j := range l.pulls {
		if p := l.progress.Pulls[ref]; !wanted[ref] && !p.Cancelled {
			p.Cancelled, l.news = true, true
			l.progress.Pulls[ref] = p
			l.opts.Log.Info("cancel pull", keyImage, ref, keyPass, l.pass)
			j.told = in.Now
			j.cancel(&operation.Cancelled{Reason: actual.ReasonImageNotNeeded})
		}
	}
	l.pin(plan.Pins)
	l.forgetPulls(in, plan)
	places, slow := maxPulls, 0
	for _, j := range l.pulls {
		if left := patience - in.Now.Sub(j.began); left > 0 {
			places--
			next = min(next, left)
		} else {
			slow++
		}
	}
	waiting := slices.DeleteFunc(slices.Clone(plan.Pulls), func(p pulling.Pull) bool { return l.pulls[p.Ref] != nil })
	inOrder(&l.toPull, waiting, func(p *pulling.Pull) string { return p.Ref })
	crowded := 0 // pulls that wait for slow ones
	for _, p := range waiting {
		switch {
		case slow+maxPulls-places >= maxSlowPulls:
			crowded++
		case places > 0:
			places--
			l.toPull.served(p.Ref)
			start = append(start, l.beginPull(ctx, p, in.Now))
		}
	}
	return min(next, l.endTurns(in.Now, crowded)), start
}

// endTurns ends the pulls whose turn has lasted longest, as many as others wait for, and
// returns when the next one has had its turn.
func (l *Loop) endTurns(now time.Time, crowded int) time.Duration {
	var refs []string
	for ref, j := range l.pulls {
		switch {
		case j.told.IsZero():
			refs = append(refs, ref)
		case now.Sub(j.told) < patience:
			crowded-- // it makes room in a moment
		}
		// One that does not end, as its disk does not answer, makes no room: another one does.
	}
	slices.SortFunc(refs, func(a, b string) int {
		return cmp.Or(l.pulls[a].turn.Compare(l.pulls[b].turn), cmp.Compare(a, b))
	})
	for _, ref := range refs[:max(min(crowded, len(refs)), 0)] {
		j := l.pulls[ref]
		if left := turn - now.Sub(j.turn); left > 0 {
			return left
		}
		j.told = now
		l.opts.Log.Info("end pull for a time", keyImage, ref, keyPass, l.pass)
		j.cancel(errTurn)
	}
	return l.opts.Resync
}

// updatePull notes for whom a pull under way is by now. One that asks what the reference
// means has asked already: who came later needs another one.
func (l *Loop) updatePull(p *pulling.Pull) {
	j := l.pulls[p.Ref]
	if j == nil || p.Policy == imageref.PullAlways {
		return
	}
	for _, n := range p.Needs {
		if !slices.Contains(j.pull.Needs, n) {
			j.pull.Needs = append(j.pull.Needs, n)
		}
	}
}

// pin notes which images pools keep: claims that come later get these.
func (l *Loop) pin(pins []pulling.Done) {
	for _, p := range pins {
		if l.progress.Pulled[p.Name] != p {
			l.progress.Pulled[p.Name], l.news = p, true
		}
	}
}

// forgetPulls drops what was fetched, and what failed, and is not asked for any more.
func (l *Loop) forgetPulls(in *reconcile.Input, plan *reconcile.Plan) {
	if len(l.progress.Pulled)+len(l.progress.PullRetries) == 0 {
		return
	}
	wanted := planned(plan)
	for _, p := range plan.Pins {
		wanted[p.Name] = true
	}
	for name := range l.progress.Pulled {
		if !wanted[name] && l.jobs[name] == nil {
			delete(l.progress.Pulled, name)
			l.news = true
		}
	}
	for ref := range l.progress.PullRetries {
		asked := slices.ContainsFunc(plan.Pulls, func(p pulling.Pull) bool { return p.Ref == ref }) || slices.Contains(plan.PullsLater, ref)
		busy := slices.ContainsFunc(l.progress.PullRetries[ref].Needs, func(n pulling.Need) bool { return l.jobs[n.Name] != nil })
		if !asked && !busy && l.pulls[ref] == nil && in.Desired.Complete {
			delete(l.progress.PullRetries, ref)
			l.news = true
		}
	}
}

// beginPull notes that a pull is under way, and returns what starts it.
func (l *Loop) beginPull(ctx context.Context, p pulling.Pull, now time.Time) func() {
	ctx, cancel := context.WithCancelCause(ctx)
	p.Needs = slices.Clone(p.Needs)
	l.pulls[p.Ref] = &pullJob{pull: p, began: now, turn: now, cancel: cancel}
	l.progress.Pulls[p.Ref] = pulling.Running{PullRequest: p.PullRequest, Needs: p.Needs, Began: now}
	l.news = true
	l.opts.Log.Info("pull", keyImage, p.Ref, keyPass, l.pass)
	return func() { go l.pull(ctx, p.PullRequest) }
}

// pull fetches one image. A panic in it is its error and not the end of the daemon.
func (l *Loop) pull(ctx context.Context, r imageref.PullRequest) {
	began := time.Now()
	var last time.Time
	digest, err := func() (digest string, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("pull %s: panic: %v\n%s", r.Ref, p, debug.Stack())
			}
		}()
		return l.opts.Puller.Pull(ctx, r, func(step operation.PullStep) {
			if time.Since(last) < reportEvery {
				return
			}
			last = time.Now()
			select {
			case l.reports <- pullReport{ref: r.Ref, step: step}:
			case <-l.ended:
			case <-ctx.Done():
			}
		})
	}()
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	select {
	case l.reports <- pullReport{ref: r.Ref, ended: true, digest: digest, err: err, took: time.Since(began)}:
	case <-l.ended:
	}
}

// takeReport takes note of what a pull says.
func (l *Loop) takeReport(r pullReport) {
	j := l.pulls[r.ref]
	if j == nil {
		return
	}
	if !r.ended {
		if p := l.progress.Pulls[r.ref]; p.Step != r.step.Text {
			if r.step.Local {
				j.turn = time.Now()
			}
			p.Step, l.news = r.step.Text, true
			l.progress.Pulls[r.ref] = p
		}
		return
	}
	j.cancel(nil)
	delete(l.pulls, r.ref)
	delete(l.progress.Pulls, r.ref)
	l.news = true
	var cancelled *operation.Cancelled
	switch {
	case errors.Is(r.err, operation.ErrShutdown):
	case errors.As(r.err, &cancelled):
		l.opts.Log.Info("pull cancelled", keyImage, r.ref, keyTook, r.took, keyPass, l.pass)
		l.pullEvent(j, actual.EventNormal, actual.EventCancelled, fmt.Sprintf("the pull of %s was cancelled: no sandbox needs the image any more", r.ref))
	case errors.Is(r.err, errTurn):
		// It waits for a place again, behind those that have waited. Nothing has failed.
		l.opts.Log.Info("pull ended for a time", keyImage, r.ref, keyTook, r.took, keyPass, l.pass)
		l.pullEvent(j, actual.EventNormal, actual.EventCancelled, fmt.Sprintf("the pull of %s %s", r.ref, errTurn))
	case r.err != nil:
		retry := l.progress.PullRetries[r.ref]
		retry.Failed(j.pull.Needs, r.err, time.Now())
		l.progress.PullRetries[r.ref] = retry
		l.opts.Log.Error("pull failed, will retry", keyImage, r.ref, keyError, r.err, keyTook, r.took, keyPass, l.pass)
		l.pullEvent(j, actual.EventWarning, actual.EventPullFailed, r.err.Error())
	default:
		// Should it not be in the store when that is looked at, it is not fetched again
		// and again.
		retry := l.progress.PullRetries[r.ref]
		retry.Failed(j.pull.Needs, errNotStored, time.Now())
		l.progress.PullRetries[r.ref] = retry
		for _, n := range j.pull.Needs {
			l.progress.Pulled[n.Name] = pulling.Done{Need: n, Digest: r.digest}
		}
		l.opts.Log.Info("pulled", keyImage, r.ref, keyDigest, r.digest, keyTook, r.took, keyPass, l.pass)
		l.pullEvent(j, actual.EventNormal, actual.EventPulled, fmt.Sprintf("%s is %s (took %s)", r.ref, r.digest, r.took.Round(time.Millisecond)))
	}
}

// pullEvent tells of a pull, for each sandbox that it was for.
func (l *Loop) pullEvent(j *pullJob, typ, reason, message string) {
	for _, n := range j.pull.Needs {
		l.event(typ, n.Name, reason, message)
	}
}

// cancelPulls ends every pull: the daemon does.
func (l *Loop) cancelPulls() {
	for _, j := range l.pulls {
		j.cancel(operation.ErrShutdown)
	}
}
