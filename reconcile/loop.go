// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
)

// Keys of the loop's log lines.
const (
	keySandbox = "sandbox"
	keyOp      = "op"
	keyReason  = "reason"
	keyPass    = "pass"
	keyError   = "err"
	keyTook    = "took"
)

// Requests are what operators ask of the daemon; they wait in the Observer's
// snapshot and are dropped when they have been carried out.
type Requests interface {
	DropRequest(r actual.Request) error
}

// Events keeps what happened for people to read.
type Events interface {
	Append(e actual.Event) error
}

// Options configure a Loop.
type Options struct {
	View     View
	Launcher Launcher
	// Repairer carries out requests to repair; without one they wait.
	Repairer Repairer
	Requests Requests
	// LastExit is the last exit on record of a name, if set; nil if there is none.
	LastExit func(name string) *actual.Exit
	// Publish tells other programs what the loop does and waits for, if set.
	Publish func(Progress) error
	Events  Events
	// Wakes are what may have changed; any of them starts a pass.
	Wakes []<-chan struct{}
	// Workers is how many operations of each lane run at once (default 4).
	Workers int
	// Resync is how often a pass is made without a reason (default 30 s).
	Resync time.Duration
	// Rest is the least time between two passes for the same reason, but for the first
	// ones after a quiet time (default: none).
	Rest time.Duration
	// ShutdownGrace is how long operations that do not wait for others may take
	// to finish when Run is told to end (default 2 s). Sandboxes go on running,
	// and the next daemon resumes what was not finished.
	ShutdownGrace time.Duration
	// Removals are those of the daemon before (Input.Removals).
	Removals []time.Time
	// OnPass is called after every pass with its input and plan, if set.
	OnPass func(Input, Plan)
	Log    *slog.Logger
}

// Loop makes passes: look, compute, act. One goroutine owns all of its state;
// workers only carry out one operation each and report back.
type Loop struct {
	opts     Options
	wake     chan struct{}
	done     chan result
	waits    chan string     // names whose operation has begun to wait
	ended    chan struct{}   // closed when nobody listens to workers any more
	jobs     map[string]*job // by name
	queue    queue
	starts   pace
	removals map[string]time.Time // that nobody approved, of the last removalWindow
	progress Progress             // one operation for each job
	news     bool                 // progress that was not published
	quiet    time.Time            // until when nothing is published
	pass     uint64
	took     atomic.Int64 // the last pass, ns
	guarded  bool
	foreign  map[string]bool   // files for other programs that were announced
	source   string            // the last reason of an incomplete source, for events
	unclear  map[string]string // sandboxes that nothing is done about, and why
}

// result is what a worker reports.
type result struct {
	action Action
	said   string // of a recovery
	took   time.Duration
	err    error
	// stopped is the last record of a sandbox that was stopped to be removed, also if
	// that failed then.
	stopped *actual.Record
	exit    *actual.Exit // how it ended
}

// job is an operation under way.
type job struct {
	action Action
	began  time.Time
	cancel context.CancelCauseFunc
	// waits says that it holds no worker: it waits for what others decide.
	waits bool
}

