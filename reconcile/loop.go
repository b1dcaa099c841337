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
	Source   Source
	Observer Observer
	Launcher Launcher
	// Recoverer carries out requests to recover; without one they wait.
	Recoverer Recoverer
	Requests  Requests
	// LastExit is the last exit on record of a name, if set; nil if there is none.
	LastExit func(name string) *actual.Exit
	// Network looks at the network namespace of a name, if set.
	Network func(name string) Network
	Events  Events
	Policy  Policy
	// Wakes are what may have changed; any of them starts a pass.
	Wakes []<-chan struct{}
	// Workers is how many operations of each lane run at once (default 4).
	Workers int
	// Resync is how often a pass is made without a reason (default 30 s).
	Resync time.Duration
	// Rest is the least time between two passes for the same reason (default: none).
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
	busy     map[string]bool // the names of jobs
	jobs     map[string]*job
	queue    queue
	starts   pace
	removals map[string]time.Time // that nobody approved, of the last removalWindow
	retries  map[string]*Retry
	spent    map[string]string // tokens of requests to recover that were tried, by name
	lastGood map[string]cachedEntry
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
}

// job is an operation under way.
type job struct {
	action    Action
	began     time.Time
	cancel    context.CancelCauseFunc
	cancelled bool
	// waits says that it holds no worker: it waits for what others decide.
	waits bool
}

// cachedEntry is a decoded recorded manifest.
type cachedEntry struct {
	rec   *actual.Record
	entry *desired.Entry
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
		busy: map[string]bool{}, jobs: map[string]*job{}, removals: map[string]time.Time{}, retries: map[string]*Retry{}, spent: map[string]string{}, lastGood: map[string]cachedEntry{},
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
		return len(l.busy) == 0 && settled
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
			next = min(next, l.act(opCtx, in, &plan))
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
			l.opts.Log.Warn("operations left to the next daemon", "sandboxes", l.Unfinished())
			return nil
		}
	}
	return nil
}

// Unfinished are the names whose operations had not ended when Run did.
func (l *Loop) Unfinished() []string { return slices.Sorted(maps.Keys(l.jobs)) }

// look makes the input of a pass.
func (l *Loop) look(ctx context.Context) (Input, Plan, error) {
	l.pass++
	want, err := l.opts.Source.Load(ctx)
	if err != nil {
		return Input{}, Plan{}, fmt.Errorf("load manifests: %w", err)
	}
	have, err := l.opts.Observer.Observe(ctx)
	if err != nil {
		return Input{}, Plan{}, fmt.Errorf("observe sandboxes: %w", err)
	}
	lastGood := l.recorded(want, have)
	in := Input{
		Desired: want, Actual: have, LastGood: lastGood, Denied: Denied(want, lastGood),
		Busy: l.busy, Operations: l.operations(), Retries: l.retries, Tried: l.spent,
		Now: time.Now(), Policy: l.opts.Policy, Removals: l.recentRemovals(),
	}
	if l.opts.Network != nil {
		in.Networks = Networks(want, l.opts.Network)
	}
	return in, Compute(in), nil
}

