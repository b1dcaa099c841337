// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/manifests"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/reconcile"
)

const (
	// startTimeout is how long a sandbox may take to start: an image may have to be fetched.
	startTimeout = 10 * time.Minute
	// removalTimeout is how long a client waits until its sandbox is gone.
	removalTimeout = 30 * time.Second
	// maxRemovalPause is the longest time between two tries to remove a sandbox.
	maxRemovalPause = time.Minute
	// atOnce is how many requests read or change the manifests at the same time: each reads all of
	// them.
	atOnce = 4
)

// sandboxes carries requests out.
type sandboxes struct {
	host  *world.Host
	store *actual.Store
	log   *slog.Logger
	self  process.Identity // this daemon, for which the sandboxes are made
	waits *waits
	turns chan struct{}
	// cleaning are those that remove what could not be removed while a client waited.
	cleaning sync.WaitGroup

	mu   sync.Mutex
	runs map[string]*run // by the name of the sandbox, until it is gone
}

// run is a sandbox of a client. Its name is nobody else's in this daemon until it is gone.
type run struct {
	uid    uint32
	cancel context.CancelCauseFunc
	gone   chan struct{}
	// seen is what was made, nil before it is ready. The name alone says nothing: it is taken before
	// anybody has looked whether there is a sandbox of somebody else.
	seen atomic.Pointer[oneoff.Incarnation]
}

// Options are what a Server is made of.
type Options struct {
	Path   string
	Host   *world.Host
	Store  *actual.Store
	Self   process.Identity
	Policy func() (*hostpolicy.Policy, error)
	Log    *slog.Logger
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	host := *o.Host
	host.Stdin, host.Stdout, host.Stderr = strings.NewReader(""), warnings{o.Log}, warnings{o.Log}
	b := &sandboxes{
		host: &host, store: o.Store, log: o.Log, self: o.Self, waits: newWaits(o.Self),
		turns: make(chan struct{}, atOnce), runs: map[string]*run{},
	}
	return newServer(o.Path, o.Policy, b, o.Log)
}

// warnings writes what verbs print into the log.
type warnings struct{ log *slog.Logger }

func (w warnings) Write(b []byte) (int, error) {
	w.log.Warn("for a client: " + strings.TrimSpace(string(b)))
	return len(b), nil
}

// Saw is told what each pass of the daemon has seen. A nil server needs to know nothing.
func (s *Server) Saw(in *reconcile.Input, plan *reconcile.Plan) {
	if s == nil {
		return
	}
	if p, ok := in.Desired.Policy.(*hostpolicy.Policy); ok && p != nil {
		s.apply(p)
	}
	if b, ok := s.work.(*sandboxes); ok {
		b.waits.saw(in, plan)
	}
}

