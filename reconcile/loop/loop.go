// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/attached"
	"sandboxctl.dev/reconcile/declared"
	"sandboxctl.dev/reconcile/pulling"
)

// Keys of the loop's log lines.
const (
	keySandbox = "sandbox"
	keyOp      = "op"
	keyReason  = "reason"
	keyPass    = "pass"
	keyError   = "err"
	keyTook    = "took"
	keyImage   = "image"
	keyDigest  = "digest"
	keyVolume  = "volume"
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
	View     reconcile.View
	Launcher reconcile.Launcher
	// Repairer carries out requests to repair; without one they wait.
	Repairer reconcile.Repairer
	// Puller fetches images; without one nothing that needs one is started.
	Puller reconcile.Puller
	// Volumes makes the named volumes that are declared; without it none is.
	Volumes  reconcile.Volumes
	Requests Requests
	// LastExit is the last exit on record of a name, if set; nil if there is none.
	LastExit func(name string) *actual.Exit
	// Lacks are what sandboxes lack of their networks, if set; nobody changes the map.
	Lacks func() map[string]attached.Lack
	// Publish tells other programs what the loop does and waits for, if set.
	Publish func(reconcile.Progress) error
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
	// to finish when Run is told to end (default 2 s). Sandboxes keep running,
	// and the next daemon resumes what was not finished.
	ShutdownGrace time.Duration
	// Removals are those of the daemon before (Input.Removals).
	Removals []time.Time
	// OnInput is called with the input of each pass before anything is begun by it, if set: for
	// those who are to know what it says when the operations of the pass ask them.
	OnInput func(reconcile.Input)
	// OnPass is called after every pass with its input and plan, if set.
	OnPass func(reconcile.Input, reconcile.Plan)
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
	reports  chan pullReport
	pulls    map[string]*pullJob // by reference
	volumes  chan []volumeResult
	declares bool // volumes are being made or changed
	queue    queue
	toPull   queue // references
	starts   pace
	removals map[string]time.Time // that nobody approved, of the last RemovalWindow
	progress reconcile.Progress   // one operation for each job
	news     bool                 // progress that was not published
	quiet    time.Time            // until when nothing is published
	crowded  bool                 // removals wait for others to end
	pass     uint64
	took     atomic.Int64 // the last pass, ns
	guarded  bool
	foreign  map[string]bool   // files for other programs that were announced
	source   string            // the last reason of an incomplete source, for events
	unclear  map[string]string // sandboxes that nothing is done about, and why
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
		jobs: map[string]*job{}, reports: make(chan pullReport), volumes: make(chan []volumeResult), pulls: map[string]*pullJob{}, removals: map[string]time.Time{}, news: true,
		progress: reconcile.Progress{
			Operations: map[string]reconcile.Operation{}, Retries: map[string]reconcile.Retry{}, Tried: map[string]string{},
			Pulls: map[string]pulling.Running{}, Pulled: map[string]pulling.Done{}, PullRetries: map[string]pulling.Retry{},
			VolumeRetries: map[string]declared.Retry{},
		},
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
func (l *Loop) Once(ctx context.Context) (reconcile.Summary, error) {
	began := time.Now()
	// Nothing under way after a pass has started what it could: what the plan
	// still holds failed a moment ago.
	return l.run(ctx, func(s reconcile.Summary) bool {
		settled := s.Reason != desired.ReasonUnsettled || time.Since(began) > settleTimeout
		return len(l.jobs)+len(l.pulls) == 0 && !l.declares && settled
	})
}

// settleTimeout bounds how long Once waits for manifests that are being
// written.
const settleTimeout = 30 * time.Second

func (l *Loop) run(ctx context.Context, finished func(reconcile.Summary) bool) (reconcile.Summary, error) {
	// Operations outlive the wish to end, for a moment: most are finished soon.
	opCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(operation.ErrShutdown)
	defer close(l.ended)
	wakes, stop := l.wakes()
	defer stop()

	for {
		var summary reconcile.Summary
		next := l.opts.Resync
		began := time.Now()
		in, plan, err := l.look(ctx)
		if err == nil {
			if l.opts.OnInput != nil {
				l.opts.OnInput(in)
			}
			next = min(next, l.act(operation.Pass{Began: began, Read: in.Read}.In(opCtx), in, &plan))
			l.took.Store(int64(time.Since(began)))
			if l.opts.OnPass != nil {
				l.opts.OnPass(in, plan)
			}
			if finished != nil {
				summary = reconcile.Summarize(in, plan, reconcile.Statuses(in, plan))
				if finished(summary) {
					return summary, nil
				}
			}
		} else if ctx.Err() == nil {
			// Nothing was decided and nothing done; the next pass may do.
			l.opts.Log.Error("pass failed, will retry", keyPass, l.pass, keyError, err)
			next = min(next, reconcile.RetryInitial)
		}
		if !l.await(ctx, wakes, next) {
			return summary, l.drain(cancel)
		}
	}
}

// await returns true when there is a reason for a pass, at the latest after next, and
// false when ctx is done. That a removal has ended is no reason at once while others are
// under way, which end in the same moment and make no room for anything: a pass for each
// would take the processors that the kernel needs to end the rest.
func (l *Loop) await(ctx context.Context, wakes <-chan struct{}, next time.Duration) bool {
	due := time.Now().Add(next)
	timer := time.NewTimer(next)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case r := <-l.done:
			l.finish(r)
			if others := l.collect(); others || r.action.Lane != reconcile.LaneRemove || !l.removing() {
				return true
			}
			if soon := time.Now().Add(l.opts.Rest); soon.Before(due) {
				due = soon
				timer.Reset(l.opts.Rest)
			}
		case name := <-l.waits:
			l.gaveUp(name)
			return true
		case r := <-l.reports:
			l.takeReport(r)
			l.collect()
			return true
		case r := <-l.volumes:
			l.finishVolumes(r)
			return true
		case <-wakes:
			return true
		case <-timer.C:
			return true
		}
	}
}

