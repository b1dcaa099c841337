// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/checkpoint"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/resolve"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/snapshot"
)

// errNotCreated says that a container is not in the state it must be started from.
var errNotCreated = errors.New("container is not in the created state")

// Container is what an OCI client wants created.
type Container struct {
	ID string
	// Bundle is the absolute path of the bundle that Spec was read from.
	Bundle string
	Spec   *specs.Spec
	// Streams are the application's descriptors 0 to 2. With a terminal all
	// three are its slave side. They stay the caller's.
	Streams [3]*os.File
	// Preserved are its descriptors from 3 on. They stay the caller's.
	Preserved []*os.File
}

// CreateContainer makes a container as far as its created state and returns the
// pid of its sentry. The caller holds the id (actual.Store.ClaimLocked). On error
// nothing is left.
func (l *Launcher) CreateContainer(ctx context.Context, c *Container) (int, error) {
	rec, err := l.createContainer(ctx, c)
	if err == nil {
		return rec.Sentry.PID, nil
	}
	err = fmt.Errorf("create container %s: %w", c.ID, err)
	if rec != nil {
		if aerr := l.abort(ctx, rec, err); aerr != nil {
			// Something may be alive: the record stays, for delete --force.
			return 0, errors.Join(err, aerr)
		}
	}
	return 0, errors.Join(err, l.store.Remove(c.ID))
}

// createContainer returns the record if something may have been started.
func (l *Launcher) createContainer(ctx context.Context, c *Container) (*actual.Record, error) {
	st, err := resolve.FromContainer(c.Spec, c.Bundle)
	if err != nil {
		return nil, err
	}
	if err := resolve.Container(c.Spec, st); err != nil {
		return nil, err
	}
	rec, err := newContainerRecord(c)
	if err != nil {
		return nil, err
	}
	if err := l.store.Put(rec); err != nil {
		return nil, fmt.Errorf("record intent: %w", err)
	}
	if err := built.PutConfig(l.store, c.ID, c.Spec); err != nil {
		return rec, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.opts.BootTimeout, fmt.Errorf("not created after %s", l.opts.BootTimeout))
	defer cancel()
	b, err := l.boot(ctx, &launch{
		rec: rec, st: st, phase: actual.PhaseCreating,
		streams: &pair.Streams{Files: c.Streams, Preserved: c.Preserved}, oomScore: c.Spec.Process.OOMScoreAdj,
	})
	if err != nil {
		return rec, err
	}
	defer b.close()
	rec.Phase = actual.PhaseCreated
	if err := l.store.Put(rec); err != nil {
		return rec, fmt.Errorf("record creation: %w", err)
	}
	return rec, nil
}

func newContainerRecord(c *Container) (*actual.Record, error) {
	uid := actual.NewUID()
	boot, err := process.BootID()
	if err != nil {
		return nil, err
	}
	return actual.NextAttempt(nil, actual.Intent{
		Name: c.ID, UID: uid, BootID: boot, OCI: &actual.OCIContainer{Bundle: c.Bundle, Annotations: c.Spec.Annotations},
	}, time.Now()), nil
}

// StartContainer starts the application of a created container. The caller
// holds the id. errNotCreated if it is in another state.
func (l *Launcher) StartContainer(ctx context.Context, id string) error {
	if err := l.startContainer(ctx, id, nil); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

// RestoreContainer is StartContainer with the state of a checkpoint in the place
// of a new application.
func (l *Launcher) RestoreContainer(ctx context.Context, id, path string) error {
	img, err := checkpoint.Open(path)
	if err == nil {
		defer img.Close()
		err = l.startContainer(ctx, id, snapshot.Of(img))
	}
	if err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	return nil
}

func (l *Launcher) startContainer(ctx context.Context, id string, saved *snapshot.Saved) error {
	old, err := l.load(id)
	if err != nil {
		return err
	}
	if old == nil || old.Phase != actual.PhaseCreated {
		return errNotCreated
	}
	st, err := built.Of(l.store, old)
	if err != nil {
		return err
	}
	c, err := sentry.ConnectTo(ctx, l.store, old)
	if errors.Is(err, sentry.ErrNotRunning) {
		return fmt.Errorf("%w: its sentry has ended", errNotCreated)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	rec := old.Clone()
	rec.Phase = actual.PhaseStarting
	if err := l.store.Put(rec); err != nil {
		return fmt.Errorf("record intent: %w", err)
	}
	// As long as the start of a manifest's may take, and not as one call of a sentry
	// that has started: a loaded host is slow, not broken.
	timeout := l.opts.BootTimeout + st.StartTimeout()
	if saved != nil {
		timeout += saved.Timeout()
	}
	starting, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not started after %s", timeout))
	defer cancel()
	if err := l.startApp(starting, rec, st, &booted{control: c}, saved); err != nil {
		if cause := context.Cause(starting); cause != nil {
			err = errors.Join(cause, err)
		}
		return l.explain(ctx, err, rec, st)
	}
	rec.Started(moment.Now())
	if err := l.store.Put(rec); err != nil {
		return fmt.Errorf("record start: %w", err)
	}
	return nil
}

// KillSentry kills the sentry of a record and waits for its death.
func (l *Launcher) KillSentry(ctx context.Context, rec *actual.Record) error {
	return l.kill(ctx, rec, "sentry", rec.Sentry, 0)
}
