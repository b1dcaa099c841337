// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/hostmem"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/warm/reserved"
)

const (
	// quiet is how long there must have been no start before a process is made that waits:
	// starts come in bursts, and each has the whole machine.
	quiet = 500 * time.Millisecond
	// settling is how long after its own start a daemon makes none: the host may be booting,
	// sandboxes are to be started, and a daemon with `--once` ends sooner.
	settling = 2 * time.Second
	// retry is how long it takes until that is tried again after an error, and twice as long
	// after each one more in a row, up to maxRetry.
	retry    = time.Minute
	maxRetry = time.Hour
	// prepareTimeout bounds the preparation, which others keep from the processor.
	prepareTimeout = time.Minute
)

// Options of a Pool.
type Options struct {
	Store         *actual.Store
	Cgroups       *cgroup.Host
	Sentry, Gofer *companion.Program
	// Policy returns the host policy of now, which says how many processes wait.
	Policy func() (*hostpolicy.Policy, error)
	// KillTimeout bounds the time that a process may take to die from SIGKILL.
	KillTimeout time.Duration
	Log         *slog.Logger
}

// Key is what waiting processes were started with. Those of another one are never used.
type Key struct {
	Sentry, Gofer companion.ID
	// Policy is the digest of the host policy.
	Policy string
}

// KeyOf is the key of programs that were opened and a policy.
func KeyOf(sentry, gofer *os.File, policy *hostpolicy.Policy) (k Key, err error) {
	k.Policy = policy.Digest()
	if k.Sentry, err = companion.IDOf(sentry); err == nil {
		k.Gofer, err = companion.IDOf(gofer)
	}
	return k, err
}

// slot is a sentry and a gofer that wait.
type slot struct {
	key Key
	*pair.Waiting
}

// Pool are the processes that wait. A nil pool has none.
type Pool struct {
	// OnCold is told of a claim of a SandboxPool that gets no place that is ready, if set.
	OnCold func(sandbox, pool, why string)

	opts   Options
	began  time.Time
	wakes  chan struct{}
	hasten func()        // see cgroup.Host.Hasten
	group  *cgroup.Group // of processes that wait; of the goroutine of Run
	noted  []process.Identity
	// available is how many bytes of memory the host could give.
	available func() (uint64, error)
	// unusable and unreadable are what was said last of programs and policy, and of the memory.
	unusable, unreadable string
	// tries is how it went to make processes wait, without a kernel and with one: that a kernel
	// can't be booted keeps nobody from what waits without.
	tries [2]tries
	// reserved says which pairs are kept for claims, and notedReady what is on record of that.
	reserved   reserved.Book
	notedReady map[string]int

	mu       sync.Mutex
	slots    []slot
	starting int       // starts under way
	ended    time.Time // when there was one last
	lacking  lacks     // why none is made
}

// New returns a pool, which is empty until Run fills it.
func New(opts Options) *Pool {
	return &Pool{opts: opts, began: time.Now(), wakes: make(chan struct{}, 1), hasten: opts.Cgroups.Hasten, available: hostmem.Available}
}

// Wake has the pool look whether its processes are still those that are wanted. It returns
// at once.
func (p *Pool) Wake() {
	if p == nil {
		return
	}
	select {
	case p.wakes <- struct{}{}:
	default:
	}
}

// Starting says that a start is under way, until the returned function is called. No process
// is made meanwhile. A start that waits for its turn waits for others, so that none is made
// while one does.
func (p *Pool) Starting() (ended func()) {
	if p == nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.starting--
		p.ended = time.Now()
		p.Wake()
	}
}

// Expect says that a start of this set-up comes to Claim soon. If it can take processes, and
// there are some, the kernel is told to get ready for the move of them. Nothing is done for
// any other start.
func (p *Pool) Expect(policy *hostpolicy.Policy, st *setup.Setup) {
	if p.askedBy(policy) == (count{}) {
		return
	}
	if Choose(p.facts(nil, "", policy, st)).Way != actual.WayCold {
		p.hasten()
	}
}

// Take returns processes that wait, with a warm sentry or without, nil if there are none with
// the key. They are the caller's: nobody else is given them.
func (p *Pool) Take(key Key, warm bool) *pair.Waiting {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, s := range p.slots {
		if s.key == key && (s.Warm != nil) == warm && s.Whole() {
			p.slots = slices.Delete(p.slots, i, i+1)
			return s.Waiting
		}
	}
	return nil
}

