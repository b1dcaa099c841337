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
	"time"

	"sandboxctl.dev/actual"
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
	Events    Events
	Policy    Policy
	// Wakes are what may have changed; any of them starts a pass.
	Wakes []<-chan struct{}
	// Workers is how many operations run at once (default 4).
	Workers int
	// Resync is how often a pass is made without a reason (default 30 s).
	Resync time.Duration
	// ShutdownGrace is how long operations under way may take to finish when
	// Run is told to end (default 30 s). Sandboxes go on running.
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
	busy     map[string]bool
	removals map[string]time.Time // that nobody approved, of the last removalWindow
	waiting  int                  // of busy: stops that wait for their application to leave
	retries  map[string]*retry
	spent    map[string]string // tokens of requests to recover that were tried, by name
	lastGood map[string]cachedEntry
	pass     uint64
	guarded  bool
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

// retry keeps an operation that failed from being tried again at once. It is
// the only memory of the loop, and losing it costs one early try.
type retry struct {
	op       Op
	failures int
	due      time.Time
	hash     string // of the spec
	restart  string // the token of the restart that it was, "" if it was none
	terminal bool
}

// cachedEntry is a decoded recorded manifest.
type cachedEntry struct {
	rec   *actual.Record
	entry *desired.Entry
}

// Delays of operations that failed without leaving it in the record.
const (
	retryInitial = time.Second
	retryMax     = time.Minute
)

// New returns a loop.
func New(opts Options) *Loop {
	if opts.Workers <= 0 {
		opts.Workers = 4
	}
	if opts.Resync <= 0 {
		opts.Resync = 30 * time.Second
	}
	if opts.ShutdownGrace <= 0 {
		opts.ShutdownGrace = 30 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	l := &Loop{
		opts: opts, wake: make(chan struct{}, 1), done: make(chan result),
		busy: map[string]bool{}, removals: map[string]time.Time{}, retries: map[string]*retry{}, spent: map[string]string{}, lastGood: map[string]cachedEntry{},
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

// Run makes passes until ctx is done, then waits for the operations under way.
// Sandboxes are not stopped.
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
	// Operations outlive the wish to end: half of one helps nobody.
	opCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	wakes, stop := merge(l.opts.Wakes)
	defer stop()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var summary Summary
		next := l.opts.Resync
		in, plan, err := l.look(ctx)
		if err == nil {
			next = min(next, l.act(opCtx, in, &plan))
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
		case <-wakes:
		case <-l.wake:
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
		default:
			return
		}
	}
}

// merge makes one channel of several.
func merge(in []<-chan struct{}) (<-chan struct{}, func()) {
	out := make(chan struct{}, 1)
	quit := make(chan struct{})
	for _, c := range in {
		go func() {
			for {
				select {
				case <-quit:
					return
				case _, ok := <-c:
					if !ok {
						return
					}
				}
				select {
				case out <- struct{}{}:
				default:
				}
			}
		}()
	}
	return out, func() { close(quit) }
}

// drain waits for the workers, and tells them to give up when it has waited
// long enough.
func (l *Loop) drain(cancel context.CancelCauseFunc) error {
	grace := time.NewTimer(l.opts.ShutdownGrace)
	defer grace.Stop()
	for len(l.busy) > 0 {
		select {
		case r := <-l.done:
			l.finish(r)
		case <-grace.C:
			cancel(errors.New("the daemon is shutting down"))
		}
	}
	return nil
}

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
		Busy: l.busy, Now: time.Now(), Policy: l.opts.Policy, Removals: l.recentRemovals(),
	}
	return in, Compute(in), nil
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