// turn waits for one of the places of those who read or change the manifests.
func (b *sandboxes) turn(ctx context.Context) (end func(), err error) {
	select {
	case b.turns <- struct{}{}:
		return func() { <-b.turns }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// claim takes a name for a client.
func (b *sandboxes) claim(name string, r *run) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.runs[name] != nil {
		return refusef("there is a sandbox %s already, or one is being removed; give another name", name)
	}
	b.runs[name] = r
	b.waits.count(1)
	return nil
}

func (b *sandboxes) release(name string, r *run) {
	b.mu.Lock()
	delete(b.runs, name)
	b.mu.Unlock()
	b.waits.count(-1)
	close(r.gone)
}

// of are the sandboxes of clients that a peer may end: root all, others their own.
func (b *sandboxes) of(p *peer) map[string]*run {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := maps.Clone(b.runs)
	maps.DeleteFunc(own, func(_ string, r *run) bool { return !p.root() && r.uid != p.uid })
	return own
}

func noSuch(name string) error { return protocol.Failf(protocol.KindNotFound, "no sandbox %q", name) }

// list implements work.
func (b *sandboxes) list(ctx context.Context, p *peer, name string) ([]protocol.Status, error) {
	own := b.of(p)
	all := b.waits.seen() // costs nothing, however often somebody asks
	if p.root() {
		end, err := b.turn(ctx)
		if err != nil {
			return nil, err
		}
		defer end()
		w, err := b.host.Once(ctx)
		if err != nil {
			return nil, err
		}
		all = sightingsOf(w, b.self)
	}
	var out []protocol.Status
	for _, s := range all {
		if (name == "" || s.Name == name) && (p.root() || own[s.Name] != nil && s.madeFor(p.uid)) {
			out = append(out, s.Status)
		}
	}
	return out, nil
}

// remove implements work.
func (b *sandboxes) remove(ctx context.Context, p *peer, name string) error {
	r := b.of(p)[name]
	if r == nil {
		return noSuch(name)
	}
	r.cancel(&protocol.Error{Kind: protocol.KindEnded, Message: "the sandbox was removed while the command was running"})
	select {
	case <-r.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// command implements work.
func (b *sandboxes) command(ctx, life context.Context, p *peer, r *protocol.Request, a *answer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e := &execution{name: r.Name, request: r, began: time.Now(), cancel: cancel}
	if r.Op == protocol.OpExec {
		if !p.root() {
			own := b.of(p)[r.Name]
			if own == nil || own.seen.Load() == nil {
				return noSuch(r.Name)
			}
			e.seen = own.seen.Load()
		}
		return explain(ctx, b.execute(ctx, e, a))
	}
	e.name = cmp.Or(r.Name, userPrefix+actual.NewUID()[:12])
	mine := &run{uid: p.uid, cancel: cancel, gone: make(chan struct{})}
	if err := b.claim(e.name, mine); err != nil {
		return err
	}
	ready := &oneoff.Run{Name: e.name, Caller: b.self}
	w := b.waits.begin(e.name, sinceSeen(p.orImage(ready.Ready)))
	defer b.waits.end(w)
	made, err := b.make(ctx, e.name, p, r)
	if err == nil {
		err = b.started(ctx, e, w)
	}
	if err == nil {
		e.seen = &ready.Seen
		mine.seen.Store(e.seen)
		err = b.execute(ctx, e, a)
	}
	if err = explain(ctx, err); err != nil {
		a.fail(err) // and then the sandbox is removed
	}
	if !made {
		b.release(e.name, mine)
		return err
	}
	b.clean(life, e.name, mine)
	return err
}

// explain says why something has ended that was cancelled.
func explain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// make writes the manifest of a sandbox. made is false if there is none for sure.
func (b *sandboxes) make(ctx context.Context, name string, p *peer, r *protocol.Request) (made bool, err error) {
	s := r.Sandbox
	o := &oneoff.Options{
		Name: name, Image: s.Image, PullPolicy: p.pull, Root: s.RootDir, Memory: s.Memory, CPU: s.CPU, Timeout: r.Timeout,
		Volumes: s.Volumes, Network: s.Network, Egress: s.Egress, Labels: s.Labels,
	}
	text, err := o.ManifestFor(b.self, &oneoff.Client{PID: p.pid, UID: p.uid})
	if err != nil {
		return false, refusef("%v", err)
	}
	end, err := b.turn(ctx)
	if err != nil {
		return false, err
	}
	defer end()
	err = manifests.Put(ctx, b.host, text)
	if _, refused := errors.AsType[*manifests.RefusedError](err); refused {
		return false, refusef("%v", err)
	}
	if err == nil {
		b.log.Info("a client has a sandbox", "sandbox", name, "uid", p.uid, "pid", p.pid)
	}
	return true, err
}

// started waits until a sandbox has started.
func (b *sandboxes) started(ctx context.Context, e *execution, w *wait) error {
	patience, late := startTimeout, protocol.Failf(protocol.KindStart, "the sandbox was not started within %s", startTimeout)
	if left, bounded := e.remaining(); bounded && left < patience {
		patience, late = left, e.timedOut()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, late)
	defer cancel()
	err := b.waits.until(ctx, w)
	if _, typed := errors.AsType[*protocol.Error](err); typed || err == nil || ctx.Err() != nil {
		return err
	}
	return protocol.Failf(protocol.KindStart, "the sandbox is not started: %v", err)
}

// orImage is a goal that says what to do where the store has no image and this user has none fetched.
func (p *peer) orImage(goal await.Goal) await.Goal {
	return func(w *world.World, name string, s *reconcile.Status) (bool, error) {
		done, err := goal(w, name, s)
		if err != nil && p.pull == imageref.PullNever && slices.ContainsFunc(w.Plan.Delayed, func(d reconcile.Delayed) bool {
			return d.Name == name && d.Reason == actual.ReasonImageNotFound
		}) {
			err = fmt.Errorf("%w; for clients only images that clients.images of the host policy names are fetched: have the administrator pull it, or add it there", err)
		}
		return done, err
	}
}

// clean removes a sandbox. It returns when that is gone or can't be removed yet; then it is tried
// again until the daemon ends. The next one finds that the caller of the sandbox is gone.
func (b *sandboxes) clean(life context.Context, name string, r *run) {
	tried := make(chan struct{})
	b.cleaning.Go(func() {
		defer b.release(name, r)
		told := sync.OnceFunc(func() { close(tried) })
		for pause := time.Second; !b.tryRemove(life, name); pause = min(2*pause, maxRemovalPause) {
			told()
			select {
			case <-life.Done():
				return
			case <-time.After(pause):
			}
		}
	})
	select {
	case <-r.gone:
	case <-tried:
	}
}

// tryRemove removes a sandbox, and waits until it is gone. When the daemon ends nobody is there who
// would see that: then it is enough that the manifest is.
func (b *sandboxes) tryRemove(life context.Context, name string) (done bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(life), removalTimeout)
	defer cancel()
	w := b.waits.begin(name, b.isGone)
	defer b.waits.end(w)
	removed, err := b.order(ctx, name)
	switch {
	case err != nil:
		b.log.Warn("a sandbox of a client is not removed yet", "sandbox", name, "err", err)
		return false
	case !removed:
		// Somebody else has removed the manifest, or there never was one: no pass may come.
		return b.looksGone(ctx, name)
	}
	defer context.AfterFunc(life, cancel)()
	if err := b.waits.until(ctx, w); err == nil || life.Err() != nil {
		return true
	}
	b.log.Warn("a sandbox of a client is not gone yet", "sandbox", name)
	return false
}

// order has a sandbox removed.
func (b *sandboxes) order(ctx context.Context, name string) (removed bool, err error) {
	end, err := b.turn(ctx)
	if err != nil {
		return false, err
	}
	defer end()
	return manifests.Remove(ctx, b.host, name, b.self)
}

func (b *sandboxes) looksGone(ctx context.Context, name string) bool {
	end, err := b.turn(ctx)
	if err != nil {
		return false
	}
	defer end()
	w, err := b.host.SettledUnjudged(ctx)
	if err != nil {
		b.log.Warn("a sandbox of a client is not removed yet", "sandbox", name, "err", err)
		return false
	}
	gone, err := b.isGone(w, name, w.Status(name))
	return gone && err == nil
}

// isGone is the goal that a sandbox of a client is gone. One that has another manifest by now is
// somebody else's, and not waited for.
func (b *sandboxes) isGone(w *world.World, name string, s *reconcile.Status) (bool, error) {
	if oneoff.For(w.In.Desired.Lookup(name), b.self) {
		return false, nil // this pass has begun before the removal
	}
	return oneoff.GoneOrTaken(w, name, s)
}

// settle implements work.
func (b *sandboxes) settle() { b.cleaning.Wait() }
