// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/desired"
)

// errDead is what a program gets that is dead: it does nothing more.
var errDead = errors.New("the program died")

// class is what kind of fault a call can have.
type class int

const (
	harmless class = iota
	reads          // EIO, EMFILE
	writes         // EIO
	syncs          // EIO: what is on disk is not known
	forks          // EAGAIN
	looks          // EMFILE: of a process nothing is known
	talks          // a control call gets no answer
)

// cut is a crash that waits for a call.
type cut int

const (
	noCut     cut = iota
	cutBefore     // the call is not made
	cutHalf       // a write is made in half
	cutAfter      // its result is not seen
)

// program is a process of ours: a daemon, or a command of the user.
type program struct {
	name     string
	dead     bool
	cancel   context.CancelFunc
	done     chan struct{}
	changes  chan struct{}
	observer *observer // of a daemon
	main     *task     // that goes on when no other does
	err      error
}

func (p *program) wake() {
	select {
	case p.changes <- struct{}{}:
	default:
	}
}

// task is one thread of a program. It runs only when it is told to.
type task struct {
	p    *program
	name string
	// sandbox is what an operation is about.
	sandbox string
	// loop says that it is the loop's own thread: while it waits in the middle of
	// a pass, the workers wait too, so that not two results are there at once
	// and Go's select decides by chance.
	loop bool
	turn chan struct{}
	// What it waits for, nil if it can go on.
	cond     func() bool
	deadline time.Time
	// failed says that a call of it had an injected fault.
	failed bool
}

func (t *task) ready() bool {
	return t.cond == nil || t.cond() || (!t.deadline.IsZero() && !time.Now().Before(t.deadline))
}

// stats are what a run has been through.
type stats struct {
	Steps, Calls, Events, Episodes, Passes            int
	Crashes, DoubleCrashes, PowerCuts, Reboots, Stops int
	Lost, Faults, PIDReuses, Spawns, Kills            int
	Creates, Destroys, Forgets, Acks, Quarantined     int
	Deadlines, Retires                                int
	Resumes, Removes                                  int
	Pulls, PullFailures, PullsCancelled               int
	Refreshes                                         int
}

func (s *stats) add(o *stats) {
	s.Steps += o.Steps
	s.Calls += o.Calls
	s.Events += o.Events
	s.Episodes += o.Episodes
	s.Passes += o.Passes
	s.Crashes += o.Crashes
	s.DoubleCrashes += o.DoubleCrashes
	s.PowerCuts += o.PowerCuts
	s.Reboots += o.Reboots
	s.Stops += o.Stops
	s.Lost += o.Lost
	s.Faults += o.Faults
	s.PIDReuses += o.PIDReuses
	s.Spawns += o.Spawns
	s.Kills += o.Kills
	s.Creates += o.Creates
	s.Destroys += o.Destroys
	s.Forgets += o.Forgets
	s.Acks += o.Acks
	s.Quarantined += o.Quarantined
	s.Resumes += o.Resumes
	s.Removes += o.Removes
	s.Pulls += o.Pulls
	s.PullFailures += o.PullFailures
	s.PullsCancelled += o.PullsCancelled
	s.Refreshes += o.Refreshes
	s.Deadlines += o.Deadlines
	s.Retires += o.Retires
}

// host is everything that is there without the daemon.
type host struct {
	rng    *rand.Rand
	mutant string
	disk   *disk
	state  *inode // STATE
	// manifests is the author's directory; mounted is what is in its place,
	// nil if nothing is.
	manifests, mounted *inode

	procs    map[int]*proc
	used     map[int]bool
	lastFree int
	freedAt  int // step
	inode    uint64
	bootN    int
	boot     string
	booted   time.Time
	cgroups  map[string]map[*proc]bool
	v2       bool          // cgroup2: born into it, killed with it
	groups   bool          // there are cgroups for sandboxes
	lazyInit bool          // pid 1 does not reap
	skew     time.Duration // of the sentries' clocks

	daemon             *program
	clis               []*program
	cliN               int
	mu                 sync.Mutex // of parked, current
	current            *task      // that is running
	fences             int
	woken              bool // the daemon is to be told that something has changed
	parked             []*task
	uids               int
	lastDeath, downFor int

	// Faults that wait for a call.
	cut      cut
	cutPower bool
	cutIn    int // calls from now
	failing  map[class]int
	fullFor  int // steps until there is room again

	images  images
	content int // of inputFile
	check   checker
	exits   map[exitKey]bool
	backups map[string]*backup // records that somebody damaged
	writes  int                // calls that changed something, for churn
	wakeAt  time.Time          // when the source wants to be looked at again
	stats   stats
	failure error
	trace   []string
	tracing bool

	later       []func() // the rest of what an editor does
	scratch     []func()
	procScratch []*proc
	parkScratch []*task
}

