// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/hooks"
	"sandboxctl.dev/launcher/logs"
	"sandboxctl.dev/launcher/passthrough"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

// goferGrace is how long a gofer may take to leave after its sentry, to write
// the rest of the output, before it is killed.
const goferGrace = 3 * time.Second

// Destroy stops a sandbox and proves it dead; see reconcile.Launcher.
func (l *Launcher) Destroy(ctx context.Context, name string, end actual.Ending) error {
	if err := l.destroy(ctx, name, end, l.recordStop); err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", name, err)
	}
	return nil
}

// Remove stops a sandbox, proves it dead and removes its record; see
// reconcile.Launcher.
func (l *Launcher) Remove(ctx context.Context, name string, end actual.Ending) (stopped *actual.Record, err error) {
	var left error
	err = l.destroy(ctx, name, end, func(rec *actual.Record) error {
		stopped = rec
		// Until it is gone the record says that it is being stopped: who finds that
		// after a crash does all of it again, and writes it down once less.
		if left = l.forget(rec); left != nil {
			return l.recordStop(rec)
		}
		return nil
	})
	if err = errors.Join(left, err); err != nil {
		return stopped, fmt.Errorf("remove sandbox %s: %w", name, err)
	}
	return stopped, nil
}

func (l *Launcher) recordStop(rec *actual.Record) error {
	if err := l.store.PutUrgent(rec); err != nil {
		return fmt.Errorf("record stop: %w", err)
	}
	return nil
}

// destroy stops a sandbox and proves it dead. finish is told what the record is to
// say then.
func (l *Launcher) destroy(ctx context.Context, name string, end actual.Ending, finish func(*actual.Record) error) error {
	old, err := l.load(name)
	if err != nil {
		return err
	}
	if old == nil {
		// A create that died before its record: only the directory is there.
		return nil
	}
	if end.Replace {
		// What comes after could not be started.
		if err := l.logs.Room(); err != nil {
			return err
		}
	}
	rec := old.Clone()
	if rec.Phase != actual.PhaseStopped {
		rec.Stopping(&end)
		if err := l.store.PutIntent(rec); err != nil {
			return fmt.Errorf("record intent: %w", err)
		}
	}
	err = l.bringDown(ctx, rec, end)
	if err == nil {
		err = finish(rec)
	}
	if err != nil && context.Cause(ctx) == nil {
		err = errors.Join(err, l.recordTrouble(name, err))
	}
	return err
}

// bringDown is what follows the intent to stop.
func (l *Launcher) bringDown(ctx context.Context, rec *actual.Record, end actual.Ending) error {
	expired, err := l.stopApp(ctx, rec, end)
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		// The end of this program is no reason for a kill: the next daemon resumes
		// the stop from the record.
		return fmt.Errorf("wait for the application to leave: %w", err)
	}
	if err := l.reapPair(ctx, rec); err != nil {
		return err
	}
	oom, err := l.release(ctx, rec)
	if err != nil {
		return err
	}
	seen := actual.Outcome{OOM: oom, GraceExpired: expired, Exit: l.exitOf(rec, &end)}
	rec.Ended(&end, seen, moment.Now())
	return l.afterEnd(ctx, rec)
}

// recordTrouble writes down why a sandbox can't be stopped: the record is what
// `get` reads. It is tried again, and the same reason is not written twice.
func (l *Launcher) recordTrouble(name string, why error) error {
	rec, err := l.load(name)
	if err != nil || rec == nil {
		return err
	}
	trouble := actual.Warning{Reason: actual.WarningStopFailed, Message: untrusted.Line(why.Error(), 1000)}
	if slices.Contains(rec.Warnings, trouble) {
		return nil
	}
	now := rec.Clone()
	now.Warnings = slices.DeleteFunc(slices.Clone(rec.Warnings), func(w actual.Warning) bool { return w.Reason == trouble.Reason })
	now.Warnings = append(now.Warnings, trouble)
	if err := l.store.Put(now); err != nil {
		return fmt.Errorf("record why: %w", err)
	}
	return nil
}

// exitOf is the exit record of what was stopped on purpose: what the application
// made of the stop signal is known if it had time to say so.
func (l *Launcher) exitOf(rec *actual.Record, end *actual.Ending) *actual.Exit {
	if end.App().Exit != nil {
		return nil // the planner knew it
	}
	exit, err := l.store.ReadExit(rec)
	if err != nil {
		l.opts.Log.Warn("how the application ended is not known", "sandbox", rec.Name, "err", err)
	}
	return exit
}

// stopApp asks the application to leave and gives it time. That it does not is
// no error: the kill follows, and expired says so.
func (l *Launcher) stopApp(ctx context.Context, rec *actual.Record, end actual.Ending) (expired bool, err error) {
	if end.Grace <= 0 || end.StopSignal == "" || rec.Sentry == nil {
		return false, nil
	}
	sentry, err := process.Open(*rec.Sentry)
	if errors.Is(err, process.ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: sentry (pid %d): %w", process.ErrUnknownProcess, rec.Sentry.PID, err)
	}
	defer sentry.Close()
	if sentry.Alive() != process.Alive {
		return false, nil
	}
	sig, err := scalar.ParseSignal(end.StopSignal)
	if err != nil {
		// Manifests are validated. A record that says something else must not keep
		// the sandbox from being stopped: the kill follows.
		l.opts.Log.Warn("stop signal not sent", "sandbox", rec.Name, "err", err)
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, end.Grace)
	defer cancel()
	if err := l.signalApp(ctx, rec, sig); err != nil {
		l.opts.Log.Debug("stop signal not delivered", "sandbox", rec.Name, "err", err)
		return false, nil
	}
	return sentry.Wait(ctx) != nil, nil // the grace period is over, or it left: both go on
}

