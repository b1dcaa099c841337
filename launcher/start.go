// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/appstart"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/hooks"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/inputs"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/refresh"
	"sandboxctl.dev/launcher/resolve"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/snapshot"
	"sandboxctl.dev/launcher/volume"
)

// launch is one attempt to bring a sandbox up.
type launch struct {
	rec *actual.Record
	st  *setup.Setup
	// phase is what the record says before the gates are opened.
	phase actual.Phase
	// streams are the application's, if somebody else reads and writes them;
	// nil sends its output to the log files.
	streams *pair.Streams
	// oomScore is that of both processes and of all that they start; nil leaves
	// the launcher's.
	oomScore *int
	// logs is the log directory of this attempt.
	logs *os.File
	// root is the image that the root is, nil if it is none.
	root *hostfs.Image
	// policy is what a manifest was judged by; nil of others.
	policy *hostpolicy.Policy
}

// start brings the sandbox of a record up: gated processes, record, gates,
// control server, application. On error the caller aborts.
func (l *Launcher) start(ctx context.Context, rec *actual.Record, sb *desired.Sandbox, root *hostfs.Image, policy *hostpolicy.Policy, asked *actual.Request, in *inputs.Read) error {
	// Hooks, the size of a checkpoint, and how many files of a volume get another owner, are for
	// others to choose; how long they may keep the sandbox from being replaced is not.
	outer, end := context.WithTimeoutCause(ctx, policy.StartTime(), fmt.Errorf("not started after %s, which is maxStartTime of the host policy", policy.StartTime()))
	defer end()
	st, volumes, err := in.Setup(outer, sb, policy, root, l.store.RootDir())
	if err != nil {
		return err
	}
	defer volumes.Close()
	timeout := l.opts.BootTimeout + min(st.StartTimeout(), policy.HookTime())
	saved, err := l.begins.Begin(outer, rec, sb, asked, st)
	if err != nil {
		return err
	}
	if saved != nil {
		defer saved.Close()
		timeout += saved.Timeout()
		refresh.Owe(rec, sb)
	}
	rec.App().Init = st.App().Init
	// Not before the checkpoint is compared.
	names, err := l.completeSetup(outer, rec, sb, st, root)
	if err != nil {
		return err
	}
	defer names.Close()
	ctx, cancel := context.WithTimeoutCause(outer, timeout, fmt.Errorf("not started after %s", timeout))
	defer cancel()
	// Once the gates open, a reader of the record must assume that the application
	// may be running.
	b, err := l.boot(ctx, &launch{rec: rec, st: st, phase: actual.PhaseStarting, oomScore: new(proc.SandboxOOMScore), root: root, policy: policy})
	if err != nil {
		return err
	}
	defer b.close()
	if st.App().Hooks != nil {
		rec.StartReaches(actual.StartHooks, time.Now())
		// On record before one runs. They have timeouts of their own.
		if rec.App().Hooks, err = hooks.Owed(st.App().Hooks); err != nil {
			return err
		}
		if err := l.store.Put(rec); err != nil {
			return fmt.Errorf("record hooks: %w", err)
		}
		if err := hooks.BeforeStart(outer, rec.Name, rec.Sentry.PID, st.App().Hooks, policy.HookTime()); err != nil {
			return err
		}
		fresh, done := context.WithTimeoutCause(outer, timeout, fmt.Errorf("not started after %s", timeout))
		defer done()
		ctx = fresh
	}
	rec.StartReaches(saved.Phase(), time.Now())
	if err := l.startApp(ctx, rec, st, b, saved); err != nil {
		if saved == nil {
			err = resolve.Lasting(sentry.ExplainCommand(err, func(p string) []byte { return resolve.Peek(st, root, p, sentry.MaxInterpreterLine) }), &sb.Spec)
		}
		return st.Conceal(l.explain(ctx, err, rec, st))
	}
	rec.Started(moment.Now())
	if st.App().Hooks != nil {
		if err := l.store.Put(rec); err != nil {
			return fmt.Errorf("record start: %w", err)
		}
		hooks.AfterStart(outer, rec.Name, rec.Sentry.PID, st.App().Hooks, policy.HookTime(), warnIn(rec))
	}
	return l.recordStart(rec)
}

// completeSetup adds what this host alone can tell, and this start. It returns what giveNames
// does.
func (l *Launcher) completeSetup(ctx context.Context, rec *actual.Record, sb *desired.Sandbox, st *setup.Setup, root *hostfs.Image) (*os.File, error) {
	if err := l.plug(ctx, rec, st); err != nil {
		return nil, err
	}
	if err := l.giveHostPaths(ctx, rec.Name, st); err != nil {
		return nil, err
	}
	names, err := l.giveNames(rec, sb, st)
	if err == nil {
		err = resolve.ForStart(st, root)
	}
	if err != nil {
		_ = names.Close() // nothing was written by it
		return nil, err
	}
	return names, nil
}