// backup is the record that was there before it was damaged.
type backup struct {
	file *inode
	data []byte
	rec  *actual.Record
}

func newHost(seed uint64, mutant string) *host {
	h := &host{
		rng: rand.New(rand.NewPCG(seed, 0x5eed)), mutant: mutant, disk: newDisk(), procs: map[int]*proc{}, used: map[int]bool{},
		cgroups: map[string]map[*proc]bool{}, failing: map[class]int{}, exits: map[exitKey]bool{}, backups: map[string]*backup{}, images: newImages(),
	}
	h.groups, h.v2, h.lazyInit = h.rng.IntN(3) > 0, h.rng.IntN(2) == 0, h.rng.IntN(4) == 0
	h.state, h.manifests = h.disk.make(true), h.disk.make(true)
	for name, n := range map[string]*inode{"state": h.state, "manifests": h.manifests} {
		h.disk.root.names[name], h.disk.root.diskNames[name] = n, n
	}
	h.mounted = h.manifests
	h.newBoot()
	h.check.init(h)
	return h
}

func (h *host) newBoot() {
	h.bootN++
	h.boot, h.booted, h.inode = fmt.Sprintf("boot-%d", h.bootN), time.Now(), 1000
	h.lastFree = 0
	clear(h.used)
}

func (h *host) breach(format string, args ...any) {
	if h.failure == nil {
		h.failure = fmt.Errorf("step %d: "+format, append([]any{h.stats.Steps}, args...)...)
	}
}

func (h *host) note(format string, args ...any) {
	if h.tracing {
		h.trace = append(h.trace, fmt.Sprintf("%6d %s", h.stats.Steps, fmt.Sprintf(format, args...)))
	}
}

func (h *host) is(mutant string) bool { return h.mutant == mutant }

// park waits for the task's turn, and for cond.
func (h *host) park(t *task, cond func() bool, deadline time.Time) {
	t.cond, t.deadline = cond, deadline
	h.mu.Lock()
	h.parked = append(h.parked, t)
	h.mu.Unlock()
	<-t.turn
	h.runs(t)
}

// runs says whose calls are made from now on: one thread runs at a time.
func (h *host) runs(t *task) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current = t
}

// running is the thread that makes a call.
func (h *host) running() *task {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current
}

// settle waits until every thread waits. The one that goes on by itself, since a
// timer has ended or something has changed, is the daemon's loop.
func (h *host) settle() {
	synctest.Wait()
	if h.daemon != nil {
		h.runs(h.daemon.main)
	}
}

// runnable are the tasks that can go on, by name.
func (h *host) runnable() []*task {
	out := h.parkScratch[:0]
	pass := h.inPass()
	for _, t := range h.parked {
		if t.p.dead || t.ready() && (t.p != h.daemon || !pass || t.loop) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *task) int { return strings.Compare(a.name, b.name) })
	h.parkScratch = out
	return out
}

// inPass says whether the loop is in the middle of a pass.
func (h *host) inPass() bool {
	return slices.ContainsFunc(h.parked, func(t *task) bool { return t.loop && t.p == h.daemon })
}

// fence orders, for the race detector, what was done before with what the loop
// does when a timer wakes it: no channel of ours says so.
func (h *host) fence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fences++
}

// between says whether the daemon is between two passes: told to end elsewhere,
// its loop would choose by chance whether to make one more.
func (h *host) between() bool { return !h.daemon.dead && h.daemon.observer != nil && !h.inPass() }

func (h *host) resume(t *task) {
	h.parked = slices.DeleteFunc(h.parked, func(x *task) bool { return x == t })
	t.turn <- struct{}{}
}