func (l *Launcher) signalApp(ctx context.Context, rec *actual.Record, sig unix.Signal) error {
	c, err := sentry.ConnectTo(ctx, l.store, rec)
	if err != nil {
		return err
	}
	defer c.Close()
	return crashpoint.Do(crashpoint.StopSignal, func() error { return c.App().Signal(ctx, sig, false) })
}

// reapPair kills whatever of the pair is alive and returns when both are
// proven dead. The sentry goes first: the gofer then leaves by itself, with
// the last of the output written.
func (l *Launcher) reapPair(ctx context.Context, rec *actual.Record) error {
	if err := crashpoint.Do(crashpoint.KillSentry, func() error { return l.KillSentry(ctx, rec) }); err != nil {
		return err
	}
	return crashpoint.Do(crashpoint.KillGofer, func() error { return l.kill(ctx, rec, "gofer", rec.Gofer, goferGrace) })
}

// kill makes a recorded process dead: at once, or after it had the grace to
// leave by itself. A nil record is one that is lost.
func (l *Launcher) kill(ctx context.Context, rec *actual.Record, what string, id *process.Identity, grace time.Duration) error {
	t := proc.Target{What: what, ID: id, Grace: grace, Timeout: l.opts.KillTimeout}
	if rec != nil {
		t.Thaw = func() string { return l.thaw(rec) }
	}
	return proc.Kill(ctx, &t)
}

// release removes what a dead sandbox leaves on the host: processes of its
// cgroup, the cgroup, the network that was passed through, the control socket, what was
// written down of its set-up, and the second copy of its record. oom says whether the
// kernel killed something in the cgroup because memory ran out. If that is not known it
// is false: it only changes the words of a reason.
func (l *Launcher) release(ctx context.Context, rec *actual.Record) (oom bool, err error) {
	dirs := rec.Cgroups
	if boot, err := process.BootID(); err == nil && boot != rec.BootID {
		// No cgroup survives a boot, and the layout may be another one now.
		dirs = nil
	}
	group, err := l.leftoverGroup(rec, dirs)
	if err != nil {
		return false, fmt.Errorf("open cgroup: %w", err)
	}
	defer group.Close()
	_, oom = group.OutOfMemory()
	if err := group.Kill(); err != nil {
		return oom, fmt.Errorf("kill cgroup: %w", err)
	}
	removal, cancel := context.WithTimeout(ctx, l.opts.KillTimeout)
	defer cancel()
	defer operation.WaitsAfter(removal, proc.DyingSlowly)()
	if err := group.Remove(removal); err != nil {
		return oom, fmt.Errorf("remove cgroup: %w", err)
	}
	if err := passthrough.Restore(rec); err != nil {
		return oom, err
	}
	// After it: plugins find their addresses on the interface.
	if err := l.unplug(ctx, rec); err != nil {
		return oom, err
	}
	dir, err := l.store.Dir(rec.Name)
	if err != nil {
		return oom, err
	}
	defer dir.Close()
	err = crashpoint.Do(crashpoint.ControlRemove, func() error { return unix.Unlinkat(int(dir.Fd()), sentry.ControlSocket, 0) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return oom, fmt.Errorf("remove control socket: %w", err)
	}
	// What it says of the network and the cgroup holds no longer, and both may belong
	// to another sandbox when a later record is damaged.
	return oom, errors.Join(l.store.DropSetup(rec.Name), l.store.DropCopy(rec.Name))
}

// afterEnd runs the hooks that follow the end of a sandbox that got as far as its
// first ones, once, or after a crash once more. On error they stay on record.
func (l *Launcher) afterEnd(ctx context.Context, rec *actual.Record) error {
	if len(rec.App().Hooks) == 0 {
		return hooks.DropOld(l.store, rec.Name, warnIn(rec))
	}
	if err := hooks.AfterEnd(ctx, rec.Name, rec.App().Hooks, l.opts.Policy, warnIn(rec)); err != nil {
		return err
	}
	rec.App().Hooks = nil
	return nil
}

func warnIn(rec *actual.Record) hooks.Warn {
	return func(format string, args ...any) {
		rec.Warnings = append(rec.Warnings, actual.Warning{Reason: actual.WarningHookFailed, Message: untrusted.Line(fmt.Sprintf(format, args...), 1000)})
	}
}

// explain adds what the processes of a failed start said to its error, or says that the
// kernel has killed them because memory ran out.
func (l *Launcher) explain(ctx context.Context, cause error, rec *actual.Record, st *setup.Setup) error {
	if operation.Shutdown(ctx) {
		return cause // and what runs is left running
	}
	// The sentry's words pass through the gofer, which writes the rest when
	// the sentry is gone.
	reap, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.opts.KillTimeout)
	defer cancel()
	if err := l.reapPair(reap, rec); err != nil {
		return errors.Join(cause, err)
	}
	if group, err := l.Group(rec); err == nil {
		limit, killed := group.OutOfMemory()
		group.Close()
		if err := st.MemoryFault(ctx, limit, killed); err != nil {
			// All that is seen otherwise is a connection that was closed.
			return err
		}
	}
	attempt, err := logs.Open(l.store, rec.Name, rec.Attempt)
	if err != nil {
		return errors.Join(cause, err)
	}
	defer attempt.Close()
	for _, s := range []struct{ who, file string }{{"gofer", logs.GoferFile}, {"sentry", logs.SentryFile}} {
		if line := sentry.LastLogLine(attempt.Tail(s.file, 64<<10)); line != "" {
			cause = fmt.Errorf("%w; the %s reported: %s", cause, s.who, line)
		}
	}
	return cause
}
