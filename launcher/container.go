// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/resolve"
	"sandboxctl.dev/launcher/sentry"
)

// ErrNotCreated says that a container is not in the state it must be started from.
var ErrNotCreated = errors.New("container is not in the created state")

// containerConfig is the copy of config.json in a container's directory: what
// happens to the bundle after create changes nothing.
const containerConfig = "config.json"

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

// streams are descriptors for an application that are not ours to read.
type streams struct {
	files     [3]*os.File
	preserved []*os.File
}

// CreateContainer makes a container as far as its created state and returns the
// pid of its sentry. The caller holds the id (actual.Store.ClaimHeld). On error
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
	if err := l.putConfig(c); err != nil {
		return rec, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.opts.BootTimeout, fmt.Errorf("not created after %s", l.opts.BootTimeout))
	defer cancel()
	b, err := l.boot(ctx, &launch{
		rec: rec, st: st, phase: actual.PhaseCreating,
		streams: &streams{files: c.Streams, preserved: c.Preserved}, oomScore: c.Spec.Process.OOMScoreAdj,
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
	uid, err := actual.NewUID()
	if err != nil {
		return nil, err
	}
	boot, err := actual.BootID()
	if err != nil {
		return nil, err
	}
	return actual.NextAttempt(nil, actual.Intent{
		Name: c.ID, UID: uid, BootID: boot, Container: &actual.Container{Bundle: c.Bundle, Annotations: c.Spec.Annotations},
	}, time.Now()), nil
}

func (l *Launcher) putConfig(c *Container) error {
	b, err := json.Marshal(c.Spec)
	if err != nil {
		return fmt.Errorf("encode config.json: %w", err)
	}
	dir, err := l.store.Dir(c.ID)
	if err != nil {
		return err
	}
	defer dir.Close()
	return atomicfile.Write(dir, containerConfig, b, 0o600)
}

// ContainerSpec is the config.json a container was created from.
func (l *Launcher) ContainerSpec(id string) (*specs.Spec, error) { return containerSpec(l.store, id) }

func containerSpec(store *actual.Store, id string) (*specs.Spec, error) {
	dir, err := store.Dir(id)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := hostfs.OpenBeneath(int(dir.Fd()), containerConfig, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open configuration of %s: %w", id, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4*resolve.MaxConfig))
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", id, err)
	}
	var cfg specs.Spec
	if err := json.Unmarshal(b, &cfg); err != nil {
		return nil, fmt.Errorf("decode configuration of %s: %w", id, err)
	}
	return &cfg, nil
}

// StartContainer starts the application of a created container. The caller
// holds the id. ErrNotCreated if it is in another state.
func (l *Launcher) StartContainer(ctx context.Context, id string) error {
	if err := l.startContainer(ctx, id, nil); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

// RestoreContainer is StartContainer with the state of a checkpoint in the place
// of a new application.
func (l *Launcher) RestoreContainer(ctx context.Context, id, checkpoint string) error {
	img, err := openCheckpoint(checkpoint)
	if err == nil {
		defer img.close()
		err = l.startContainer(ctx, id, img)
	}
	if err != nil {
		return fmt.Errorf("restore container %s: %w", id, err)
	}
	return nil
}

func (l *Launcher) startContainer(ctx context.Context, id string, img *checkpointImage) error {
	old, err := l.load(id)
	if err != nil {
		return err
	}
	if old == nil || old.Phase != actual.PhaseCreated {
		return ErrNotCreated
	}
	st, err := setupOf(l.store, old)
	if err != nil {
		return err
	}
	c, err := sentry.ConnectTo(ctx, l.store, old)
	if errors.Is(err, sentry.ErrNotRunning) {
		return fmt.Errorf("%w: its sentry has ended", ErrNotCreated)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	rec := *old
	rec.Phase = actual.PhaseStarting
	if err := l.store.Put(&rec); err != nil {
		return fmt.Errorf("record intent: %w", err)
	}
	// As long as the start of a manifest's may take, and not as one call of a sentry
	// that has started: a loaded host is slow, not broken.
	timeout := l.opts.BootTimeout + st.StartTimeout()
	if img != nil {
		timeout += img.timeout()
	}
	starting, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not started after %s", timeout))
	defer cancel()
	if err := l.startApp(starting, &rec, st, c, img); err != nil {
		if cause := context.Cause(starting); cause != nil {
			err = errors.Join(cause, err)
		}
		return l.explain(ctx, err, &rec)
	}
	rec.Started(time.Now())
	if err := l.store.Put(&rec); err != nil {
		return fmt.Errorf("record start: %w", err)
	}
	return nil
}

// KillSentry kills the sentry of a record and waits for its death.
func (l *Launcher) KillSentry(ctx context.Context, rec *actual.Record) error {
	return l.kill(ctx, rec, "sentry", rec.Sentry, 0)
}