// New returns a loop.
func New(opts Options) *Loop {
	if opts.Workers <= 0 {
		opts.Workers = 4
	}
	if opts.Resync <= 0 {
		opts.Resync = 30 * time.Second
	}
	if opts.ShutdownGrace <= 0 {
		opts.ShutdownGrace = 2 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	l := &Loop{
		opts: opts, wake: make(chan struct{}, 1), done: make(chan result), waits: make(chan string), ended: make(chan struct{}),
		jobs: map[string]*job{}, removals: map[string]time.Time{}, news: true,
		progress: Progress{Operations: map[string]Operation{}, Retries: map[string]Retry{}, Tried: map[string]string{}},
	}
	for i, at := range opts.Removals {
		l.removals[fmt.Sprintf("/%d", i)] = at // whose they were does not matter
	}
	return l
}

// Wake starts a pass soon.
func (l *Loop) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run makes passes until ctx is done, then waits a moment for the operations under
// way. Sandboxes are not stopped. Unfinished tells what was left.
func (l *Loop) Run(ctx context.Context) error {
	_, err := l.run(ctx, nil)
	return err
}

// Once makes passes until nothing is left to do now. What waits for a delay,
// for approval or for a manifest to be mended is not converged and not waited
// for.
func (l *Loop) Once(ctx context.Context) (Summary, error) {
	began := time.Now()
	// Nothing under way after a pass has started what it could: what the plan
	// still holds failed a moment ago.
	return l.run(ctx, func(s Summary) bool {
		settled := s.Reason != desired.ReasonUnsettled || time.Since(began) > settleTimeout
		return len(l.jobs) == 0 && settled
	})
}

// settleTimeout bounds how long Once waits for manifests that are being
// written.
const settleTimeout = 30 * time.Second

func (l *Loop) run(ctx context.Context, finished func(Summary) bool) (Summary, error) {
	// Operations outlive the wish to end, for a moment: most are finished soon.
	opCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(operation.ErrShutdown)
	defer close(l.ended)
	wakes, stop := l.wakes()
	defer stop()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var summary Summary
		next := l.opts.Resync
		began := time.Now()
		in, plan, err := l.look(ctx)
		if err == nil {
			next = min(next, l.act(operation.Pass{Began: began, Read: in.Read}.In(opCtx), in, &plan))
			l.took.Store(int64(time.Since(began)))
			if l.opts.OnPass != nil {
				l.opts.OnPass(in, plan)
			}
			if finished != nil {
				summary = Summarize(in, plan, Statuses(in, plan))
				if finished(summary) {
					return summary, nil
				}
			}
		} else if ctx.Err() == nil {
			// Nothing was decided and nothing done; the next pass may do.
			l.opts.Log.Error("pass failed, will retry", keyPass, l.pass, keyError, err)
			next = min(next, retryInitial)
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return summary, l.drain(cancel)
		case r := <-l.done:
			l.finish(r)
			l.collect()
		case name := <-l.waits:
			l.gaveUp(name)
		case <-wakes:
		case <-timer.C:
		}
	}
}

// collect takes what other workers have reported meanwhile, so that one pass
// serves them all.
func (l *Loop) collect() {
	for {
		select {
		case r := <-l.done:
			l.finish(r)
		case name := <-l.waits:
			l.gaveUp(name)
		default:
			return
		}
	}
}

// gaveUp notes that an operation waits from now on and holds no worker.
func (l *Loop) gaveUp(name string) {
	if j := l.jobs[name]; j != nil && l.waiting() < maxWaiting {
		j.waits = true
	}
}

// waiting is how many operations hold no worker.
func (l *Loop) waiting() int {
	n := 0
	for _, j := range l.jobs {
		if j.waits || j.action.Lane == LaneStop {
			n++
		}
	}
	return n
}

// lastMoment is how long operations have to end when they were told that the
// daemon does.
const lastMoment = 2 * time.Second

// drain lets operations under way finish that need no more than a moment, and has
// the others leave everything to the next daemon, as if this one had been killed.
func (l *Loop) drain(cancel context.CancelCauseFunc) error {
	for _, j := range l.jobs {
		if j.waits || j.action.Lane == LaneStop {
			j.cancel(operation.ErrShutdown)
		}
	}
	grace := time.NewTimer(l.opts.ShutdownGrace)
	defer grace.Stop()
	end := time.NewTimer(l.opts.ShutdownGrace + lastMoment)
	defer end.Stop()
	for len(l.jobs) > 0 {
		select {
		case r := <-l.done:
			l.finish(r)
		case name := <-l.waits:
			if j := l.jobs[name]; j != nil {
				j.cancel(operation.ErrShutdown)
			}
		case <-grace.C:
			cancel(operation.ErrShutdown)
		case <-end.C:
			l.opts.Log.Warn("operations not finished, the next daemon continues them", "sandboxes", l.Unfinished())
			return nil
		}
	}
	return nil
}

// Unfinished are the names whose operations had not ended when Run did.
func (l *Loop) Unfinished() []string { return slices.Sorted(maps.Keys(l.jobs)) }

// look makes the input of a pass, and its plan.
func (l *Loop) look(ctx context.Context) (Input, Plan, error) {
	l.pass++
	in, err := l.opts.View.Gather(ctx, l.progress, l.recentRemovals())
	if err != nil {
		return Input{}, Plan{}, err
	}
	return in, Compute(in), nil
}

// quietFactor is how many times as long as it took to publish nothing more is
// published: that takes a twentieth of the time at most.
const quietFactor = 20

