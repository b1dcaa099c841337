// SPDX-License-Identifier: Apache-2.0

// Package reconciletest is a host that is not one, for tests of whatever uses
// reconcile: a launcher, an observer and a source over memory, where processes
// die, hosts reboot and daemons crash on demand. The World polices the contract
// of reconcile.Launcher and remembers every breach of it.
package reconciletest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
)

// World is a host. Its zero value is not ready; use New.
type World struct {
	mu          sync.Mutex
	want        map[string]*desired.Entry
	complete    bool
	warnings    []desired.Warning
	records     map[string]*actual.Record
	procs       map[int]bool // alive
	lastPID     int
	inode       uint64
	uids        int
	quarantined []actual.Quarantined
	requests    []actual.Request
	aborted     map[string]bool
	boot        string
	booted      time.Time
	busy        map[string]bool
	breaches    []error
	changed     chan struct{}
	exits       map[string]*actual.Exit
	left        map[string]bool // gofers whose sentry died first

	images

	hooks sync.Mutex
	hook  func(op, name, step string) error

	// Took delays each operation. Set it before the first.
	Took time.Duration
	// PIDs is how many process numbers there are; few, unless it is set, so that they are
	// reused.
	PIDs int
	// OnCreate is told the request of each create, if set.
	OnCreate func(restart *actual.Request)
	// OnStart is called in each create whose processes are on record, if set, with
	// the context of the operation. It may take as long as it likes. An error fails
	// the create.
	OnStart func(ctx context.Context, name string) error
	// OnRead is what a create and a refresh read, if set.
	OnRead func() []actual.Input

	notDropped int // how many times DropRequest does nothing
}

// fewPIDs is how many process numbers there are if nobody says.
const fewPIDs = 16

// New returns an empty host with a directory that can be relied on.
func New() *World {
	return &World{
		images: images{published: map[string]string{}, stored: map[string]bool{}, tags: map[string]string{}},
		want:   map[string]*desired.Entry{}, records: map[string]*actual.Record{}, procs: map[int]bool{}, busy: map[string]bool{},
		aborted: map[string]bool{}, exits: map[string]*actual.Exit{}, left: map[string]bool{}, complete: true, boot: "boot-1", booted: time.Now(), lastPID: 1, changed: make(chan struct{}, 1),
	}
}

// Entry makes a valid manifest; change may modify it.
func Entry(name, command string, change func(*desired.Spec)) *desired.Entry {
	s := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: name}}
	s.Spec.Root.Host = &desired.HostRoot{}
	s.Spec.Command = []string{command}
	if change != nil {
		change(&s.Spec)
	}
	desired.Default(s)
	return &desired.Entry{Sandbox: s, Hash: desired.Hash(s), Source: desired.Position{File: name + ".yaml", Line: 1}}
}

// newUID is another one for each sandbox, in the order of their making.
func (w *World) newUID() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.uids++
	return fmt.Sprintf("u%d", w.uids)
}

func (w *World) notify() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Changes receives when something has changed.
func (w *World) Changes() <-chan struct{} { return w.changed }

// Want puts a manifest into the directory, Unwant takes one out.
func (w *World) Want(e *desired.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want[e.Sandbox.Metadata.Name] = e
	w.notify()
}

// Unwant takes a manifest out of the directory.
func (w *World) Unwant(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.want, name)
	w.notify()
}

// SetComplete says whether the directory can be relied on.
func (w *World) SetComplete(ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complete = ok
	w.notify()
}

// Request leaves a request.
func (w *World) Request(r actual.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, r)
	w.notify()
}

// Quarantine makes the record of a name unreadable.
func (w *World) Quarantine(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quarantined = append(w.quarantined, actual.Quarantined{Name: name, Reason: actual.QuarantinedCorrupt, Message: "damaged"})
}

// Release ends the quarantine of a name.
func (w *World) Release(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quarantined = slices.DeleteFunc(w.quarantined, func(h actual.Quarantined) bool { return h.Name == name })
	w.notify()
}

// KeepRequests makes DropRequest do nothing for so many times, as while somebody
// leaves a request.
func (w *World) KeepRequests(times int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notDropped = times
}

// Requests is how many requests wait.
func (w *World) Requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.requests)
}

// Kill ends the sentry or gofer of a sandbox, with an exit record if code is
// not negative.
func (w *World) Kill(name, what string, code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec := w.records[name]
	if rec == nil {
		return
	}
	id := rec.Sentry
	if what == "gofer" {
		id = rec.Gofer
	}
	if id == nil {
		return
	}
	delete(w.procs, id.PID)
	if what == "sentry" && rec.Gofer != nil && w.procs[rec.Gofer.PID] {
		w.left[key(rec)] = true
	}
	if code >= 0 && what == "sentry" {
		x := &actual.Exit{Known: true, Code: code, Reason: actual.ReasonCompleted, At: time.Now()}
		if code > 0 {
			x.Reason = actual.ReasonError
		}
		w.exits[key(rec)] = x
	}
	w.notify()
}