// operations are the jobs, for the planner.
func (l *Loop) operations() map[string]Operation {
	if len(l.jobs) == 0 {
		return nil
	}
	out := make(map[string]Operation, len(l.jobs))
	for name, j := range l.jobs {
		op := Operation{Op: j.action.Op, Restart: j.action.Request.ID(), Grace: j.action.Ending.Grace, Cancelled: j.cancelled}
		if e := j.action.Entry; e != nil {
			op.Hash, op.Netns = e.Hash, netnsOf(e)
		}
		out[name] = op
	}
	return out
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

// recorded decodes the manifests of records that the source does not have.
func (l *Loop) recorded(want *desired.Snapshot, have *actual.Snapshot) map[string]*desired.Entry {
	var out map[string]*desired.Entry
	for i := range have.Sandboxes {
		rec := have.Sandboxes[i].Record
		if want.Lookup(rec.Name) != nil {
			continue
		}
		c, ok := l.lastGood[rec.Name]
		if !ok || c.rec != rec {
			c = cachedEntry{rec: rec, entry: Recorded(rec)}
			l.lastGood[rec.Name] = c
		}
		if out == nil {
			out = map[string]*desired.Entry{}
		}
		out[rec.Name] = c.entry
	}
	return out
}

// Recorded is the manifest of a record, nil if it can't be used any more.
func Recorded(rec *actual.Record) *desired.Entry {
	e, err := desired.FromCanonical(rec.Spec, rec.SourceFile)
	if err != nil {
		return nil
	}
	return e
}

// Denied says which of the recorded manifests the host policy does not allow by
// what the source was read with (see Input.Denied).
func Denied(want *desired.Snapshot, lastGood map[string]*desired.Entry) map[string]string {
	if want.Policy == nil && want.Reason != desired.ReasonPolicyUnusable {
		return nil
	}
	out := map[string]string{}
	for name, e := range lastGood {
		switch {
		case want.Policy == nil:
			out[name] = want.Message
		case e != nil:
			if errs := want.Policy.Check(e.Sandbox); len(errs) > 0 {
				out[name] = errs[0].Field + ": " + errs[0].Message
			}
		}
	}
	return out
}

// LastGood decodes the manifests of the records that the source does not have,
// for a program that computes one plan.
func LastGood(want *desired.Snapshot, have *actual.Snapshot) map[string]*desired.Entry {
	l := &Loop{lastGood: map[string]cachedEntry{}}
	return l.recorded(want, have)
}

// act cancels and starts what the plan says, as far as there are workers. It
// returns how long nothing more can be due.
func (l *Loop) act(ctx context.Context, in Input, plan *Plan) time.Duration {
	l.announce(in, plan)
	l.dropRequests(in)
	next := l.opts.Resync
	if !plan.Wake.IsZero() {
		next = min(next, plan.Wake.Sub(in.Now))
	}
	for _, c := range plan.Cancel {
		l.cancel(c)
	}
	free, again := l.workers(in.Now)
	for _, a := range l.queue.order(plan.Actions) {
		if a.Op == OpRecover && l.opts.Recoverer == nil {
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
		l.begin(ctx, a, in.Now)
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
	free[LaneStop] = max(maxWaiting-waiting, 0)
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

// begin starts an operation.
func (l *Loop) begin(ctx context.Context, a Action, now time.Time) {
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
	l.busy[a.Name] = true
	l.jobs[a.Name] = &job{action: a, began: now, cancel: cancel}
	l.opts.Log.Info(a.Op.String(), keySandbox, a.Name, keyReason, a.Reason, keyPass, l.pass)
	go l.work(ctx, a)
}

// cancel ends an operation that has lost its reason.
func (l *Loop) cancel(c Cancel) {
	j := l.jobs[c.Name]
	if j == nil || j.cancelled {
		return
	}
	j.cancelled = true
	l.opts.Log.Info("cancel "+j.action.Op.String(), keySandbox, c.Name, keyReason, c.Reason, keyPass, l.pass)
	j.cancel(&operation.Cancelled{Reason: c.Reason})
}

// work carries out one operation. A panic in it is that operation's error and
// not the end of the daemon.
func (l *Loop) work(ctx context.Context, a Action) {
	began := time.Now()
	said := ""
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%s %s: panic: %v\n%s", a.Op, a.Name, p, debug.Stack())
			}
		}()
		switch a.Op {
		case OpCreate:
			return l.opts.Launcher.Create(ctx, a.Entry, a.Request)
		case OpResume:
			return l.opts.Launcher.Resume(ctx, a.Name, a.Start, a.Ending)
		case OpDestroy:
			return l.opts.Launcher.Destroy(ctx, a.Name, a.Ending)
		case OpRecover:
			said, err = l.opts.Recoverer.Recover(ctx, a.Name, a.Request.End)
			return err
		default:
			return l.opts.Launcher.Forget(ctx, a.Name)
		}
	}()
	select {
	case l.done <- result{action: a, said: said, took: time.Since(began), err: err}:
	case <-l.ended:
	}
}

// finish takes note of a result.
func (l *Loop) finish(r result) {
	a := r.action
	if j := l.jobs[a.Name]; j != nil {
		j.cancel(nil)
	}
	delete(l.jobs, a.Name)
	delete(l.busy, a.Name)
	var cancelled *operation.Cancelled
	switch {
	case errors.Is(r.err, operation.ErrShutdown):
		l.opts.Log.Info(a.Op.String()+" left to the next daemon", keySandbox, a.Name, keyReason, a.Reason, keyTook, r.took)
		return
	case errors.As(r.err, &cancelled):
		delete(l.retries, a.Name)
		l.opts.Log.Info(a.Op.String()+" cancelled", keySandbox, a.Name, keyReason, cancelled.Reason, keyTook, r.took, keyPass, l.pass)
		l.event(actual.EventNormal, a.Name, actual.EventCancelled, fmt.Sprintf("%s (%s) was cancelled: %s (took %s)", a.Op, a.Reason, cancelled.Reason, r.took.Round(time.Millisecond)))
		return
	}
	if a.Op == OpRecover && l.opts.Requests != nil {
		// It may be that it can't be dropped now.
		l.spent[a.Name] = a.Request.Token
		if err := l.opts.Requests.DropRequest(*a.Request); err != nil {
			l.opts.Log.Warn("request not dropped", keyError, err)
		}
	}
	if r.err == nil {
		delete(l.retries, a.Name)
		l.opts.Log.Info(a.Op.String()+" done", keySandbox, a.Name, keyReason, a.Reason, keyTook, r.took, keyPass, l.pass)
		l.event(actual.EventNormal, a.Name, doneReason(a), doneMessage(&r, l.lastExit(a.Name)))
		return
	}
	if a.Op != OpRecover { // which is tried once for each request
		if l.retries[a.Name] == nil {
			l.retries[a.Name] = &Retry{}
		}
		l.retries[a.Name].failed(&a, operation.Permanent(r.err), r.err.Error(), time.Now())
	}
	l.opts.Log.Error(a.Op.String()+" failed, will retry", keySandbox, a.Name, keyReason, a.Reason, keyError, r.err, keyPass, l.pass)
	l.event(actual.EventWarning, a.Name, failReason(a), r.err.Error())
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
		spent := r.Kind == actual.RequestRecover && l.spent[r.Name] == r.Token
		if spent {
			waiting[r.Name] = true
		}
		if spent || requestDone(in, r) {
			if err := l.opts.Requests.DropRequest(r); err != nil {
				l.opts.Log.Warn("request not dropped", keyError, err)
			}
		}
	}
	maps.DeleteFunc(l.spent, func(name, _ string) bool { return !waiting[name] })
}

func requestDone(in Input, r actual.Request) bool {
	switch r.Kind {
	case actual.RequestRestart:
		if isHeld(in.Actual, r.Name) {
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
	case actual.RequestRecover:
		return !isHeld(in.Actual, r.Name)
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