// publish tells others of the progress if it has changed, and returns when it is to
// be called again at the latest. now says that it can't wait.
func (l *Loop) publish(now bool) time.Duration {
	if !l.news || l.opts.Publish == nil {
		return l.opts.Resync
	}
	began := time.Now()
	if left := l.quiet.Sub(began); left > 0 && !now {
		return left
	}
	err := l.opts.Publish(l.progress)
	l.quiet = time.Now().Add(quietFactor * time.Since(began))
	if err != nil {
		l.opts.Log.Warn("the list of running operations can't be written", keyError, err)
		l.quiet = l.quiet.Add(lookAgain)
		return lookAgain
	}
	l.news = false
	return l.opts.Resync
}

// forgetRetries drops what failed and is not to be done any more.
func (l *Loop) forgetRetries(plan *Plan) {
	if len(l.progress.Retries) == 0 {
		return
	}
	planned := map[string]bool{}
	for i := range plan.Actions {
		planned[plan.Actions[i].Name] = true
	}
	for i := range plan.Delayed {
		planned[plan.Delayed[i].Name] = true
	}
	for name := range l.progress.Retries {
		if !planned[name] && l.jobs[name] == nil {
			delete(l.progress.Retries, name)
			l.news = true
		}
	}
}

// operationOf is what the planner is told of an action under way.
func operationOf(a *Action) Operation {
	op := Operation{Op: a.Op, Restart: a.Request.ID(), Grace: a.Ending.Grace}
	if a.Entry != nil {
		op.Hash, op.Netns = a.Entry.Hash, netnsOf(a.Entry)
	}
	return op
}