func key(r *actual.Record) string { return fmt.Sprintf("%s/%d", r.UID, r.Attempt) }

// Warn sets what the manifests directory warns of.
func (w *World) Warn(warnings ...desired.Warning) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warnings = warnings
	w.notify()
}

// Reboot ends every process and begins another boot.
func (w *World) Reboot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.procs)
	w.boot += "'"
	w.booted = time.Now()
	w.notify()
}

// Load implements reconcile.Source.
func (w *World) Load(context.Context) (*desired.Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &desired.Snapshot{Complete: w.complete}
	if !w.complete {
		s.Reason, s.Message = desired.ReasonDirectoryMissing, "gone"
		return s, nil
	}
	s.Warnings = slices.Clone(w.warnings)
	for _, e := range w.want {
		s.Entries = append(s.Entries, *e)
	}
	slices.SortFunc(s.Entries, func(a, b desired.Entry) int { return cmp.Compare(a.Sandbox.Metadata.Name, b.Sandbox.Metadata.Name) })
	return s, nil
}

// Observe implements reconcile.Observer.
func (w *World) Observe(context.Context) (*actual.Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &actual.Snapshot{BootID: w.boot, Quarantined: slices.Clone(w.quarantined), Requests: slices.Clone(w.requests)}
	for _, r := range w.records {
		if slices.ContainsFunc(w.quarantined, func(h actual.Quarantined) bool { return h.Name == r.Name }) {
			continue
		}
		o := actual.Observed{Record: r, Sentry: w.live(r.Sentry), Gofer: w.live(r.Gofer)}
		if o.Sentry == process.Dead {
			o.Exit = w.exits[key(r)]
			o.GoferExitedCleanly = w.left[key(r)]
		}
		s.Sandboxes = append(s.Sandboxes, o)
	}
	slices.SortFunc(s.Sandboxes, func(a, b actual.Observed) int { return cmp.Compare(a.Record.Name, b.Record.Name) })
	for n := range w.aborted {
		if w.records[n] == nil {
			s.Aborted = append(s.Aborted, n)
		}
	}
	slices.Sort(s.Aborted)
	return s, nil
}

func (w *World) live(id *process.Identity) process.Liveness {
	switch {
	case id == nil:
		return process.None
	case id.BootID != w.boot || !w.procs[id.PID] || w.owner(id.PID) != *id:
		return process.Dead
	}
	return process.Alive
}

// owner is the youngest identity with a number: the others are its victims if
// somebody signals by number.
func (w *World) owner(pid int) process.Identity {
	var best process.Identity
	for _, r := range w.records {
		for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
			if id != nil && id.PID == pid && id.Inode > best.Inode {
				best = *id
			}
		}
	}
	return best
}

func (w *World) spawn() *process.Identity {
	pids := cmp.Or(w.PIDs, fewPIDs)
	for range pids * 2 {
		w.lastPID = 2 + (w.lastPID-1)%pids
		if !w.procs[w.lastPID] {
			w.inode++
			w.procs[w.lastPID] = true
			return &process.Identity{PID: w.lastPID, Inode: w.inode, BootID: w.boot}
		}
	}
	return nil
}

// breach notes that somebody broke the contract.
func (w *World) breach(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	w.breaches = append(w.breaches, err)
	return err
}

// Breaches are what was done against the contract, and whatever is wrong now.
func (w *World) Breaches() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	errs := slices.Clone(w.breaches)
	owned := map[int]string{}
	for _, r := range w.records {
		for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
			if w.live(id) != process.Alive {
				continue
			}
			if other, ok := owned[id.PID]; ok {
				errs = append(errs, fmt.Errorf("pid %d is of %s and %s", id.PID, other, r.Name))
			}
			owned[id.PID] = r.Name
		}
	}
	for pid := range w.procs {
		if owned[pid] == "" {
			errs = append(errs, fmt.Errorf("pid %d is an orphan", pid))
		}
	}
	return errors.Join(errs...)
}

// Record returns a copy of a record, nil if there is none.
func (w *World) Record(name string) *actual.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.records[name]; r != nil {
		return r.Clone()
	}
	return nil
}

// SetHook sets a function that is called before each step of an operation, one
// at a time. An error from it makes the operation fail there, ErrCrash as the
// death of the daemon would.
func (w *World) SetHook(f func(op, name, step string) error) {
	w.hooks.Lock()
	defer w.hooks.Unlock()
	w.hook = f
}

