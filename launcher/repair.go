// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/salvage"
)

// Repair repairs a quarantined name, on an operator's order, and says what was
// done. Where everything that lives agrees with the second copy of the record,
// the record is restored and the sandbox keeps running. Where nothing lives, the
// sandbox's directory is set aside and the name is free. Otherwise it is refused,
// unless end is set: then what lives is ended, and the directory set aside. What
// was damaged is kept either way. The caller holds the lock of the store, and
// nobody else works on the name.
func (l *Launcher) Repair(ctx context.Context, name string, end bool) (string, error) {
	outcome, err := l.repair(ctx, name, end)
	if err != nil {
		return "", fmt.Errorf("repair sandbox %s: %w", name, err)
	}
	return outcome, nil
}

func (l *Launcher) repair(ctx context.Context, name string, end bool) (string, error) {
	_, quarantined, err := l.store.Get(name)
	switch {
	case err != nil:
		return "", err
	case quarantined == nil:
		return "", operation.Permanentf("its record is not quarantined: there is nothing to repair")
	case quarantined.Reason == actual.QuarantinedNewer:
		return "", operation.Permanentf("%s: %s; use the version of this program that wrote it", quarantined.Reason, quarantined.Message)
	case quarantined.Reason == actual.QuarantinedForeign:
		return "", operation.Permanentf("%s: %s; this program did not make it, and does not remove it", quarantined.Reason, quarantined.Message)
	}
	found, err := salvage.Examine(ctx, l.store, name)
	if err != nil {
		return "", err
	}
	e := found[name]
	switch {
	case e.Unknown() != nil:
		return "", e.Unknown()
	case end:
	case e.Gap == "":
		return l.putBack(e)
	case len(e.Processes) > 0:
		return "", operation.Permanentf("%s live, and the record can't be put back: %s; `sandboxctl repair --end %s` ends them and frees the name", e.List(), e.Gap, name)
	}
	if err := l.end(ctx, e); err != nil {
		return "", err
	}
	kept, err := l.store.SetAside(name)
	if err != nil {
		return "", err
	}
	ended := "nothing of it lived"
	if len(e.Processes) > 0 {
		ended = e.List() + " ended"
	}
	return ended + "; its directory is kept as " + kept, nil
}

// putBack makes the copy of the record the record.
func (l *Launcher) putBack(e *salvage.Evidence) (string, error) {
	kept, err := l.store.SetRecordAside(e.Name)
	if err != nil {
		return "", err
	}
	if err := l.store.Put(e.Copy); err != nil {
		return "", err
	}
	outcome := e.List() + " keep running, and the record is restored from its second copy"
	if kept != "" {
		outcome += "; the damaged one is kept as " + kept
	}
	return outcome, nil
}

// EndUnrecorded kills the sentry and the gofer of a sandbox whose record can't
// be read, and waits for their death: those of our processes that have a file of
// its directory open. The caller holds the name, so that none is being started.
func (l *Launcher) EndUnrecorded(ctx context.Context, name string) error {
	found, err := salvage.Examine(ctx, l.store, name)
	if err == nil {
		err = l.end(ctx, found[name])
	}
	if err != nil {
		return fmt.Errorf("end processes of %s: %w", name, err)
	}
	return nil
}

// end kills what was found, sentries first, and removes what it leaves on the
// host.
func (l *Launcher) end(ctx context.Context, e *salvage.Evidence) error {
	var (
		errs   []error
		groups []*cgroup.Group
	)
	if err := e.Unknown(); err != nil {
		return err
	}
	for i := range e.Processes {
		f := &e.Processes[i]
		grace := goferGrace
		if f.Role == salvage.RoleSentry {
			grace = 0
		}
		group, err := l.groupOf(e.Name, f.Role, &f.Identity)
		if group != nil {
			groups = append(groups, group)
		}
		errs = append(errs, err, l.kill(ctx, nil, f.Role, &f.Identity, grace))
	}
	// When both are dead: the gofer may have left by itself, with its sentry.
	for _, g := range groups {
		errs = append(errs, l.removeGroup(ctx, g))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if e.Copy != nil {
		// A process that has nothing of the sandbox open is not ended on the word
		// of the copy alone; but nothing is freed beside it.
		if err := proc.ProveDead(e.Copy.Sentry, e.Copy.Gofer); err != nil {
			return fmt.Errorf("by the second copy of its record %w, and has no file of the sandbox open; find out what it is, and end it by hand if it is of the sandbox", err)
		}
	}
	if left, err := salvage.Examine(ctx, l.store, e.Name); err != nil {
		return err
	} else if left := left[e.Name]; left.Unknown() != nil {
		return left.Unknown()
	} else if len(left.Processes) > 0 {
		return fmt.Errorf("%s live on", left.List())
	}
	rec := e.Leaves()
	if rec == nil {
		// Which hooks it owes was in its record.
		return nil
	}
	before := len(rec.Warnings)
	err := l.afterEnd(ctx, rec)
	for _, w := range rec.Warnings[before:] {
		l.opts.Log.Warn("hook failed", "sandbox", rec.Name, "err", w.Message)
	}
	if err != nil {
		return err
	}
	// Last: with it goes the copy that says what else there is to do.
	_, err = l.release(ctx, rec)
	return err
}

// groupOf opens the cgroup of a process that is alive, if it is the sandbox's own;
// nil if not.
func (l *Launcher) groupOf(name, role string, id *process.Identity) (*cgroup.Group, error) {
	p, err := process.Open(*id)
	if errors.Is(err, process.ErrGone) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s (pid %d): %w", process.ErrUnknownProcess, role, id.PID, err)
	}
	defer p.Close()
	group, err := l.cgroups.OwnOf(id.PID, name)
	if p.Alive() == process.Alive {
		return group, err
	}
	// What was read may be a successor's.
	if err == nil {
		return nil, group.Close()
	}
	return nil, nil
}

// removeGroup kills what is left in a cgroup and removes it.
func (l *Launcher) removeGroup(ctx context.Context, group *cgroup.Group) error {
	ctx, cancel := context.WithTimeout(ctx, l.opts.KillTimeout)
	defer cancel()
	return errors.Join(group.Kill(), group.Remove(ctx), group.Close())
}
