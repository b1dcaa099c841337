// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/appstart"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

const (
	// askEvery is how often a sentry is asked how far its application is.
	askEvery = 10 * time.Millisecond
	// startInFlight is how long a start may take to show that was asked for by a
	// launcher which has died since, where it can't be asked for again.
	startInFlight = time.Second
)

// Resume finishes a create that was cut short after its gates were opened, or
// destroys what there is of it; see reconcile.Launcher.
func (l *Launcher) Resume(ctx context.Context, name string, start bool, end actual.Ending) error {
	if err := l.resume(ctx, name, start, end); err != nil {
		return fmt.Errorf("resume sandbox %s: %w", name, err)
	}
	return nil
}

func (l *Launcher) resume(ctx context.Context, name string, start bool, end actual.Ending) error {
	rec, err := l.load(name)
	if err != nil {
		return err
	}
	if rec != nil && rec.Phase != actual.PhaseStopped && rec.Phase != actual.PhaseStopping {
		if adopted, err := l.adopt(ctx, rec, start); adopted || err != nil {
			return err
		}
	}
	return l.destroy(ctx, name, end, l.recordStop)
}

// adopt reports whether the record is of a running application now: one that was
// started already is left as it is, and with start one that was not is started.
// If neither can be told, or done, nothing has changed.
//
// A sentry starts its application once: a second request can't have the
// application run twice.
func (l *Launcher) adopt(ctx context.Context, rec *actual.Record, start bool) (bool, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(outer, l.opts.BootTimeout)
	defer cancel()
	st, ok := l.adoptable(rec)
	if !ok {
		return false, nil
	}
	if !start {
		st = nil
	}
	state, err := l.appState(ctx, rec, startInFlight, func(state int) bool { return state != wire.StateCreating || st != nil })
	if err := context.Cause(outer); err != nil {
		// Not a reason to stop anything: the next daemon asks again.
		return false, fmt.Errorf("ask how far the application is: %w", err)
	}
	if err != nil || state == wire.StateInvalid {
		l.opts.Log.Debug("interrupted create not adopted", "sandbox", rec.Name, "err", err)
		return false, nil //nolint:nilerr // it starts over
	}
	ran := state != wire.StateCreating
	if !ran {
		if st == nil {
			return false, nil
		}
		if state, err = l.startAgain(ctx, rec, st); err != nil || state == wire.StateCreating {
			if cause := context.Cause(outer); cause != nil {
				return false, fmt.Errorf("finish start: %w", cause)
			}
			l.opts.Log.Debug("interrupted create not finished", "sandbox", rec.Name, "err", err)
			return false, nil
		}
	}
	if state == wire.StateStopped {
		// It is over, or never came to be: with an exit record it is the former.
		if !sentryDied(ctx, rec, l.opts.KillTimeout) {
			return false, nil
		}
		exit, err := l.store.ReadExit(rec)
		if err != nil {
			// Not known yet, and no reason to run it again.
			return false, fmt.Errorf("ask how the application ended: %w", err)
		}
		if exit == nil {
			return false, nil // it starts over
		}
	}
	if state != wire.StateStopped {
		switch failed, err := appstart.Failed(ctx, l.store, rec); {
		case err != nil:
			return false, fmt.Errorf("ask whether the application was started: %w", err)
		case failed:
			return false, nil // it starts over, and says why it can't
		}
	}
	done, now := rec.Clone(), moment.Now()
	if ran {
		now = rec.StartedAfter(now)
	}
	done.Started(now)
	if err := l.recordStart(done); err != nil {
		return false, err
	}
	return true, nil
}