// act starts what the plan says, as far as there are workers. It returns how
// long nothing more can be due.
func (l *Loop) act(ctx context.Context, in Input, plan *Plan) time.Duration {
	l.announce(in, plan)
	l.dropRequests(in)
	next := l.opts.Resync
	if !plan.Wake.IsZero() {
		next = min(next, plan.Wake.Sub(in.Now))
	}
	for _, a := range plan.Actions {
		if a.Op == OpRecover && l.opts.Recoverer == nil {
			continue
		}
		if wait, ok := l.mayTry(a, in.Now); !ok {
			if wait > 0 {
				next = min(next, wait)
			}
			continue
		}
		// A stop that waits for its application costs nothing and may last an
		// hour: it keeps no other sandbox waiting. The next result starts a
		// pass.
		switch {
		case graceful(a) && l.waiting >= maxWaiting, !graceful(a) && len(l.busy)-l.waiting >= l.opts.Workers:
			continue
		case graceful(a):
			l.waiting++
		}
		if _, counted := l.removals[a.Name]; a.Reason == ReasonManifestRemoved && !a.Approved && !counted {
			l.removals[a.Name] = in.Now
		}
		l.busy[a.Name] = true
		l.opts.Log.Info(a.Op.String(), keySandbox, a.Name, keyReason, a.Reason, keyPass, l.pass)
		go l.work(ctx, a)
	}
	return max(next, time.Millisecond)
}

// maxWaiting bounds the stops that wait for their application at once.
const maxWaiting = 256

func graceful(a Action) bool { return a.Op == OpDestroy && a.Ending.Grace > 0 }

// mayTry says whether an operation that failed before may be tried again, or
// how long not (0: not before its spec changes).
func (l *Loop) mayTry(a Action, now time.Time) (time.Duration, bool) {
	if a.Recover != nil {
		return 0, l.spent[a.Name] != a.Recover.Token
	}
	r, ok := l.retries[a.Name]
	if !ok || r.op != a.Op {
		return 0, true
	}
	if a.Entry != nil && r.hash != a.Entry.Hash {
		delete(l.retries, a.Name)
		return 0, true
	}
	if a.RestartToken != "" && a.RestartToken != r.restart {
		return 0, true // whoever asked wants it now; once, if it can't even be recorded
	}
	if r.terminal {
		return 0, false
	}
	if wait := r.due.Sub(now); wait > 0 && wait <= retryMax*2 {
		return wait, false
	}
	return 0, true
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
			return l.opts.Launcher.Create(ctx, a.Entry, a.RestartToken)
		case OpDestroy:
			return l.opts.Launcher.Destroy(ctx, a.Name, a.Ending)
		case OpRecover:
			said, err = l.opts.Recoverer.Recover(ctx, a.Name, a.Recover.End)
			return err
		default:
			return l.opts.Launcher.Forget(ctx, a.Name)
		}
	}()
	l.done <- result{action: a, said: said, took: time.Since(began), err: err}
}

// finish takes note of a result.
func (l *Loop) finish(r result) {
	a := r.action
	delete(l.busy, a.Name)
	if graceful(a) {
		l.waiting--
	}
	if a.Op == OpRecover && l.opts.Requests != nil {
		// One request is one try, whatever came of it: whoever asked looks. It may
		// be that it can't be dropped now.
		l.spent[a.Name] = a.Recover.Token
		if err := l.opts.Requests.DropRequest(*a.Recover); err != nil {
			l.opts.Log.Warn("request not dropped", keyError, err)
		}
	}
	if r.err == nil {
		delete(l.retries, a.Name)
		l.opts.Log.Info(a.Op.String()+" done", keySandbox, a.Name, keyReason, a.Reason, keyTook, r.took, keyPass, l.pass)
		l.event(actual.EventNormal, a.Name, doneReason(a), doneMessage(&r))
		return
	}
	re := l.retries[a.Name]
	if re == nil || re.op != a.Op {
		re = &retry{op: a.Op}
		l.retries[a.Name] = re
	}
	var t interface{ Terminal() bool }
	re.failures++
	re.restart = a.RestartToken
	re.terminal = errors.As(r.err, &t) && t.Terminal()
	if a.Entry != nil {
		re.hash = a.Entry.Hash
	}
	// A failed create is also in the record, when that could be written, and
	// the planner waits for its backoff: the longer of the two counts.
	re.due = time.Now().Add(min(retryInitial<<min(re.failures-1, 6), retryMax))
	l.opts.Log.Error(a.Op.String()+" failed, will retry", keySandbox, a.Name, keyReason, a.Reason, keyError, r.err, keyPass, l.pass)
	l.event(actual.EventWarning, a.Name, failReason(a), r.err.Error())
}