// recentRemovals drops what is too long ago to count, and gives the rest, the
// oldest first.
func (l *Loop) recentRemovals() []time.Time {
	var out []time.Time
	for name, at := range l.removals {
		if time.Since(at) >= removalWindow {
			delete(l.removals, name)
			continue
		}
		out = append(out, at)
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

// act cancels and starts what the plan says, as far as there are workers. It
// returns how long nothing more can be due.
func (l *Loop) act(ctx context.Context, in Input, plan *Plan) time.Duration {
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
	var start []func()
	for _, a := range l.queue.order(plan.Actions) {
		if a.Op == OpRepair && l.opts.Repairer == nil {
			continue
		}
		if free[a.Lane] == 0 {
			next = min(next, again) // or when one reports
			continue
		}
		if a.Op == OpCreate && a.Lane == LaneRestart {
			if wait := l.starts.wait(in.Now, in.Desired.Bounds().StartsPerSecond); wait > 0 {
				next = min(next, wait)
				continue
			}
		}
		free[a.Lane]--
		start = append(start, l.begin(ctx, a, in.Now))
	}
	// Before they begin: who sees what they do must know that somebody does it.
	next = min(next, l.publish(len(start) > 0))
	for _, f := range start {
		f()
	}
	return max(next, time.Millisecond)
}

// workers is how many more operations each lane can begin, and when one that holds
// a worker will have had it for too long.
func (l *Loop) workers(now time.Time) (free [laneCount]int, again time.Duration) {
	for lane := range free {
		free[lane] = l.opts.Workers
	}
	waiting := l.waiting()
	free[LaneStop], free[LaneRemove] = max(maxWaiting-waiting, 0), maxRemoving
	again = l.opts.Resync
	for _, j := range l.jobs {
		if j.waits || j.action.Lane == LaneStop {
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
func (l *Loop) begin(ctx context.Context, a Action, now time.Time) func() {
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
	l.progress.Operations[a.Name] = operationOf(&a)
	l.jobs[a.Name] = &job{action: a, began: now, cancel: cancel}
	l.opts.Log.Info(a.Op.String(), keySandbox, a.Name, keyReason, a.Reason, keyPass, l.pass)
	return func() { go l.work(ctx, a) }
}

// cancel ends an operation that has lost its reason.
func (l *Loop) cancel(c Cancel) {
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

// work carries out one operation. A panic in it is that operation's error and
// not the end of the daemon.
func (l *Loop) work(ctx context.Context, a Action) {
	select {
	case l.done <- l.carryOut(ctx, a):
	case <-l.ended:
	}
}

func (l *Loop) carryOut(ctx context.Context, a Action) (r result) {
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
	case OpCreate:
		r.err = l.opts.Launcher.Create(ctx, a.Entry, a.Request)
	case OpResume:
		r.err = l.opts.Launcher.Resume(ctx, a.Name, a.Start, a.Ending)
	case OpDestroy:
		r.err = l.opts.Launcher.Destroy(ctx, a.Name, a.Ending)
	case OpRepair:
		r.said, r.err = l.opts.Repairer.Repair(ctx, a.Name, a.Request.End)
	default:
		r.err = l.opts.Launcher.Forget(ctx, a.Name)
	}
	return r
}

// finish takes note of a result.
func (l *Loop) finish(r result) {
	if r.stopped != nil {
		// One operation, and two things to tell: only the second can have failed.
		r.exit = r.stopped.App().LastExit
		l.succeeded(&r)
		r.action.Op, r.exit = OpForget, nil
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
	if a.Op == OpRepair && l.opts.Requests != nil {
		// It may be that it can't be dropped now.
		l.progress.Tried[a.Name] = a.Request.Token
		if err := l.opts.Requests.DropRequest(*a.Request); err != nil {
			l.opts.Log.Warn("request not removed", keyError, err)
		}
	}
	if r.err == nil {
		delete(l.progress.Retries, a.Name)
		if a.Op == OpDestroy {
			r.exit = l.lastExit(a.Name)
		}
		l.succeeded(&r)
		return
	}
	if a.Op != OpRepair { // which is tried once for each request
		again := l.progress.Retries[a.Name]
		again.failed(&a, operation.Permanent(r.err), r.err.Error(), time.Now())
		l.progress.Retries[a.Name] = again
	}
	l.opts.Log.Error(a.Op.String()+" failed, will retry", keySandbox, a.Name, keyReason, a.Reason, keyError, r.err, keyPass, l.pass)
	l.event(actual.EventWarning, a.Name, failReason(a), r.err.Error())
}

// succeeded tells people of it.
func (l *Loop) succeeded(r *result) {
	a := r.action
	l.opts.Log.Info(a.Op.String()+" done", keySandbox, a.Name, keyReason, a.Reason, keyTook, r.took, keyPass, l.pass)
	l.event(actual.EventNormal, a.Name, doneReason(a), doneMessage(r))
}

func (l *Loop) lastExit(name string) *actual.Exit {
	if l.opts.LastExit == nil {
		return nil
	}
	return l.opts.LastExit(name)
}

// dropRequests removes requests that have been carried out, or ask for what
// there is not.
func (l *Loop) dropRequests(in Input) {
	if l.opts.Requests == nil {
		return
	}
	waiting := map[string]bool{}
	for _, r := range in.Actual.Requests {
		spent := r.Kind == actual.RequestRepair && l.progress.Tried[r.Name] == r.Token
		if spent {
			waiting[r.Name] = true
		}
		if spent || requestDone(in, r) {
			if err := l.opts.Requests.DropRequest(r); err != nil {
				l.opts.Log.Warn("request not removed", keyError, err)
			}
		}
	}
	before := len(l.progress.Tried)
	maps.DeleteFunc(l.progress.Tried, func(name, _ string) bool { return !waiting[name] })
	l.news = l.news || len(l.progress.Tried) < before
}

func requestDone(in Input, r actual.Request) bool {
	switch r.Kind {
	case actual.RequestRestart:
		if isQuarantined(in.Actual, r.Name) {
			return false
		}
		for i := range in.Actual.Sandboxes {
			if rec := in.Actual.Sandboxes[i].Record; rec.Name == r.Name {
				// Only the request says from which checkpoint: it stays until that has
				// been restored, or could not be.
				return rec.RestartToken == r.Token && (r.Checkpoint == "" || !cutShort(rec))
			}
		}
		return in.Desired.Complete && in.Desired.Lookup(r.Name) == nil
	case actual.RequestRepair:
		return !isQuarantined(in.Actual, r.Name)
	case actual.RequestRemove:
		return in.removed(&r)
	case actual.RequestApprove:
		for _, n := range r.Names {
			for i := range in.Actual.Sandboxes {
				if in.Actual.Sandboxes[i].Record.Name == n && in.Desired.Lookup(n) == nil {
					return false // still to be removed
				}
			}
		}
		return true
	}
	return true
}