// Return takes back what a start was given. What it has used is not in it any more; what is
// left waits again if it is whole.
func (p *Pool) Return(key Key, w *pair.Waiting) error {
	if w == nil {
		return nil
	}
	if !w.Whole() {
		return w.Abandon()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots = append(p.slots, slot{key, w})
	return nil
}

// Sweep ends what a daemon before has left waiting, and removes its group. It is for who holds
// the lock of the state directory, before Run.
func (p *Pool) Sweep(ctx context.Context) error {
	group, err := p.opts.Cgroups.OpenOwn(groupName(p.opts.Store.Marker()))
	if err != nil {
		return err
	}
	defer group.Close()
	// A daemon that died before it had written them down may have left some that are stopped.
	err = endMembers(ctx, group, p.opts.Store.Marker(), p.opts.KillTimeout)
	if err == nil {
		err = sweep(ctx, p.opts.Store.RootDir(), p.opts.Store.Marker(), p.opts.KillTimeout)
	}
	if err == nil {
		err = pair.SweepWarm(p.opts.Store.RootDir())
	}
	if err != nil {
		return fmt.Errorf("end what a daemon before has left waiting: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.KillTimeout)
	defer cancel()
	return group.Remove(ctx)
}

// Run keeps as many processes waiting as the policy says, until the context ends. Then none
// is left.
func (p *Pool) Run(ctx context.Context) (err error) {
	if err := p.Sweep(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close(ctx)) }()
	watch, unwatch := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); p.watchMemory(watch) }()
	defer func() { unwatch(); <-watched }()
	p.mu.Lock()
	p.ended = time.Now() // what is to run when the daemon starts comes first
	p.mu.Unlock()
	for {
		again := p.keep(ctx)
		var timer *time.Timer
		var due <-chan time.Time
		if again > 0 {
			timer = time.NewTimer(again)
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-p.wakes:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// keep ends what is not wanted, also while a start is under way, which may take long and need the
// memory, and makes what is missing. It returns when it is to be called again, 0 if only a wake is
// a reason to.
func (p *Pool) keep(ctx context.Context) time.Duration {
	for ctx.Err() == nil {
		sentry, gofer, key, want, err := p.wanted(ctx)
		p.unusable = p.complain(p.unusable, err)
		most, keep, lack := maxKept, maxKept, ""
		if want != (count{}) {
			most, keep, lack = p.room()
		}
		if spent := p.reserved.Spent(); spent > 0 {
			p.shed(key, count{max(p.kept(&key).Waiting-spent, 0), want.warm}.within(keep)) // what is missing then is made again
		}
		p.shed(key, want.within(keep))
		room := want.within(most)
		wait, more, warm := p.missing(room)
		p.lacks(want, room, lack)
		if more {
			p.tell(ctx, warm, p.add(ctx, sentry, gofer, key, warm))
		}
		if sentry != nil {
			_ = errors.Join(sentry.Close(), gofer.Close()) // nothing was written
		}
		if !more {
			return wait
		}
	}
	return 0
}

// tell logs that no process could be made to wait, the first time of several in a row.
func (p *Pool) tell(ctx context.Context, warm bool, err error) {
	t := p.triesOf(warm)
	if err == nil {
		t.failures = 0
		return
	}
	t.failed = time.Now()
	t.failures++
	if t.failures == 1 && ctx.Err() == nil {
		p.opts.Log.Warn("no process could be made to wait for a sandbox; starts take longer", "err", err)
	}
}

// wanted is how many processes are to wait, and what they are started from. The files are the
// caller's, nil if none is wanted.
func (p *Pool) wanted(ctx context.Context) (sentry, gofer *os.File, key Key, want count, err error) {
	policy, err := p.opts.Policy()
	if err != nil {
		return nil, nil, Key{}, count{}, err
	}
	if want = p.wantedBy(policy); want == (count{}) {
		return nil, nil, Key{}, count{}, nil
	}
	var version, goferVersion string
	if sentry, version, err = p.opts.Sentry.Open(ctx); err != nil {
		return nil, nil, Key{}, count{}, err
	}
	if gofer, goferVersion, err = p.opts.Gofer.Open(ctx); err != nil {
		return nil, nil, Key{}, count{}, errors.Join(err, sentry.Close())
	}
	if err = companion.SameGVisor(version, goferVersion); err == nil {
		key, err = KeyOf(sentry, gofer, policy)
	}
	if err != nil {
		return nil, nil, Key{}, count{}, errors.Join(err, sentry.Close(), gofer.Close())
	}
	return sentry, gofer, key, want, nil
}

// shed ends processes that have ended, are of another key, or are too many.
func (p *Pool) shed(key Key, want count) {
	p.mu.Lock()
	var old []slot
	p.slots = slices.DeleteFunc(p.slots, func(s slot) bool {
		left := &want.pairs
		if s.Warm != nil {
			left = &want.warm
		}
		if s.key == key && s.Whole() && *left > 0 {
			*left--
			return false
		}
		old = append(old, s)
		return true
	})
	p.mu.Unlock()
	for _, s := range old {
		if err := s.Abandon(); err != nil {
			p.opts.Log.Warn("a process that waited was not ended", "err", err)
		}
	}
	if err := p.note(nil); err != nil {
		p.opts.Log.Warn("processes that wait are not on record", "err", err)
	}
}

// missing says whether a process is to be made now, with a warm sentry or without, and when to
// look again if not. Those without come first: they are made sooner, and more starts take them.
func (p *Pool) missing(want count) (wait time.Duration, now, warm bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.slots {
		if s.Warm != nil {
			want.warm--
		} else {
			want.pairs--
		}
	}
	if p.starting > 0 {
		return 0, false, false
	}
	for _, kind := range []struct {
		warm bool
		n    int
	}{{false, want.pairs}, {true, want.warm}} {
		if kind.n <= 0 {
			continue
		}
		t := p.triesOf(kind.warm)
		left := max(0, time.Until(p.began.Add(settling)), time.Until(p.ended.Add(quiet)), time.Until(t.failed.Add(backoff(t.failures))))
		if left == 0 {
			return 0, true, kind.warm
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return wait, false, false
}

// note writes down which processes wait, with more of them. The record has each before it is
// offered, and as long as a start may have it that is not on record yet.
func (p *Pool) note(more *pair.Waiting) error {
	var ids []process.Identity
	p.mu.Lock()
	for _, s := range p.slots {
		ids = append(ids, s.Identities()...)
	}
	starting := p.starting > 0
	p.mu.Unlock()
	for _, id := range p.noted {
		if is, _ := process.LivenessOf(&id); starting && is == process.Alive && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if more != nil {
		ids = append(ids, more.Identities()...)
	}
	ready := p.reserved.Ready(p.kept(nil).Waiting)
	if slices.Equal(ids, p.noted) && maps.Equal(ready, p.notedReady) {
		return nil
	}
	if err := write(p.opts.Store.RootDir(), ids, ready); err != nil {
		return fmt.Errorf("write down which processes wait: %w", err)
	}
	p.noted, p.notedReady = ids, ready
	return nil
}

// add makes a sentry and a gofer that wait; warm has the sentry boot a kernel.
func (p *Pool) add(ctx context.Context, sentry, gofer *os.File, key Key, warm bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, prepareTimeout, fmt.Errorf("not prepared after %s", prepareTimeout))
	defer cancel()
	fd, err := p.cloneFD()
	if err != nil {
		return err
	}
	w, err := pair.StartWaiting(&pair.WaitingLaunch{Sentry: sentry, Gofer: gofer, State: p.opts.Store.Marker(), CgroupFD: fd})
	if err != nil {
		return err
	}
	if err = p.note(w); err == nil {
		err = p.join(w)
	}
	if err == nil {
		err = w.Prepare(ctx)
	}
	if err == nil && warm {
		err = p.warmUp(ctx, w)
	}
	if err != nil {
		return errors.Join(err, w.Abandon(), p.note(nil))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots = append(p.slots, slot{key, w})
	return nil
}

// warmUp has the sentry boot a kernel.
func (p *Pool) warmUp(ctx context.Context, w *pair.Waiting) error {
	policy, err := p.opts.Policy()
	if err != nil {
		return err
	}
	err = w.WarmUp(ctx, &pair.WarmLaunch{Root: p.opts.Store.RootDir(), State: p.opts.Store.Marker(), Defaults: defaults(policy)})
	if err != nil {
		return fmt.Errorf("boot a kernel ahead: %w", err)
	}
	return nil
}

// groupName is the name of the group of processes that wait. It is none of a sandbox, and
// each state directory has another one.
func groupName(state string) string {
	sum := sha256.Sum256([]byte(state))
	return "waiting." + hex.EncodeToString(sum[:8])
}

// cloneFD makes the group, unless it is there. It has no limits: how many processes are in it
// is bounded, and they do nothing.
func (p *Pool) cloneFD() (int, error) {
	if p.group == nil {
		group, _, err := p.opts.Cgroups.Create(groupName(p.opts.Store.Marker()), cgroup.Limits{}, cgroup.Limits{})
		if err != nil {
			return -1, fmt.Errorf("create cgroup: %w", err)
		}
		p.group = group
	}
	if fd, ok := p.group.CloneFD(); ok {
		return fd, nil
	}
	return -1, nil
}

// join puts both into their group.
func (p *Pool) join(w *pair.Waiting) error {
	add := func(pid int, in bool) error {
		if in {
			return p.group.AddStarted(pid)
		}
		return p.group.Add(pid)
	}
	if err := errors.Join(add(w.Sentry.PID, w.Sentry.InGroup), add(w.Gofer.PID, w.Gofer.InGroup)); err != nil {
		return fmt.Errorf("join cgroup: %w", err)
	}
	return nil
}

// close ends everything that waits.
func (p *Pool) close(ctx context.Context) error {
	p.shed(Key{}, count{})
	if p.group == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.opts.KillTimeout)
	defer cancel()
	err := errors.Join(p.group.Remove(ctx), p.group.Close())
	p.group = nil
	return err
}
