// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/specfield"
	"sandboxctl.dev/launcher/wire"
)

// connect returns a control connection to a container that is started.
func (r *Runtime) connect(ctx context.Context, id string) (*sentry.Control, *actual.Record, error) {
	st, rec, err := r.look(id)
	if err != nil {
		return nil, nil, err
	}
	if st != StatusRunning && st != StatusPaused {
		return nil, nil, fmt.Errorf("%w: %s is %s", ErrNotRunning, id, st)
	}
	c, _, err := sentry.Connect(ctx, r.store, id)
	if errors.Is(err, sentry.ErrNotRunning) {
		return nil, nil, ErrNotRunning
	}
	return c, rec, err
}

// Exec returns a connection to a container, for one more process in it, and what
// it is to be. A container that is paused is refused, unless the process may wait.
func (r *Runtime) Exec(ctx context.Context, id string, p *specs.Process, mayWait bool) (*sentry.Control, wire.ExecArgs, error) {
	if err := specfield.CheckProcess(p); err != nil {
		return nil, wire.ExecArgs{}, err
	}
	c, rec, err := r.connect(ctx, id)
	if err != nil {
		return nil, wire.ExecArgs{}, err
	}
	if rec.App().OCI.Paused && !mayWait {
		return nil, wire.ExecArgs{}, errors.Join(fmt.Errorf("cannot exec in a paused container (use --ignore-paused to override): %s", id), c.Close())
	}
	args, err := built.ContainerExec(r.store, rec, p)
	if err != nil {
		return nil, wire.ExecArgs{}, errors.Join(err, c.Close())
	}
	return c, args, nil
}

// Process is the process of a container as its config.json describes it.
func (r *Runtime) Process(id string) (*specs.Process, error) {
	if _, _, err := r.look(id); err != nil {
		return nil, err
	}
	cfg, err := built.Config(r.store, id)
	if err != nil {
		return nil, err
	}
	return cfg.Process, nil
}

// Store is where the containers are on record.
func (r *Runtime) Store() *actual.Store { return r.store }

// Pause stops all processes of a container where they are.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	return r.locked(ctx, id, func() error { return r.pause(ctx, id, true) })
}

// Resume continues them.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	return r.locked(ctx, id, func() error { return r.pause(ctx, id, false) })
}

func (r *Runtime) pause(ctx context.Context, id string, pause bool) error {
	c, old, err := r.connect(ctx, id)
	if err != nil {
		return err
	}
	defer c.Close()
	switch {
	case pause && old.App().OCI.Paused:
		return fmt.Errorf("container %s is paused already", id)
	case !pause && !old.App().OCI.Paused:
		return fmt.Errorf("container %s is not paused", id)
	}
	if pause {
		err = c.Pause(ctx)
	} else {
		err = c.Resume(ctx)
	}
	if err != nil {
		return err
	}
	rec, container := old.Clone(), *old.App().OCI
	container.Paused = pause
	rec.App().OCI = &container
	return r.store.Put(rec)
}