// adoptable says whether the create of a record can be resumed: it is not known
// which of its hooks have run, or whether what is to run after a restore has. The set-up is that of one whose start needs nothing
// but the sentry's answer, nil of others: a network that may have been taken is for
// a new start.
func (l *Launcher) adoptable(rec *actual.Record) (*setup.Setup, bool) {
	if rec.App().OCI != nil || rec.Sentry == nil || len(rec.App().Hooks) > 0 || rec.App().Resumption.Pending() {
		return nil, false
	}
	st, err := built.Of(l.store, rec)
	if err == nil {
		if st.App().Hooks != nil || st.App().StartHooks != nil {
			return nil, false
		}
		err = l.stillAllowed(rec, st)
	}
	if err != nil {
		// What runs is left running, but not started.
		l.opts.Log.Warn("an interrupted create is not finished", "sandbox", rec.Name, "err", err)
		return nil, true
	}
	if st.Passthrough || st.App().Restores {
		return nil, true // what is to be restored is not started afresh in this sandbox
	}
	return st, true
}

// stillAllowed says whether the policy of now allows what was built, of a manifest
// whose bundle may say something else by now.
func (l *Launcher) stillAllowed(rec *actual.Record, st *setup.Setup) error {
	e, err := desired.FromCanonical(rec.Spec, rec.SourceFile)
	if err != nil {
		return err
	}
	policy, err := l.allowed(e.Sandbox)
	if err != nil {
		return err
	}
	return st.AllowedBy(policy)
}

// appState asks the sentry of a record how far its application is, until enough
// says that it need not be asked again, or its first answer is as old as patience.
// It waits for a control server that is about to come up.
func (l *Launcher) appState(ctx context.Context, rec *actual.Record, patience time.Duration, enough func(state int) bool) (int, error) {
	var until time.Time
	for {
		state, err := l.askState(ctx, rec)
		switch {
		case errors.Is(err, sentry.ErrNotRunning), errors.Is(err, process.ErrUnknownProcess):
			return wire.StateInvalid, err
		case err == nil && enough(state):
			return state, nil
		case err == nil && until.IsZero():
			until = time.Now().Add(patience)
		case err == nil && time.Now().After(until):
			return state, nil
		}
		select {
		case <-ctx.Done():
			return wire.StateInvalid, errors.Join(err, context.Cause(ctx))
		case <-time.After(askEvery):
		}
	}
}

func (l *Launcher) askState(ctx context.Context, rec *actual.Record) (int, error) {
	// Both: without its gofer a sentry is about to end.
	if live, err := process.LivenessOf(rec.Gofer); live != process.Alive {
		return wire.StateInvalid, errors.Join(sentry.ErrNotRunning, err)
	}
	c, err := sentry.ConnectTo(ctx, l.store, rec)
	if err != nil {
		return wire.StateInvalid, err
	}
	defer c.Close()
	return c.App().State(ctx)
}

// startAgain starts an application that was not, or whose start is under way.
func (l *Launcher) startAgain(ctx context.Context, rec *actual.Record, st *setup.Setup) (int, error) {
	c, err := sentry.ConnectTo(ctx, l.store, rec)
	if err != nil {
		return wire.StateInvalid, err
	}
	if err := l.setNetwork(ctx, rec, st, c, false); err != nil {
		return wire.StateInvalid, errors.Join(err, c.Close())
	}
	report, err := appstart.Open(l.store, rec.Name, st)
	if err != nil {
		return wire.StateInvalid, errors.Join(err, c.Close())
	}
	defer report.Close()
	// A start that is under way leaves this one without an answer: the state
	// tells. The end of the connection ends the goroutine.
	answer := make(chan error, 1)
	go func() { answer <- c.App().StartRoot(ctx) }()
	var refused error
	state, err := l.appState(ctx, rec, l.opts.BootTimeout, func(state int) bool {
		if state != wire.StateCreating {
			return true
		}
		select {
		case refused = <-answer:
			return refused != nil
		default:
			return false
		}
	})
	if err == nil && refused == nil && state != wire.StateCreating && report != nil {
		// It has ended with nothing if this start was not the first.
		if err = appstart.Wait(ctx, st, report); errors.Is(err, appstart.ErrNotReported) {
			err = nil
		}
	}
	return state, errors.Join(err, refused, c.Close())
}