// begin enters an operation; there must be no other on the name.
func (w *World) begin(name string) (func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[name] {
		return nil, w.breach("two operations on %s at once", name)
	}
	for _, h := range w.quarantined {
		if h.Name == name {
			return nil, w.breach("an operation on %s, whose record is quarantined", name)
		}
	}
	w.busy[name] = true
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.busy, name)
		w.notify()
	}, nil
}

// step is a point at which an operation can be cut short.
func (w *World) step(op, name, step string) error {
	w.hooks.Lock()
	defer w.hooks.Unlock()
	if w.hook != nil {
		return w.hook(op, name, step)
	}
	return nil
}

func (w *World) put(r *actual.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[r.Name] = r.Clone()
}

// ErrCrash from a hook is the death of the daemon: nothing is cleaned up but
// processes at their gates, which leave by themselves.
var ErrCrash = errors.New("the daemon died")

// Create implements reconcile.Launcher.
func (w *World) Create(ctx context.Context, e *desired.Entry, restart *actual.Request, image string) error {
	name, began := e.Sandbox.Metadata.Name, time.Now()
	end, err := w.begin(name)
	if err != nil {
		return err
	}
	defer end()
	if w.OnCreate != nil {
		w.OnCreate(restart)
	}
	sleep(ctx, w.Took)
	if err := w.step("create", name, "claim"); err != nil {
		return err
	}
	w.mu.Lock()
	old := w.records[name]
	w.aborted[name] = true
	if e.Sandbox.Spec.Root.Image != nil && !w.stored[image] {
		err := fmt.Errorf("the image %s is not in the store", image)
		if image == "" {
			err = w.breach("create of %s without its image", name)
		}
		w.mu.Unlock()
		return err
	}
	if old != nil && (w.live(old.Sentry) == process.Alive || w.live(old.Gofer) == process.Alive) {
		err := w.breach("create of %s over a live one", name)
		w.mu.Unlock()
		return err
	}
	w.mu.Unlock()
	spec, err := desired.Canonical(e.Sandbox)
	if err != nil {
		return err
	}
	r := actual.NextAttempt(old, actual.Intent{
		Name: name, UID: w.newUID(), BootID: w.boot, Spec: spec, SpecHash: e.Hash, SourceFile: e.Source.File, RestartToken: restart.ID(),
		Image: imageOf(e, image),
	}, time.Now())
	if w.OnRead != nil {
		r.HasRead(w.OnRead())
	}
	pass := operation.PassOf(ctx)
	r.StartBegins(pass.Began, pass.Read, began)
	w.put(r)
	r.StartReaches(actual.StartSpawn, time.Now())
	if err := w.step("create", name, "spawn"); err != nil {
		return w.failCreate(r, err)
	}
	w.mu.Lock()
	sentry, gofer := w.spawn(), w.spawn()
	w.mu.Unlock()
	// Gated: a crash here makes both leave.
	if err := w.step("create", name, "held"); err != nil || sentry == nil || gofer == nil {
		w.mu.Lock()
		for _, id := range []*process.Identity{sentry, gofer} {
			if id != nil {
				delete(w.procs, id.PID)
			}
		}
		w.mu.Unlock()
		return w.failCreate(r, cmp.Or(err, errors.New("no process numbers left")))
	}
	r.Spawned(actual.PhaseStarting, *sentry, *gofer)
	w.put(r)
	if err := w.step("create", name, "start"); err != nil {
		if errors.Is(err, ErrCrash) {
			return err
		}
		return w.undo(ctx, r, err)
	}
	if w.OnStart != nil {
		if err := w.OnStart(ctx, name); operation.Shutdown(ctx) {
			return errors.Join(operation.ErrShutdown, err)
		} else if err != nil {
			return w.undo(ctx, r, err)
		}
	}
	r.Started(w.now())
	w.put(r)
	return nil
}

// undo ends the processes of a create that failed or was cancelled.
func (w *World) undo(ctx context.Context, r *actual.Record, err error) error {
	w.mu.Lock()
	delete(w.procs, r.Sentry.PID)
	delete(w.procs, r.Gofer.PID)
	w.mu.Unlock()
	reason := operation.CancelReason(ctx)
	if reason == "" {
		return w.failCreate(r, err)
	}
	r.Cancelled(reason, time.Now())
	w.put(r)
	return err
}

func (w *World) failCreate(r *actual.Record, err error) error {
	if errors.Is(err, ErrCrash) {
		return err
	}
	r.Failed(err.Error(), operation.Permanent(err), time.Now())
	w.put(r)
	return err
}

// Resume implements reconcile.Launcher. No sentry can be asked here.
func (w *World) Resume(ctx context.Context, name string, _ bool, end actual.Ending) error {
	return w.Destroy(ctx, name, end)
}

