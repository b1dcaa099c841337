// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
)

// launcher makes the calls of launcher.Launcher.
type launcher struct {
	h     *host
	p     *program
	store *store
}

const (
	bootTimeout = 60 * time.Second
	killTimeout = 30 * time.Second
	goferGrace  = 3 * time.Second
)

var errUnknown = errors.New("state of a recorded process is unknown")

// op is one operation on one name.
type op struct {
	*launcher
	t *task
	// image is the digest of what it starts, content what it has read for it.
	image   string
	content int
}

func (l *launcher) begin(what, name string) *op {
	t := newTask(l.p, what+" "+name)
	t.sandbox = name
	l.h.park(t, nil, time.Time{}) // the order in which workers begin is ours
	return &op{launcher: l, t: t}
}

// end has the loop go on.
func (o *op) end() { o.h.runs(o.p.main) }

// dir opens the directory of a sandbox.
func (o *op) dir(name string) (*inode, error) {
	d, err := (&dir{h: o.h, n: o.h.state.names[actual.SandboxesDir]}).OpenDir(name)
	if err != nil {
		return nil, err
	}
	return d.(*dir).n, nil
}

// Create implements reconcile.Launcher.
func (l *launcher) Create(ctx context.Context, e *desired.Entry, restart *actual.Request, image string) error {
	o := l.begin("create", e.Sandbox.Metadata.Name)
	defer o.end()
	if !l.p.dead {
		l.h.stats.Creates++
	}
	err := o.create(ctx, e, restart.ID(), image)
	if err != nil && !l.p.dead {
		l.h.note("%s failed: %v", o.t.name, err)
	}
	return err
}