// call makes one call of a program: a step, at which it may be told to wait,
// fail or die. f is given whether only half of it is to happen.
func (h *host) call(t *task, c class, what string, f func(half bool) error) error {
	if t.p.dead {
		return errDead
	}
	if !t.loop || h.rng.IntN(12) == 0 {
		h.park(t, nil, time.Time{})
	}
	if t.p.dead {
		return errDead
	}
	h.stats.Steps++
	h.stats.Calls++
	if h.cut != noCut {
		if h.cutIn--; h.cutIn < 0 {
			return h.cutShort(t, what, f)
		}
	}
	if err := h.fault(c); err != nil {
		t.failed = true
		h.stats.Faults++
		h.note("%s: %s: %v", t.name, what, err)
		if c == writes || c == syncs {
			_ = f(true) // it fails, and some of it may have happened
		}
		return err
	}
	err := f(false)
	if err != nil && c != reads {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EAGAIN) {
			t.failed = true
			h.stats.Faults++
		}
		h.note("%s: %s: %v", t.name, what, err)
	} else if c != reads && c != looks {
		h.note("%s: %s", t.name, what)
	}
	if c == writes || c == syncs || c == forks {
		h.writes++
	}
	return err
}

func (h *host) cutShort(t *task, what string, f func(bool) error) error {
	k := h.cut
	h.cut = noCut
	if k == cutAfter {
		_ = f(false)
	}
	if k == cutHalf {
		_ = f(true)
	}
	h.note("%s: %s: cut short (%d)", t.name, what, k)
	if h.cutPower {
		h.powerCut()
	} else {
		h.crash(t.p)
	}
	return errDead
}

// fault is the error that a call of a class is to have now.
func (h *host) fault(c class) error {
	n := h.failing[c]
	if n == 0 {
		return nil
	}
	h.failing[c] = n - 1
	if h.rng.IntN(2) == 0 {
		return nil
	}
	switch c {
	case forks:
		return unix.EAGAIN
	case looks:
		return unix.EMFILE
	case reads:
		if h.rng.IntN(2) == 0 {
			return unix.EMFILE
		}
	case harmless, writes, syncs, talks:
	}
	return unix.EIO
}

// crash kills a program.
func (h *host) crash(p *program) {
	if p.dead {
		return
	}
	if p == h.daemon {
		h.stats.Crashes++
		if h.stats.Steps-h.lastDeath < 60 {
			h.stats.DoubleCrashes++
		}
		h.lastDeath = h.stats.Steps
	}
	h.exit(p)
}

// exit ends a program. What it alone held ends with it.
func (h *host) exit(p *program) {
	if p.dead {
		return
	}
	p.dead = true
	p.cancel()
	for n := 2; n < 2+pids; n++ {
		q := h.procs[n]
		if q == nil {
			continue
		}
		if q.holder == p && q.gate == gateShut && !h.is("gate-without-eof") {
			q.gate = gateEOF
		}
	}
	h.note("%s is dead", p.name)
}

// now is what the clocks say.
func (h *host) now() moment.Moment {
	return moment.Moment{Wall: time.Now(), Boot: h.sinceBoot(), BootID: h.boot}
}

// startTime is what goes on record of a start.
func (h *host) startTime() moment.Moment {
	if h.is("started-earlier") {
		return h.now().Minus(activeDeadline / 2)
	}
	return h.now()
}

func (h *host) sinceBoot() time.Duration { return time.Since(h.booted) }

// powerCut ends everything; what was not synced is lost. Another boot begins.
func (h *host) powerCut() {
	h.stats.PowerCuts++
	h.endBoot()
	h.stats.Lost += h.disk.powerCut(h.rng)
	// Inodes survive, if their names do.
	root := h.disk.root.names
	h.state, h.manifests = root["state"], root["manifests"]
	h.mounted = h.manifests
	for name, b := range h.backups {
		if d := h.sandboxes()[name]; d == nil || d.names["meta.json"] != b.file {
			delete(h.backups, name) // the one of before is there again
		}
	}
	h.check.afterPowerCut(h)
}

// reboot ends everything in good order: nothing is lost.
func (h *host) reboot() {
	h.stats.Reboots++
	h.endBoot()
	h.disk.settle()
	h.mounted = h.manifests
}

// settle puts everything on disk.
func (d *disk) settle() {
	for _, op := range d.pending {
		op.apply()
	}
	d.pending = nil
	var walk func(n *inode)
	walk = func(n *inode) {
		n.disk, n.dirty = n.data, false
		for _, c := range n.names {
			walk(c)
		}
	}
	walk(d.root)
}