// removing says whether removals are under way, and none waits for one of them to end.
func (l *Loop) removing() bool {
	if l.crowded {
		return false
	}
	for _, j := range l.jobs {
		if j.action.Lane == reconcile.LaneRemove {
			return true
		}
	}
	return false
}

// collect takes what other workers have reported meanwhile, so that one pass
// serves them all. others says that something else than a removal is among it.
func (l *Loop) collect() (others bool) {
	for {
		select {
		case r := <-l.done:
			l.finish(r)
			others = others || r.action.Lane != reconcile.LaneRemove
		case name := <-l.waits:
			l.gaveUp(name)
			others = true
		case r := <-l.reports:
			l.takeReport(r)
			others = true
		default:
			return others
		}
	}
}

// lastMoment is how long operations have to end when they were told that the
// daemon does.
const lastMoment = 2 * time.Second

// drain lets operations under way finish that need no more than a moment, and has
// the others leave everything to the next daemon, as if this one had been killed.
func (l *Loop) drain(cancel context.CancelCauseFunc) error {
	for _, j := range l.jobs {
		if j.waits || j.action.Lane == reconcile.LaneStop {
			j.cancel(operation.ErrShutdown)
		}
	}
	l.cancelPulls()
	grace := time.NewTimer(l.opts.ShutdownGrace)
	defer grace.Stop()
	end := time.NewTimer(l.opts.ShutdownGrace + lastMoment)
	defer end.Stop()
	for len(l.jobs)+len(l.pulls) > 0 || l.declares {
		select {
		case r := <-l.done:
			l.finish(r)
		case r := <-l.reports:
			l.takeReport(r)
		case r := <-l.volumes:
			l.finishVolumes(r)
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
func (l *Loop) look(ctx context.Context) (reconcile.Input, reconcile.Plan, error) {
	l.pass++
	if l.opts.Lacks != nil {
		if now := l.opts.Lacks(); len(now)+len(l.progress.Lacks) > 0 && !reflect.DeepEqual(now, l.progress.Lacks) {
			l.progress.Lacks, l.news = now, true
		}
	}
	in, err := l.opts.View.Gather(ctx, l.progress, nil)
	if err != nil {
		return reconcile.Input{}, reconcile.Plan{}, err
	}
	if !maps.Equal(in.Led, l.progress.Led) {
		l.progress.Led, l.news = in.Led, true
	}
	in.Removals = l.recentRemovals(&in)
	return in, reconcile.Compute(in), nil
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
		l.quiet = l.quiet.Add(reconcile.LookAgain)
		return reconcile.LookAgain
	}
	l.news = false
	return l.opts.Resync
}

// recentRemovals drops what is too long ago to count, and gives the rest, the
// oldest first. One that failed before its record said that it had begun is left out:
// the sandbox is there, and counts as one that has vanished.
func (l *Loop) recentRemovals(in *reconcile.Input) []time.Time {
	if len(l.removals) == 0 {
		return nil
	}
	var out []time.Time
	vanished := in.Vanished()
	for name, at := range l.removals {
		if time.Since(at) >= reconcile.RemovalWindow {
			delete(l.removals, name)
			continue
		}
		if vanished[name] {
			continue
		}
		out = append(out, at)
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}