// Reasons of events about operations.
const (
	EventStarted             = "Started"
	EventStopped             = "Stopped"
	EventRecovered           = "Recovered"
	EventRemoved             = "Removed"
	EventCreateFailed        = "CreateFailed"
	EventDestroyFailed       = "DestroyFailed"
	EventRemoveFailed        = "RemoveFailed"
	EventRecordRecovered     = "RecordRecovered"
	EventRecordRecoverFailed = "RecordRecoverFailed"
	EventGuarded             = "RemovalHeld"
	EventIncomplete          = "SourceIncomplete"
	EventComplete            = "SourceComplete"
	EventHeld                = "Held"
	EventUnknown             = "ProcessUnknown"
)

func doneReason(a Action) string {
	switch a.Op {
	case OpCreate:
		return EventStarted
	case OpDestroy:
		if a.Ending.Adopt {
			return EventRecovered
		}
		return EventStopped
	case OpRecover:
		return EventRecordRecovered
	case OpForget:
	}
	return EventRemoved
}

func doneMessage(r *result) string {
	msg := r.action.Reason
	if x := r.action.Ending.Exit; x != nil {
		// How it ended says why, unless something else is the reason.
		if how := describeExit(x); x.Reason == msg {
			msg = how
		} else {
			msg += ": " + how
		}
	}
	if r.said != "" {
		msg += ": " + r.said
	}
	return fmt.Sprintf("%s (took %s)", msg, r.took.Round(time.Millisecond))
}

func failReason(a Action) string {
	switch a.Op {
	case OpCreate:
		return EventCreateFailed
	case OpDestroy:
		return EventDestroyFailed
	case OpRecover:
		return EventRecordRecoverFailed
	case OpForget:
	}
	return EventRemoveFailed
}

// announceUnclear makes events of sandboxes that can't be judged: nothing is
// done about them, which nobody would understand without.
func (l *Loop) announceUnclear(have *actual.Snapshot) {
	var now map[string]string
	note := func(name, reason, message string) {
		if now == nil {
			now = map[string]string{}
		}
		now[name] = message
		if l.unclear[name] != message {
			l.opts.Log.Warn("sandbox left alone", keySandbox, name, keyReason, reason, keyError, message, keyPass, l.pass)
			l.event(actual.EventWarning, name, reason, message)
		}
	}
	for i := range have.Held {
		note(have.Held[i].Name, EventHeld, have.Held[i].Reason+": "+have.Held[i].Message)
	}
	for i := range have.Sandboxes {
		if o := &have.Sandboxes[i]; unknown(o) {
			note(o.Record.Name, EventUnknown, o.Why)
		}
	}
	l.unclear = now
}

// announce makes events of what changed between passes for the whole.
func (l *Loop) announce(in Input, plan *Plan) {
	l.announceUnclear(in.Actual)
	if g := plan.Guard != nil; g != l.guarded {
		l.guarded = g
		if g {
			l.opts.Log.Warn("removal held", keyPass, l.pass, keyReason, plan.Guard.Message)
			l.event(actual.EventWarning, "", EventGuarded, plan.Guard.Message)
		}
	}
	reason := in.Desired.Reason
	if reason == desired.ReasonUnsettled || reason == l.source {
		return
	}
	l.source = reason
	if reason == "" {
		l.opts.Log.Info("manifests complete", keyPass, l.pass)
		l.event(actual.EventNormal, "", EventComplete, "the manifests can be read whole again")
		return
	}
	l.opts.Log.Warn("manifests incomplete", keyReason, reason, keyError, in.Desired.Message, keyPass, l.pass)
	l.event(actual.EventWarning, "", EventIncomplete, reason+": "+in.Desired.Message)
}

func (l *Loop) event(typ, name, reason, message string) {
	if l.opts.Events == nil {
		return
	}
	if err := l.opts.Events.Append(actual.Event{Type: typ, Sandbox: name, Reason: reason, Message: message, Pass: l.pass}); err != nil {
		l.opts.Log.Warn("event lost", keyError, err)
	}
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
	case actual.RequestApprove:
		if !in.Desired.Complete {
			return false
		}
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