func (h *host) endBoot() {
	for _, p := range append(slices.Clone(h.clis), h.daemon) {
		if p != nil {
			h.crash(p)
		}
	}
	for n, p := range h.procs {
		p.dead, p.reaped = true, true
		delete(h.procs, n)
	}
	clear(h.cgroups)
	h.newBoot()
	h.note("boot %s", h.boot)
}

// newTask makes a thread of a program.
func newTask(p *program, name string) *task {
	return &task{p: p, name: p.name + " " + name, turn: make(chan struct{})}
}

// wait blocks a task until cond, the deadline or the end of ctx; it says whether
// cond is true.
func (h *host) wait(ctx context.Context, t *task, timeout time.Duration, cond func() bool) bool {
	h.park(t, func() bool { return cond() || ctx.Err() != nil }, time.Now().Add(timeout))
	return !t.p.dead && cond()
}

func (h *host) newUID() string {
	h.uids++
	return fmt.Sprintf("%032x", h.uids)
}

// Calls on files. Each is one step.

func (h *host) mkdir(t *task, dir *inode, name string) error {
	return h.call(t, writes, "mkdir "+shown(name), func(half bool) error {
		if half && h.rng.IntN(2) == 0 {
			return nil
		}
		return h.disk.mkdir(dir, name)
	})
}

func (h *host) create(t *task, dir *inode, name string, excl, trunc bool) (n *inode, err error) {
	err = h.call(t, writes, "create "+shown(name), func(half bool) (err error) {
		if half && h.rng.IntN(2) == 0 {
			return nil
		}
		n, err = h.disk.create(dir, name, excl, trunc)
		return err
	})
	return n, err
}

func (h *host) write(t *task, n *inode, b []byte) error {
	return h.call(t, writes, "write", func(half bool) error { return h.disk.write(n, b, half) })
}

func (h *host) fsync(t *task, n *inode, what string) error {
	return h.call(t, syncs, "fsync "+what, func(half bool) error {
		if !half || h.rng.IntN(2) == 0 {
			h.disk.fsync(n)
		}
		return nil
	})
}

func (h *host) rename(t *task, from *inode, old string, to *inode, name string) error {
	return h.call(t, writes, "rename "+shown(old)+" to "+shown(name), func(half bool) error {
		switch {
		case half && h.rng.IntN(2) == 0:
			return nil
		case h.disk.full && h.rng.IntN(4) == 0:
			return unix.ENOSPC // the directory grows
		}
		return h.disk.rename(from, old, to, name)
	})
}

func (h *host) unlink(t *task, dir *inode, name string) error {
	return h.call(t, writes, "unlink "+shown(name), func(half bool) error {
		if half && h.rng.IntN(2) == 0 {
			return nil
		}
		return h.disk.unlink(dir, name)
	})
}

func (h *host) lookup(d *inode, name string) (*inode, error) {
	return (&dir{h: h, n: d}).lookup("open ", name)
}

// entries are the names of the sandboxes' directories, for checks.
func (h *host) sandboxes() map[string]*inode {
	if d := h.state.names["sandboxes"]; d != nil {
		return d.names
	}
	return nil
}

// onRecord is the record of a name as it can be read now, or was before
// somebody damaged it.
func (h *host) onRecord(name string) *actual.Record {
	d := h.sandboxes()[name]
	if d == nil {
		return nil
	}
	f := d.names["meta.json"]
	if f == nil {
		return nil
	}
	rec, err := f.record()
	if err != nil {
		if b := h.backups[name]; b != nil {
			return b.rec
		}
		return nil
	}
	return rec
}

// decoded manifests, by text: they are values, shared by all hosts.
var manifestTexts sync.Map

type manifestText struct {
	entries  []desired.Entry
	problems []desired.Problem
}

func decodeManifest(file string, b []byte) *manifestText {
	key := file + "\x00" + string(b)
	if m, ok := manifestTexts.Load(key); ok {
		return m.(*manifestText)
	}
	m := &manifestText{}
	docs, problems := desired.Decode(file, b)
	m.problems = problems
	for _, d := range docs {
		if d.Sandbox != nil {
			m.entries = append(m.entries, desired.Entry{Sandbox: d.Sandbox, Hash: desired.Hash(d.Sandbox), Source: d.Position})
		}
	}
	now, _ := manifestTexts.LoadOrStore(key, m)
	return now.(*manifestText)
}