func (o *op) create(ctx context.Context, e *desired.Entry, token, image string) error {
	o.image = image
	rec, err := o.intent(ctx, e, token, image)
	if err != nil {
		return err
	}
	in, content, err := o.readInputs(e.Sandbox)
	rec.HasRead(in)
	o.content = content
	inErr := err
	if !o.h.is("no-intent") {
		if err := o.store.Put(rec); err != nil {
			return fmt.Errorf("record intent: %w", err)
		}
	}
	if err = inErr; err == nil {
		err = o.start(ctx, rec)
	}
	if err == nil {
		return nil
	}
	if o.t.p.dead {
		return err
	}
	if !operation.Shutdown(ctx) {
		o.h.check.createFailed(o.h, rec)
		err = errors.Join(err, o.abort(ctx, rec, err))
	}
	if operation.Shutdown(ctx) {
		return errors.Join(operation.ErrShutdown, err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return errors.Join(cause, err)
	}
	return err
}

func (o *op) intent(ctx context.Context, e *desired.Entry, token, image string) (*actual.Record, error) {
	name := e.Sandbox.Metadata.Name
	old, err := o.load(name)
	if err != nil {
		return nil, err
	}
	spec, err := desired.Canonical(e.Sandbox)
	if err != nil {
		return nil, err
	}
	in := actual.Intent{
		Name: name, BootID: o.h.boot, Spec: spec, SpecHash: e.Hash, SourceFile: e.Source.File, SourceDigest: e.Digest, RestartToken: token,
		Image: o.h.imageOf(e, image),
	}
	if old == nil {
		if err := o.store.Claim(name); err != nil {
			return nil, err
		}
		in.UID = o.h.newUID()
	} else {
		if err := o.proveDead(old); err != nil {
			return nil, err
		}
		if err := o.release(operation.CleanUp(ctx), old); err != nil {
			return nil, err
		}
	}
	return actual.NextAttempt(old, in, time.Now()), nil
}

// imageOf is what goes on record of an image.
func (h *host) imageOf(e *desired.Entry, digest string) *actual.Image {
	if e.Sandbox.Spec.Root.Image == nil || h.is("image-not-on-record") {
		return nil
	}
	return &actual.Image{Ref: e.Sandbox.Spec.Root.Image.Reference(), Digest: digest}
}

func (o *op) load(name string) (*actual.Record, error) {
	rec, held, err := o.store.Get(name)
	if err != nil {
		return nil, err
	}
	if held != nil {
		if o.h.absent(held) {
			return nil, nil
		}
		return nil, fmt.Errorf("load record: %s: %s", held.Reason, held.Message)
	}
	if o.t.p.dead {
		return nil, errDead
	}
	return rec, nil
}

func (o *op) proveDead(rec *actual.Record) error {
	for _, id := range []*process.Identity{rec.Sentry, rec.Gofer} {
		switch live, err := o.h.processes().LivenessOf(id); live {
		case process.Dead, process.None:
		case process.Alive:
			return fmt.Errorf("pid %d is alive", id.PID)
		default:
			return fmt.Errorf("%w: pid %d: %w", errUnknown, id.PID, err)
		}
	}
	return nil
}

// pair is a sentry and its gofer while they are being started.
type pair struct{ sentry, gofer *proc }

func (o *op) start(ctx context.Context, rec *actual.Record) error {
	if err := o.openImage(rec); err != nil {
		return err
	}
	dir, err := o.dir(rec.Name)
	if err != nil {
		return err
	}
	// boot
	if err := o.h.mkdir(o.t, dir, "logs"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	p, err := o.spawnRecorded(rec, dir)
	if err != nil {
		return err
	}
	if err := errors.Join(o.openGate(p.gofer), o.openGate(p.sentry)); err != nil {
		return err
	}
	if o.h.is("gate-before-record") {
		rec.Spawned(actual.PhaseStarting, p.sentry.id, p.gofer.id)
		if err := o.store.Put(rec); err != nil {
			return err
		}
	}
	if !o.h.wait(ctx, o.t, bootTimeout, func() bool { return p.sentry.ready || p.sentry.dead || p.gofer.dead }) || p.sentry.dead || p.gofer.dead {
		return o.explain(ctx, rec, errors.New("wait for control server: it did not come up"))
	}
	if err := o.startApp(ctx, rec, p); err != nil {
		return o.explain(ctx, rec, err)
	}
	rec.Started(o.h.startTime())
	if err := o.store.Put(rec); err != nil {
		return fmt.Errorf("record start: %w", err)
	}
	return nil
}

func (o *op) spawnRecorded(rec *actual.Record, dir *inode) (*pair, error) {
	if err := o.createGroup(rec); err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	p, err := o.spawnPair(rec, dir)
	if err != nil {
		return nil, err
	}
	for _, c := range []*proc{p.sentry, p.gofer} {
		if err := o.joinGroup(rec, c); err != nil {
			return nil, errors.Join(err, o.abandon(p.sentry), o.abandon(p.gofer))
		}
	}
	if o.h.is("gate-before-record") {
		return p, nil
	}
	rec.Spawned(actual.PhaseStarting, p.sentry.id, p.gofer.id)
	if err := o.store.Put(rec); err != nil {
		rec.Sentry, rec.Gofer = nil, nil
		return nil, errors.Join(fmt.Errorf("record processes: %w", err), o.abandon(p.sentry), o.abandon(p.gofer))
	}
	return p, nil
}

func groupOf(rec *actual.Record) string { return rec.Name + "-" + rec.UID }

func (o *op) createGroup(rec *actual.Record) error {
	if !o.h.groups {
		return nil // no hierarchy that it has limits for
	}
	err := o.h.call(o.t, forks, "mkdir cgroup", func(half bool) error {
		if g := groupOf(rec); o.h.cgroups[g] == nil && !half {
			o.h.cgroups[g] = map[*proc]bool{}
		}
		return nil
	})
	if err == nil {
		rec.Cgroups = []string{groupOf(rec)}
	}
	return err
}

func (o *op) spawnPair(rec *actual.Record, dir *inode) (*pair, error) {
	if err := ignoreMissing(o.h.unlink(o.t, dir, "control.sock")); err != nil {
		return nil, err
	}
	if _, err := o.h.create(o.t, dir, "control.sock", true, false); err != nil {
		return nil, err
	}
	exit, err := o.h.create(o.t, dir, actual.ExitFile, false, !o.h.is("exit-of-any-attempt"))
	if err != nil {
		return nil, err
	}
	p := &pair{}
	if p.sentry, err = o.startGated(rec, "sentry", exit); err != nil {
		return nil, err
	}
	left, err := o.h.create(o.t, dir, actual.GoferExitFile, false, true)
	if err == nil {
		p.gofer, err = o.startGated(rec, "gofer", left)
	}
	if err != nil {
		return nil, errors.Join(err, o.abandon(p.sentry))
	}
	p.sentry.partner, p.gofer.partner = p.gofer, p.sentry
	return p, nil
}

// startGated makes a child that waits at its gate.
func (o *op) startGated(rec *actual.Record, role string, exit *inode) (p *proc, err error) {
	err = o.h.call(o.t, forks, "spawn "+role, func(half bool) error {
		if half && o.h.rng.IntN(2) == 0 {
			return nil
		}
		p = &proc{
			role: role, name: rec.Name, uid: rec.UID, attempt: rec.Attempt, hash: rec.SpecHash, image: o.image, content: o.content,
			gate: gateShut, holder: o.p, parent: o.p, exitFile: exit,
		}
		if role == "sentry" && o.h.check.doomNext > 0 {
			o.h.check.doomNext--
			p.doomed = true
			o.t.failed = true
		}
		if err := o.h.spawn(p); err != nil {
			return err
		}
		o.h.stats.Spawns++
		if o.h.groups && o.h.v2 {
			o.h.cgroups[groupOf(rec)][p] = true
		}
		return nil
	})
	return p, err
}

// joinGroup moves a child by its number, which is its own as long as nobody but
// its parent reaps it.
func (o *op) joinGroup(rec *actual.Record, c *proc) error {
	if !o.h.groups {
		return nil
	}
	return o.h.call(o.t, harmless, "join cgroup", func(bool) error {
		p := o.h.procs[c.id.PID]
		switch {
		case p == nil || p.dead:
			return unix.ESRCH
		case p != c:
			o.h.breach("I3: pid %d, which is of %s %s, was put into the cgroup of %s", c.id.PID, p.role, p.name, rec.Name)
		}
		g := o.h.cgroups[groupOf(rec)]
		if g == nil {
			return unix.ENOENT
		}
		g[p] = true
		return nil
	})
}

// abandon kills and reaps a child that never got as far as the record.
func (o *op) abandon(c *proc) error {
	err := o.h.sigkill(o.t, c, c.name)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	o.h.wait(context.Background(), o.t, time.Hour, func() bool { return c.dead })
	return o.h.call(o.t, harmless, "reap", func(bool) error { o.h.reap(c); return nil })
}

func (o *op) openGate(c *proc) error {
	return o.h.call(o.t, harmless, "open gate of "+c.role, func(half bool) error {
		if c.dead {
			return unix.EPIPE
		}
		if !half || o.h.rng.IntN(2) == 0 {
			c.gate = gateOpen
		}
		return nil
	})
}

func (o *op) startApp(_ context.Context, rec *actual.Record, p *pair) error {
	err := o.h.call(o.t, talks, "StartRoot", func(bool) error {
		if p.sentry.dead {
			return unix.ECONNRESET
		}
		if p.sentry.started {
			return errors.New("started already")
		}
		p.sentry.started = true
		o.h.check.appStarted(o.h, p.sentry)
		return nil
	})
	if err == nil || o.t.p.dead {
		return err
	}
	if o.h.wait(context.Background(), o.t, time.Second, func() bool { return p.sentry.dead }) {
		if x, xerr := o.store.ReadExit(rec); xerr == nil && x != nil {
			return nil
		}
	}
	return err
}

func (o *op) explain(ctx context.Context, rec *actual.Record, cause error) error {
	if operation.Shutdown(ctx) {
		return cause
	}
	return errors.Join(cause, o.reapPair(context.WithoutCancel(ctx), rec))
}

func (o *op) abort(create context.Context, rec *actual.Record, cause error) error {
	ctx := operation.CleanUp(create)
	if err := o.reapPair(ctx, rec); err != nil {
		return err
	}
	if err := o.release(ctx, rec); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	if reason := operation.CancelReason(create); reason != "" {
		rec.Cancelled(reason, time.Now())
	} else {
		rec.Failed(cause.Error(), operation.Permanent(cause), time.Now())
	}
	return o.store.Put(rec)
}

// Resume implements reconcile.Launcher.
func (l *launcher) Resume(ctx context.Context, name string, start bool, end actual.Ending) error {
	o := l.begin("resume", name)
	adopted, err := o.resume(ctx, name, start)
	if err != nil && !l.p.dead {
		l.h.note("%s failed: %v", o.t.name, err)
	}
	o.end()
	if adopted || err != nil {
		return err
	}
	return l.Destroy(ctx, name, end)
}

func (o *op) resume(ctx context.Context, name string, start bool) (bool, error) {
	rec, err := o.load(name)
	if err != nil || rec == nil || rec.Phase == actual.PhaseStopped || rec.Phase == actual.PhaseStopping {
		return false, err
	}
	if adopted, err := o.adopt(ctx, rec, start); !adopted || err != nil {
		return false, err
	}
	rec.Started(o.h.startTime())
	if err := o.store.Put(rec); err != nil {
		return false, fmt.Errorf("record start: %w", err)
	}
	if !o.t.p.dead {
		o.h.stats.Resumes++
	}
	return true, nil
}

// adopt asks the sentry of a create that was cut short how far its application is,
// and starts it if it is not running and is to be.
func (o *op) adopt(ctx context.Context, rec *actual.Record, start bool) (bool, error) {
	if rec.Sentry == nil || rec.Gofer == nil {
		return false, nil
	}
	s, err := o.h.processes().Open(*rec.Sentry)
	if err != nil {
		return false, nil //nolint:nilerr // destroy says so
	}
	g, err := o.h.processes().Open(*rec.Gofer)
	if err != nil {
		return false, nil //nolint:nilerr // destroy says so
	}
	p := &pair{s.Pidfd.(*pidfd).proc, g.Pidfd.(*pidfd).proc}
	if !o.h.wait(ctx, o.t, bootTimeout, func() bool { return p.sentry.ready || p.sentry.dead || p.gofer.dead }) || p.sentry.dead || p.gofer.dead {
		return false, context.Cause(ctx)
	}
	started, ended := false, false
	err = o.h.call(o.t, talks, "State", func(bool) error {
		if p.sentry.dead {
			return unix.ECONNRESET
		}
		started, ended = p.sentry.started, p.sentry.ended != nil
		return nil
	})
	switch {
	case err != nil:
		return false, context.Cause(ctx) // it starts over
	case o.h.is("resumed-unasked"):
		return true, nil
	case ended:
		if !o.waitDead(ctx, s, killTimeout) {
			return false, nil
		}
		x, err := o.store.ReadExit(rec)
		return x != nil, err
	case started && !o.h.is("resumed-twice"):
		return true, nil
	case !start:
		return false, nil
	}
	if o.h.is("resumed-twice") {
		p.sentry.started = false
	}
	return o.startApp(ctx, rec, p) == nil, context.Cause(ctx)
}

// Destroy implements reconcile.Launcher.
func (l *launcher) Destroy(ctx context.Context, name string, end actual.Ending) error {
	o := l.begin("destroy", name)
	defer o.end()
	if !l.p.dead {
		l.h.stats.Destroys++
		if end.Reason == actual.ReasonDeadlineExceeded {
			l.h.stats.Deadlines++
		}
	}
	if l.h.is("crash-counts") && end.Reason == "Interrupted" {
		counted := end.App()
		counted.Failures++
		end.Containers = []actual.ContainerEnding{counted}
	}
	err := o.destroy(ctx, name, end, o.recordStop)
	if err != nil && !l.p.dead {
		l.h.note("%s failed: %v", o.t.name, err)
	}
	return err
}

func (o *op) recordStop(rec *actual.Record) error {
	if err := o.store.Put(rec); err != nil {
		return fmt.Errorf("record stop: %w", err)
	}
	return nil
}

func (o *op) destroy(ctx context.Context, name string, end actual.Ending, finish func(*actual.Record) error) error {
	old, err := o.load(name)
	if err != nil || old == nil {
		return err
	}
	rec := old.Clone()
	if rec.Phase != actual.PhaseStopped && !o.h.is("stop-without-intent") {
		rec.Stopping(&end)
		if err := o.store.PutIntent(rec); err != nil {
			return fmt.Errorf("record intent: %w", err)
		}
	}
	if o.h.is("removed-before-kill") && end.Reason == "ManifestRemoved" {
		if err := o.store.Remove(name); err != nil {
			return err
		}
	}
	if o.h.is("stopped-before-kill") {
		r := rec.Clone()
		o.conclude(r, &end)
		if err := o.store.Put(r); err != nil {
			return err
		}
	}
	if err := o.stopApp(ctx, rec, end); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("wait for the application to leave: %w", err)
	}
	if err := o.reapPair(ctx, rec); err != nil {
		return err
	}
	if err := o.release(ctx, rec); err != nil {
		return err
	}
	o.conclude(rec, &end)
	return finish(rec)
}

func (o *op) conclude(rec *actual.Record, end *actual.Ending) {
	var seen actual.Outcome
	if end.App().Exit == nil {
		if x, err := o.store.ReadExit(rec); err == nil {
			seen.Exit = x
		}
	}
	rec.Ended(end, seen, o.h.now())
}

func (o *op) stopApp(ctx context.Context, rec *actual.Record, end actual.Ending) error {
	if end.Grace <= 0 || end.StopSignal == "" || rec.Sentry == nil {
		return nil
	}
	sentry, err := o.h.processes().Open(*rec.Sentry)
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: sentry: %w", errUnknown, err)
	}
	if sentry.Alive() != process.Alive {
		return nil
	}
	p := sentry.Pidfd.(*pidfd).proc
	err = o.h.call(o.t, talks, "Signal", func(bool) error {
		if !p.ready || p.dead {
			return unix.ECONNREFUSED
		}
		p.asked = true
		return nil
	})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, end.Grace)
		defer cancel()
		_ = sentry.Wait(ctx) // it left, or its time is over
	}
	return nil
}