// Destroy implements reconcile.Launcher.
func (w *World) Destroy(ctx context.Context, name string, how actual.Ending) error {
	end, err := w.begin(name)
	if err != nil {
		return err
	}
	defer end()
	sleep(ctx, w.Took)
	r, err := w.destroy(name, how)
	if r != nil && err == nil {
		w.put(r)
	}
	return err
}

// Remove implements reconcile.Launcher.
func (w *World) Remove(ctx context.Context, name string, how actual.Ending) (*actual.Record, error) {
	end, err := w.begin(name)
	if err != nil {
		return nil, err
	}
	defer end()
	sleep(ctx, w.Took)
	r, err := w.destroy(name, how)
	if err != nil {
		return nil, err
	}
	if err := w.step("forget", name, "remove"); err != nil {
		if r != nil && !errors.Is(err, ErrCrash) {
			w.put(r)
		}
		return r, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.records, name)
	delete(w.aborted, name)
	return r, nil
}

// destroy returns what is to be recorded of a sandbox that it has stopped, nil if it
// has no record.
func (w *World) destroy(name string, how actual.Ending) (*actual.Record, error) {
	w.mu.Lock()
	old := w.records[name]
	w.mu.Unlock()
	if old == nil {
		return nil, nil
	}
	r := old.Clone()
	r.Stopping(&how)
	w.put(r)
	for _, s := range []string{"kill", "release"} {
		if err := w.step("destroy", name, s); err != nil {
			return nil, err
		}
		w.mu.Lock()
		for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
			if w.live(id) == process.Alive {
				delete(w.procs, id.PID)
			}
		}
		w.mu.Unlock()
	}
	r.Ended(&how, actual.Outcome{}, w.now())
	return r, nil
}

// Stopping puts a sandbox on record as being stopped.
func (w *World) Stopping(name string, how actual.Ending) {
	w.mu.Lock()
	r := w.records[name].Clone()
	w.mu.Unlock()
	r.Stopping(&how)
	w.put(r)
}

// Forget implements reconcile.Launcher.
func (w *World) Forget(ctx context.Context, name string) error {
	end, err := w.begin(name)
	if err != nil {
		return err
	}
	defer end()
	sleep(ctx, w.Took)
	if err := w.step("forget", name, "remove"); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.records[name]; r != nil && (r.Phase != actual.PhaseStopped || w.live(r.Sentry) == process.Alive || w.live(r.Gofer) == process.Alive) {
		return w.breach("forget of %s, which is %s", name, r.Phase)
	}
	delete(w.records, name)
	delete(w.aborted, name)
	return nil
}

// Retire implements reconcile.Launcher.
func (w *World) Retire(ctx context.Context, name string) error {
	end, err := w.begin(name)
	if err != nil {
		return err
	}
	defer end()
	sleep(ctx, w.Took)
	if err := w.step("retire", name, "remove"); err != nil {
		return err
	}
	w.mu.Lock()
	old := w.records[name]
	if old == nil || old.Phase != actual.PhaseStopped {
		defer w.mu.Unlock()
		return w.breach("retire of %s, which is not stopped", name)
	}
	w.mu.Unlock()
	r := old.Clone()
	r.Retire()
	w.put(r)
	return nil
}

// SinceBoot is how long ago the host was booted.
func (w *World) SinceBoot() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.booted)
}

func (w *World) now() moment.Moment {
	w.mu.Lock()
	defer w.mu.Unlock()
	return moment.Moment{Wall: time.Now(), Boot: time.Since(w.booted), BootID: w.boot}
}

// Refresh implements reconcile.Launcher.
func (w *World) Refresh(ctx context.Context, e *desired.Entry, volumes []string) error {
	name := e.Sandbox.Metadata.Name
	end, err := w.begin(name)
	if err != nil {
		return err
	}
	defer end()
	sleep(ctx, w.Took)
	w.mu.Lock()
	old := w.records[name]
	w.mu.Unlock()
	if old == nil || old.Phase != actual.PhaseRunning {
		return fmt.Errorf("refresh of %s, which does not run", name)
	}
	r := old.Clone()
	in := r.Inputs
	if w.OnRead != nil {
		in = w.OnRead()
	}
	r.Refreshing(volumes, time.Now())
	w.put(r)
	for _, s := range []string{"write", "signal"} {
		if err := w.step("refresh", name, s); err != nil {
			return err
		}
	}
	r = r.Clone()
	r.Refreshed(in)
	w.put(r)
	return nil
}

// DropRequest implements loop.Requests.
func (w *World) DropRequest(r actual.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notDropped > 0 {
		w.notDropped--
		return nil
	}
	w.requests = slices.DeleteFunc(w.requests, func(x actual.Request) bool { return x.Token == r.Token })
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