// Processes lists the processes of a container.
func (r *Runtime) Processes(ctx context.Context, id string) ([]wire.Process, error) {
	c, _, err := r.connect(ctx, id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.App().ProcessTable(ctx)
}

// Events calls emit with what a container uses: once, or every interval until
// the container ends, and with an event of its own when the kernel kills something
// of it because memory ran out.
func (r *Runtime) Events(ctx context.Context, id string, once bool, interval time.Duration, emit func(any) error) error {
	var rec *actual.Record
	kills := int64(-1) // not known yet
	for {
		e, now, err := r.measure(ctx, id)
		if err != nil {
			// It may be about to end: the stream is over with it, and nothing is wrong.
			if rec != nil {
				if over, _ := ended(ctx, rec, endTimeout); over {
					return r.tellOOM(rec, &kills, emit)
				}
			}
			return err
		}
		if err := emit(e); err != nil || once {
			return err
		}
		rec = now
		for left := interval; left > 0; left -= oomInterval {
			if err := r.tellOOM(rec, &kills, emit); err != nil {
				return err
			}
			over, err := ended(ctx, rec, min(left, oomInterval))
			if over {
				return r.tellOOM(rec, &kills, emit)
			}
			if err != nil {
				return err
			}
		}
	}
}

// oomInterval is how often it is looked whether the kernel killed something.
const oomInterval = time.Second

// oomEvent is that of runc, for clients that wait for it.
type oomEvent struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// tellOOM emits an event if the kernel has killed something since the last look.
// The group is there until the container is deleted.
func (r *Runtime) tellOOM(rec *actual.Record, kills *int64, emit func(any) error) error {
	group, err := r.launcher.Group(rec)
	if err != nil {
		return nil //nolint:nilerr // it is deleted
	}
	defer group.Close()
	now, err := group.OOMKills()
	if err != nil {
		return nil //nolint:nilerr // this host does not count
	}
	before := *kills
	*kills = now
	if before < 0 || now <= before {
		return nil
	}
	return emit(oomEvent{"oom", rec.Name})
}

// measure is what a container uses now.
func (r *Runtime) measure(ctx context.Context, id string) (*wire.Event, *actual.Record, error) {
	c, rec, err := r.connect(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	e, err := c.App().Stats(ctx)
	c.Close()
	if err != nil {
		return nil, nil, err
	}
	e.Event.Type, e.Event.ID = "stats", id
	if err := r.account(rec, &e.Event.Data); err != nil {
		return nil, nil, err
	}
	return &e.Event, rec, nil
}

// account puts what the kernel says of a container in the place of what its
// sentry, which does not know what it costs itself, says.
func (r *Runtime) account(rec *actual.Record, data *wire.Stats) error {
	group, err := r.launcher.Group(rec)
	if err != nil {
		return err
	}
	defer group.Close()
	s := group.Stats()
	memory, pids := group.Limits()
	if s.CPUNanos >= 0 {
		data.CPU.Usage.Total = uint64(s.CPUNanos)
	}
	if s.MemoryBytes >= 0 {
		data.Memory.Usage.Usage = uint64(s.MemoryBytes)
	}
	if memory > 0 {
		data.Memory.Usage.Limit = uint64(memory)
	}
	if pids > 0 {
		data.Pids.Limit = uint64(pids)
	}
	return nil
}

// Update sets resources of a container that has not stopped.
func (r *Runtime) Update(ctx context.Context, id string, res *specs.LinuxResources) error {
	return r.locked(ctx, id, func() error {
		st, rec, err := r.look(id)
		if err != nil {
			return err
		}
		if st == StatusStopped || st == StatusCreating {
			return fmt.Errorf("cannot update a container in the %s state", st)
		}
		return r.update(rec, res)
	})
}

// update sets resources of a container while it lives, and in its
// configuration. What the guest was told when it started stays as it was. The
// caller holds the id.
func (r *Runtime) update(rec *actual.Record, to *specs.LinuxResources) error {
	if err := errors.Join(specfield.Check(&specs.Spec{Linux: &specs.Linux{Resources: to}}, specfield.Runtime), cgroup.CheckPIDs(to)); err != nil {
		return fmt.Errorf("update container %s: %w", rec.Name, err)
	}
	group, err := r.launcher.Group(rec)
	if err != nil {
		return fmt.Errorf("update container %s: %w", rec.Name, err)
	}
	defer group.Close()
	cfg, err := built.Config(r.store, rec.Name)
	if err != nil {
		return err
	}
	if cfg.Linux == nil {
		cfg.Linux = &specs.Linux{}
	}
	if cfg.Linux.Resources == nil {
		cfg.Linux.Resources = &specs.LinuxResources{}
	}
	if c, was := to.CPU, cfg.Linux.Resources.CPU; c != nil && was != nil && c.Idle != nil && *c.Idle == 0 && c.Shares == nil {
		// A group that is idle no longer would have the weight of a new one.
		c.Shares = was.Shares
	}
	if err := group.Set(to); err != nil {
		return fmt.Errorf("update container %s: %w", rec.Name, err)
	}
	// What is given replaces what was, field by field.
	b, err := json.Marshal(to)
	if err == nil {
		err = json.Unmarshal(b, cfg.Linux.Resources)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("update configuration of %s", rec.Name), err)
	}
	return built.PutConfig(r.store, rec.Name, cfg)
}

// ended waits for the end of a container, at most the time given.
func ended(ctx context.Context, rec *actual.Record, within time.Duration) (bool, error) {
	p, err := process.Open(*rec.Sentry)
	if errors.Is(err, process.ErrGone) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer p.Close()
	wait, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if p.Wait(wait) == nil {
		return true, nil
	}
	return false, context.Cause(ctx)
}
