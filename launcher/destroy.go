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
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/hooks"
	"sandboxctl.dev/launcher/logs"
	"sandboxctl.dev/launcher/sentry"
)

// goferGrace is how long a gofer may take to leave after its sentry, to write
// the rest of the output, before it is killed.
const goferGrace = 3 * time.Second

// dyingSlowly is how long a process or cgroup may take to be gone before the
// operation gives up its worker: it is in the kernel's hands then.
const dyingSlowly = time.Second

// usualDeath is how long a process takes to die, or to leave by itself, on a host that
// has much to do. One that takes longer may be frozen, and is thawed. To look each
// time would cost more than the kill.
const usualDeath = 250 * time.Millisecond

// frozenGrace is how long a process may take to die in a frozen group: with
// cgroup2 it does, with v1 it waits for somebody to thaw the group.
const frozenGrace = 2 * time.Second

// ErrStuck says that a process outlived SIGKILL for longer than the deadline.
var ErrStuck = errors.New("process does not die")

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
		if err := l.store.PutUrgent(rec); err != nil {
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
	rec.Ended(&end, seen, time.Now())
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
	sentry, err := actual.Open(*rec.Sentry)
	if errors.Is(err, actual.ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: sentry (pid %d): %w", actual.ErrUnknownProcess, rec.Sentry.PID, err)
	}
	defer sentry.Close()
	if sentry.Alive() != actual.Alive {
		return false, nil
	}
	sig, err := desired.ParseSignal(end.StopSignal)
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
	crashpoint.Before(crashpoint.StopSignal)
	err = c.App().Signal(ctx, sig, false)
	crashpoint.After(crashpoint.StopSignal)
	return err
}

// reapPair kills whatever of the pair is alive and returns when both are
// proven dead. The sentry goes first: the gofer then leaves by itself, with
// the last of the output written.
func (l *Launcher) reapPair(ctx context.Context, rec *actual.Record) error {
	crashpoint.Before(crashpoint.KillSentry)
	err := l.kill(ctx, rec, "sentry", rec.Sentry, 0)
	crashpoint.After(crashpoint.KillSentry)
	if err != nil {
		return err
	}
	crashpoint.Before(crashpoint.KillGofer)
	err = l.kill(ctx, rec, "gofer", rec.Gofer, goferGrace)
	crashpoint.After(crashpoint.KillGofer)
	return err
}

// kill makes a recorded process dead: at once, or after it had the grace to
// leave by itself. Only the process that was recorded is ever signalled.
func (l *Launcher) kill(ctx context.Context, rec *actual.Record, what string, id *actual.Identity, grace time.Duration) error {
	if id == nil {
		return nil
	}
	p, err := actual.Open(*id)
	if errors.Is(err, actual.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s (pid %d): %w", actual.ErrUnknownProcess, what, id.PID, err)
	}
	defer p.Close()
	if grace > 0 {
		// Frozen it would not see that it is to leave.
		if dead, _ := l.dies(ctx, rec, p, grace); dead {
			return nil
		}
	}
	if p.Alive() != actual.Dead {
		if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %s (pid %d): %w", what, id.PID, err)
		}
	}
	defer operation.WaitsAfter(ctx, dyingSlowly)()
	dead, frozenBy := l.dies(ctx, rec, p, l.opts.KillTimeout)
	if dead {
		return nil
	}
	if frozenBy != "" {
		return fmt.Errorf("%w: %s (pid %d) is kept frozen by the cgroup %s; thaw it", ErrStuck, what, id.PID, frozenBy)
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("wait for the death of %s (pid %d): %w", what, id.PID, cause)
	}
	return fmt.Errorf("%w: %s (pid %d) is alive %s after SIGKILL; is it in an uninterruptible sleep?", ErrStuck, what, id.PID, l.opts.KillTimeout)
}

// dies waits for the end of a process, at most for the timeout. If it does not come
// soon, what keeps the processes of its record frozen is thawed; frozenBy is what
// can't be. A nil record is one that is lost.
func (l *Launcher) dies(ctx context.Context, rec *actual.Record, p *actual.Process, timeout time.Duration) (dead bool, frozenBy string) {
	soon := min(usualDeath, timeout)
	if waitDead(ctx, p, soon) {
		return true, ""
	}
	rest := timeout - soon
	if rec != nil {
		if frozenBy = l.thaw(rec); frozenBy != "" {
			rest = min(rest, frozenGrace)
		}
	}
	return waitDead(ctx, p, rest), frozenBy
}

// waitDead waits for the process to die, at most for the timeout, and reaps it
// if it is a child of this program.
func waitDead(ctx context.Context, p *actual.Process, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		return false
	}
	p.Reap()
	return true
}

// release removes what a dead sandbox leaves on the host: processes of its
// cgroup, the cgroup, what it was lent, the control socket, what was written down of
// its set-up, and the second copy of its record. oom says whether the kernel killed
// something in the cgroup for want of memory. Not knowing is no: it only words a reason.
func (l *Launcher) release(ctx context.Context, rec *actual.Record) (oom bool, err error) {
	dirs := rec.Cgroups
	if boot, err := actual.BootID(); err == nil && boot != rec.BootID {
		// No cgroup survives a boot, and the layout may be another one now.
		dirs = nil
	}
	group, err := l.leftoverGroup(rec, dirs)
	if err != nil {
		return false, fmt.Errorf("open cgroup: %w", err)
	}
	defer group.Close()
	kills, err := group.OOMKills()
	oom = err == nil && kills > 0
	if err := group.Kill(); err != nil {
		return oom, fmt.Errorf("kill cgroup: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, l.opts.KillTimeout)
	defer cancel()
	defer operation.WaitsAfter(ctx, dyingSlowly)()
	if err := group.Remove(ctx); err != nil {
		return oom, fmt.Errorf("remove cgroup: %w", err)
	}
	if err := restoreNetwork(rec); err != nil {
		return oom, err
	}
	dir, err := l.store.Dir(rec.Name)
	if err != nil {
		return oom, err
	}
	defer dir.Close()
	crashpoint.Before(crashpoint.ControlRemove)
	err = unix.Unlinkat(int(dir.Fd()), sentry.ControlSocket, 0)
	crashpoint.After(crashpoint.ControlRemove)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return oom, fmt.Errorf("remove control socket: %w", err)
	}
	// What it says was lent, or is in a cgroup, is not any more, and may be
	// another's when a later record is damaged.
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

// explain adds what the processes of a failed start said to its error.
func (l *Launcher) explain(ctx context.Context, cause error, rec *actual.Record) error {
	if operation.Shutdown(ctx) {
		return cause // and what runs is left running
	}
	// The sentry's words pass through the gofer, which writes the rest when
	// the sentry is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.opts.KillTimeout)
	defer cancel()
	if err := l.reapPair(ctx, rec); err != nil {
		return errors.Join(cause, err)
	}
	attempt, err := logs.Open(l.store, rec.Name, rec.Attempt)
	if err != nil {
		return errors.Join(cause, err)
	}
	defer attempt.Close()
	for _, s := range []struct{ who, file string }{{"gofer", logs.GoferFile}, {"sentry", logs.SentryFile}} {
		if said := sentry.LastLogLine(attempt.Tail(s.file, 64<<10)); said != "" {
			cause = fmt.Errorf("%w; the %s said: %s", cause, s.who, said)
		}
	}
	return cause
}