// giveHostPaths gives directories of the host to the owners that the manifest names.
func (l *Launcher) giveHostPaths(ctx context.Context, name string, st *setup.Setup) error {
	dir, err := l.store.Dir(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return volume.GiveHostPaths(ctx, st, l.host(l.sentry.Path, l.gofer.Path), dir)
}

// recordStart writes down that the application was started. The copy comes first:
// a sandbox that is on record as running has one, wherever its launcher died.
func (l *Launcher) recordStart(rec *actual.Record) error {
	if err := l.store.PutCopy(rec); err != nil {
		// The sandbox runs, and can do without.
		l.opts.Log.Warn("record not copied", "sandbox", rec.Name, "err", err)
	}
	if err := l.store.Put(rec); err != nil {
		return fmt.Errorf("record start: %w", err)
	}
	return nil
}

// booted is a sandbox whose application has not been started.
type booted struct {
	pair    *pair.Pair
	control *sentry.Control
}

func (b *booted) close() {
	b.pair.Close()
	if b.control != nil {
		_ = b.control.Close() // nothing is in flight
	}
}

// boot brings a sandbox up as far as its control server: gated processes,
// record, gates.
func (l *Launcher) boot(ctx context.Context, la *launch) (*booted, error) {
	rec := la.rec
	// Not before all that decides about it is known: no other start pays for it.
	l.Warm.Expect(la.policy, la.st)
	dir, err := l.store.Dir(rec.Name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	uid, gid := la.st.Maps.Owner()
	if la.logs, err = l.logs.Prepare(dir, rec.Name, rec.Attempt, uid, gid); err != nil {
		return nil, err
	}
	defer la.logs.Close()
	rules := l.opts.Networks.Begin(rec) // not before all that can refuse the start
	defer func() { _ = rules() }()      // a start that has failed does not end before them
	p, err := l.spawnRecorded(ctx, la, dir)
	if err != nil {
		return nil, err
	}
	// Beside the boot, which its error ends: before both have ended the sentry has no packet
	// socket, and nothing to send.
	booting, attached := operation.Bound(ctx, func() error { return l.opts.Networks.Attach(rec, rules) })
	defer func() { _ = attached() }()
	b := &booted{pair: p}
	if err = p.Open(); err == nil {
		rec.StartReaches(actual.StartBoot, time.Now())
		if b.control, err = p.Connect(booting, int(dir.Fd()), rec.Name); err != nil {
			err = l.explain(ctx, err, rec, la.st)
		}
	}
	// Of a sentry that has ended an attachment that failed is a consequence.
	if aerr := attached(); err == nil || !errors.Is(err, aerr) && (operation.PreconditionFailed(aerr) || operation.Permanent(aerr)) {
		err = errors.Join(aerr, err)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// spawnRecorded starts both processes in their cgroup, gated, and writes them
// into the record.
func (l *Launcher) spawnRecorded(ctx context.Context, la *launch, dir *os.File) (*pair.Pair, error) {
	rec := la.rec
	promised, err := l.space.Promise(l.store, rec.Name, la.st.OnDisk())
	if err != nil {
		return nil, err
	}
	defer promised() // the record says it
	group, err := l.createGroup(rec, la.st)
	if err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	defer group.Close()
	if err := checkThawed(group); err != nil {
		return nil, err
	}
	cloneFD, cloned := group.CloneFD()
	if !cloned {
		cloneFD = -1
	}
	// One that is frozen from here on keeps a new process from its program, and us
	// waiting for that, until it is killed: in its group, since its number is not
	// known yet.
	killed := make(chan struct{})
	thawed := context.AfterFunc(ctx, func() {
		defer close(killed)
		_ = group.Kill()
	})
	p, err := l.spawn(ctx, la, dir, cloneFD)
	if !thawed() {
		<-killed // it uses the descriptors of the group
		if err == nil {
			err = errors.Join(fmt.Errorf("start processes: %w", context.Cause(ctx)), p.Abandon())
		}
	}
	if err != nil {
		return nil, err
	}
	for _, c := range []*proc.Child{p.Sentry, p.Gofer} {
		add := group.Add
		if c.InGroup {
			add = group.AddStarted
		}
		err := add(c.PID)
		if err == nil && c.Waited {
			// The next daemon ends what is left in the group of those that wait.
			err = addStarted(group, c)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("join cgroup: %w", err), p.Abandon())
		}
	}
	// Before the gates are open: processes that they start inherit it.
	if la.oomScore != nil {
		if err := errors.Join(p.Sentry.SetOOMScore(*la.oomScore), p.Gofer.SetOOMScore(*la.oomScore)); err != nil {
			return nil, errors.Join(err, p.Abandon())
		}
	}
	// Before the record says that the sandbox may run.
	if err := built.Record(l.store, rec, la.st); err != nil {
		return nil, errors.Join(err, p.Abandon())
	}
	rec.SetupFile = true
	rec.Spawned(la.phase, p.Sentry.Identity, p.Gofer.Identity)
	l.strays.Note(rec.Name, p.Sentry.Identity, p.Gofer.Identity)
	if err := l.store.Put(rec); err != nil {
		rec.Sentry, rec.Gofer, rec.SetupFile = nil, nil, false
		return nil, errors.Join(fmt.Errorf("record processes: %w", err), p.Abandon())
	}
	return p, nil
}

// addStarted moves what a child has started before it was this sandbox's.
func addStarted(group *cgroup.Group, c *proc.Child) error {
	pids, err := c.Started()
	for _, pid := range pids {
		err = errors.Join(err, group.Add(pid))
	}
	return err
}

// startApp starts the application, or with a saved state lets the one in it go
// on.
func (l *Launcher) startApp(ctx context.Context, rec *actual.Record, st *setup.Setup, b *booted, saved *snapshot.Saved) error {
	if !b.pair.Warm() { // which has it
		if err := l.setNetwork(ctx, rec, st, b.control, saved != nil); err != nil {
			return err
		}
	}
	report, err := appstart.Open(l.store, rec.Name, st)
	if err != nil {
		return err
	}
	defer report.Close()
	if saved != nil {
		err = saved.Restore(ctx, rec, b.control)
	} else {
		err = b.pair.Start(ctx, b.control)
		if report != nil && (err == nil || errors.Is(err, sentry.ErrClosed)) {
			if st.App().StartHooks != nil {
				operation.Waits(ctx)
			}
			// Also of one that was over before the sentry could answer.
			rerr := appstart.Wait(ctx, st, report)
			if err == nil || rerr != nil && !errors.Is(rerr, appstart.ErrNotReported) {
				return rerr
			}
		}
	}
	var remote *sentry.RemoteError
	if err == nil || errors.As(err, &remote) || rec.App().Resumption.Pending() {
		return err // what ends before its onRestore has ended well has not been started
	}
	// A short job may be over, and its sentry gone, before the answer: the exit record tells.
	if sentryDied(ctx, rec, time.Second) {
		// An exit record that can't be read now may be readable later: a job that may
		// have ended well is not run again for that.
		if exit, xerr := l.store.ReadExit(rec); xerr != nil || exit != nil {
			return nil
		}
	}
	return err
}

// sentryDied says whether the sentry of the record dies in the time given.
func sentryDied(ctx context.Context, rec *actual.Record, within time.Duration) bool {
	p, err := process.Open(*rec.Sentry)
	if err != nil {
		return errors.Is(err, process.ErrGone)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return p.Wait(ctx) == nil
}

// spawn starts both processes, gated.
func (l *Launcher) spawn(ctx context.Context, la *launch, dir *os.File, cgroupFD int) (*pair.Pair, error) {
	rec := la.rec
	disk, err := l.store.Disk()
	if err != nil {
		return nil, err
	}
	sentry, gofer, err := l.openPrograms(ctx, rec)
	if err != nil {
		return nil, err
	}
	defer sentry.Close()
	defer gofer.Close()
	file, err := la.root.Open()
	if err != nil {
		return nil, err
	}
	claim := l.Warm.Claim(rec, sentry, gofer, la.policy, la.st)
	defer claim.Close()
	p, err := pair.Spawn(ctx, &pair.Launch{
		Name: rec.Name, UID: rec.UID, Attempt: rec.Attempt, Client: rec.App().OCI != nil, Setup: la.st, Image: la.root, ImageFile: file, Streams: la.streams,
		Dir: dir, Logs: la.logs, Sentry: sentry, Gofer: gofer, CgroupFD: cgroupFD, State: l.store.Marker(), Waiting: claim.Waiting,
		Host:     l.host(sentry.Name(), gofer.Name()),
		LogLevel: l.opts.SentryLogLevel, LogMaxBytes: l.opts.LogMaxBytes, LeastFree: disk.LeastFreeForLogs(),
	})
	if err != nil {
		return nil, err
	}
	rec.StartTakes(claim.Took(p))
	rec.Files, rec.OnDisk = p.Files, p.OnDisk
	return p, nil
}

// host is what no sandbox is given.
func (l *Launcher) host(programs ...string) *hostfs.Host {
	return &hostfs.Host{State: l.store.RootDir(), StatePath: l.store.Path(), Programs: append(programs, l.opts.Programs...)}
}

// openPrograms opens the programs of a sandbox, and writes down which they are.
func (l *Launcher) openPrograms(ctx context.Context, rec *actual.Record) (sentry, gofer *os.File, err error) {
	sentry, version, err := l.sentry.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	gofer, goferVersion, err := l.gofer.Open(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, sentry.Close())
	}
	if err := companion.SameGVisor(version, goferVersion); err != nil {
		return nil, nil, errors.Join(err, sentry.Close(), gofer.Close())
	}
	rec.SentryBinary, rec.GoferBinary, rec.GVisor = l.sentry.Path, l.gofer.Path, version
	return sentry, gofer, nil
}