func (o *op) reapPair(ctx context.Context, rec *actual.Record) error {
	if err := o.kill(ctx, rec.Sentry, 0); err != nil {
		return err
	}
	if o.h.is("gofer-not-killed") {
		return nil
	}
	return o.kill(ctx, rec.Gofer, goferGrace)
}

func (o *op) kill(ctx context.Context, id *process.Identity, grace time.Duration) error {
	if id == nil {
		return nil
	}
	p, err := o.h.processes().Open(*id)
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: pid %d: %w", errUnknown, id.PID, err)
	}
	if grace > 0 && o.waitDead(ctx, p, grace) {
		return nil
	}
	if p.Alive() != process.Dead {
		if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	if o.h.is("death-not-proven") {
		return nil
	}
	if !o.waitDead(ctx, p, killTimeout) {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("pid %d is alive", id.PID)
	}
	return nil
}

func (o *op) waitDead(ctx context.Context, p *process.Handle, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if p.Wait(ctx) != nil {
		return false
	}
	p.Reap()
	return true
}

// release removes what a dead sandbox leaves on the host.
func (o *op) release(ctx context.Context, rec *actual.Record) error {
	groups := rec.Cgroups
	if !o.h.is("cgroup-on-record-only") && len(groups) == 0 {
		groups = []string{groupOf(rec)}
	}
	if rec.BootID != o.h.boot || !o.h.groups {
		groups = nil
	}
	for _, g := range groups {
		if o.h.v2 {
			err := o.h.call(o.t, harmless, "cgroup.kill", func(bool) error {
				for p := range o.h.cgroups[g] {
					if !p.dead {
						o.h.check.signalled(o.h, p)
						p.killed = true
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		empty := func() bool {
			for p := range o.h.cgroups[g] {
				if !p.dead {
					return false
				}
			}
			return true
		}
		if !o.h.wait(ctx, o.t, killTimeout, empty) {
			return errors.New("remove cgroup: it is busy")
		}
		if err := o.h.call(o.t, harmless, "rmdir cgroup", func(bool) error { delete(o.h.cgroups, g); return nil }); err != nil {
			return err
		}
	}
	dir, err := o.dir(rec.Name)
	if err != nil {
		return err
	}
	return ignoreMissing(o.h.unlink(o.t, dir, "control.sock"))
}
