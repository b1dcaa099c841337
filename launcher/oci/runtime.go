// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/hooks"
	"sandboxctl.dev/launcher/sentry"
)

// Errors that clients tell apart by their text, which is runc's.
var (
	ErrNotExist = errors.New("container does not exist")
	ErrExist    = errors.New("container with given ID already exists")
	// ErrNotRunning: there is no process to signal.
	ErrNotRunning = errors.New("container not running")
	// errUnreadable: there is a record, which says nothing that can be believed.
	errUnreadable = errors.New("can't read the state")
)

// Statuses of a container: those of the OCI specification, and runc's
// "paused".
const (
	StatusCreating = string(specs.StateCreating)
	StatusCreated  = string(specs.StateCreated)
	StatusRunning  = string(specs.StateRunning)
	StatusStopped  = string(specs.StateStopped)
	StatusPaused   = "paused"
)

// holdTimeout bounds how long a call waits for another one on the same id.
const holdTimeout = 30 * time.Second

// Runtime is the containers of one state directory.
type Runtime struct {
	store    *actual.Store
	launcher *launcher.Launcher
	sentry   string
	warn     func(format string, args ...any)
}

// Options configure a Runtime.
type Options struct {
	Root string // state directory, created if need be
	// SentryPath and GoferPath are the programs of each container.
	SentryPath, GoferPath string
	// SentryLogLevel: warning (default), info or debug.
	SentryLogLevel string
	// Warn receives what went wrong and is no reason to fail.
	Warn func(format string, args ...any)
}

// Open opens the containers of a state directory.
func Open(opts Options) (*Runtime, error) {
	store, err := actual.OpenRuntimeStore(opts.Root)
	if err != nil {
		return nil, err
	}
	l, err := launcher.New(launcher.Options{Store: store, SentryPath: opts.SentryPath, GoferPath: opts.GoferPath, SentryLogLevel: opts.SentryLogLevel})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &Runtime{store: store, launcher: l, sentry: opts.SentryPath, warn: opts.Warn}, nil
}

// Close releases what Open opened. Containers keep running.
func (r *Runtime) Close() error { return r.store.Close() }

// Start starts the application of a created container.
func (r *Runtime) Start(ctx context.Context, id string) error {
	return r.locked(ctx, id, func() error { return r.start(ctx, id, r.launcher.StartContainer) })
}

// start has the launcher bring a created container to life.
func (r *Runtime) start(ctx context.Context, id string, launch func(context.Context, string) error) error {
	st, rec, err := r.look(id)
	if err != nil {
		return err
	}
	if st != StatusCreated {
		return fmt.Errorf("cannot start a container in the %s state", st)
	}
	if by := r.launcher.FrozenBy(rec); by != "" {
		return fmt.Errorf("start container %s: the cgroup %s is frozen; thaw it first", id, by)
	}
	cfg, err := built.Config(r.store, id)
	if err != nil {
		return err
	}
	if err := launch(ctx, id); err != nil {
		return err
	}
	if cfg.Hooks != nil {
		state := r.stateOf(cfg, id, rec.App().OCI.Bundle, StatusRunning, rec.Sentry.PID)
		hooks.Set{Kind: "poststart", Hooks: cfg.Hooks.Poststart, Env: os.Environ()}.RunAll(ctx, state, r.warn)
	}
	return nil
}

// locked works on a container while nobody else does.
func (r *Runtime) locked(ctx context.Context, id string, do func() error) (err error) {
	lock, err := r.lock(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	return do()
}

func (r *Runtime) lock(ctx context.Context, id string) (*actual.SandboxLock, error) {
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	h, err := r.store.LockSandbox(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotExist, id)
	}
	return h, err
}

// look returns the status and record of a container.
func (r *Runtime) look(id string) (string, *actual.Record, error) {
	if !actual.ValidID(id) {
		return "", nil, fmt.Errorf("%w: %q is not a container id", ErrNotExist, id)
	}
	rec, quarantined, err := r.store.Get(id)
	switch {
	case err != nil:
		return "", nil, err
	case quarantined != nil && quarantined.Reason == actual.QuarantinedForeign:
		return "", nil, fmt.Errorf("look at %s: %s: %s", id, quarantined.Reason, quarantined.Message)
	case quarantined != nil:
		return "", nil, fmt.Errorf("%w of %s: %s: %s", errUnreadable, id, quarantined.Reason, quarantined.Message)
	case rec == nil:
		return "", nil, fmt.Errorf("%w: %s", ErrNotExist, id)
	}
	st, err := status(rec)
	return st, rec, err
}

// status tells by the process, not by what was written last.
func status(rec *actual.Record) (string, error) {
	if rec.Phase == actual.PhaseCreating {
		return StatusCreating, nil
	}
	live, err := process.LivenessOf(rec.Sentry)
	switch {
	case live == process.Dead || live == process.None:
		return StatusStopped, nil
	case live == process.Unknown:
		return "", fmt.Errorf("look at the process of %s: %w", rec.Name, err)
	case rec.Phase == actual.PhaseCreated:
		return StatusCreated, nil
	case rec.App().OCI.Paused:
		return StatusPaused, nil
	}
	return StatusRunning, nil
}

// State is the state of a container as `state` and hooks get it, with what
// runc adds for clients that expect it.
type State struct {
	specs.State
	Rootfs  string    `json:"rootfs,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Owner   string    `json:"owner"`
}

// State returns the state of a container.
func (r *Runtime) State(id string) (*State, error) {
	st, rec, err := r.look(id)
	if err != nil {
		return nil, err
	}
	pid := 0
	if st != StatusStopped && rec.Sentry != nil {
		pid = rec.Sentry.PID
	}
	s := &State{Created: rec.CreatedAt.UTC()}
	s.State = specs.State{
		Version: specs.Version, ID: id, Status: specs.ContainerState(st), Pid: pid, Bundle: rec.App().OCI.Bundle, Annotations: rec.App().OCI.Annotations,
	}
	if cfg, err := built.Config(r.store, id); err == nil && cfg.Root != nil {
		s.Rootfs = cfg.Root.Path
		if !filepath.IsAbs(s.Rootfs) {
			s.Rootfs = filepath.Join(rec.App().OCI.Bundle, s.Rootfs)
		}
	}
	return s, nil
}

func (r *Runtime) stateOf(cfg *specs.Spec, id, bundle, status string, pid int) specs.State {
	return specs.State{
		Version: specs.Version, ID: id, Status: specs.ContainerState(status), Pid: pid, Bundle: bundle, Annotations: cfg.Annotations,
	}
}

// List returns the states of all containers, by id. What can't be read is
// reported by Warn and hides nothing else.
func (r *Runtime) List() ([]State, error) {
	l, err := r.store.List()
	if err != nil {
		return nil, err
	}
	for _, h := range l.Quarantined {
		r.warn("%s: %s: %s", h.Name, h.Reason, h.Message)
	}
	out := []State{}
	for _, rec := range l.Records {
		s, err := r.State(rec.Name)
		if err == nil {
			s.Owner, err = r.owner(rec.Name)
		}
		if errors.Is(err, ErrNotExist) || errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			r.warn("%v", err)
			continue
		}
		out = append(out, *s)
	}
	return out, nil
}

// owner is the name of the user whose container it is.
func (r *Runtime) owner(id string) (string, error) {
	dir, err := r.store.Dir(id)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return "", fmt.Errorf("look for the owner of %s: %w", id, err)
	}
	uid := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username, nil
	}
	return uid, nil
}

// endingSignals are those that end a process that does nothing about them. A
// created container has no application yet that could.
var endingSignals = []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}

// Kill sends a signal to the application of a container, or with all to each of
// its processes; 0 only looks whether there is one. ErrNotRunning if it has ended;
// with all that is no error, as with runc.
func (r *Runtime) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error {
	st, rec, err := r.look(id)
	if err != nil {
		return err
	}
	err = r.signal(ctx, st, rec, sig, all)
	if all && errors.Is(err, ErrNotRunning) {
		return nil
	}
	return err
}

func (r *Runtime) signal(ctx context.Context, st string, rec *actual.Record, sig unix.Signal, all bool) error {
	switch st {
	case StatusCreated:
		if !slices.Contains(endingSignals, sig) {
			return nil // as runc's waiting init would
		}
		return r.launcher.KillSentry(ctx, rec)
	case StatusRunning, StatusPaused:
		if sig == 0 {
			return nil
		}
		if by := r.launcher.FrozenBy(rec); by != "" {
			// Its sentry would answer when it is thawed.
			if sig == unix.SIGKILL {
				return r.launcher.KillSentry(ctx, rec)
			}
			return fmt.Errorf("signal container %s: the cgroup %s is frozen; thaw it first", rec.Name, by)
		}
		c, _, err := sentry.Connect(ctx, r.store, rec.Name)
		if errors.Is(err, sentry.ErrNotRunning) {
			return ErrNotRunning
		}
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.App().Signal(ctx, sig, all); err != nil {
			return fmt.Errorf("signal container %s: %w", rec.Name, err)
		}
		// Where it stands it could not even die.
		if sig == unix.SIGKILL && st == StatusPaused {
			if err := c.Resume(ctx); err != nil {
				return fmt.Errorf("resume container %s, which is killed: %w", rec.Name, err)
			}
		}
		return nil
	}
	return ErrNotRunning
}

// Delete removes a container that has stopped; with force any other as well,
// which is killed, and one that is not there is no error. With force a container
// whose record is damaged goes as well.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) (err error) {
	lock, err := r.lock(ctx, id)
	if force && errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	st, rec, err := r.look(id)
	if err != nil {
		switch {
		case !force:
			return err
		case errors.Is(err, ErrNotExist):
			// What a create left that died before its record.
			return r.store.Remove(id)
		case errors.Is(err, errUnreadable):
			r.warn("%v: its processes are looked for and ended", err)
			if err := r.launcher.EndUnrecorded(ctx, id); err != nil {
				return err
			}
			return r.store.Remove(id)
		}
		return err
	}
	// The specification counts a created one in, which runc deletes.
	if (st == StatusCreated || st == StatusRunning || st == StatusPaused) && !force {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, st)
	}
	cfg, cerr := built.Config(r.store, id)
	if err := r.remove(ctx, id); err != nil {
		return err
	}
	if cerr == nil {
		r.poststop(ctx, cfg, id, rec.App().OCI.Bundle)
	}
	return nil
}

// poststop runs the last hooks of a container that has been removed.
func (r *Runtime) poststop(ctx context.Context, cfg *specs.Spec, id, bundle string) {
	if cfg.Hooks != nil {
		hooks.Set{Kind: "poststop", Hooks: cfg.Hooks.Poststop, Env: os.Environ()}.RunAll(ctx, r.stateOf(cfg, id, bundle, StatusStopped, 0), r.warn)
	}
}

// remove ends what is left of a container and removes it.
func (r *Runtime) remove(ctx context.Context, id string) error {
	if err := r.launcher.Destroy(ctx, id, actual.Ending{Reason: actual.ReasonDeleted}); err != nil {
		return err
	}
	return r.launcher.Forget(ctx, id)
}

// Wait returns the exit code of the application once it has ended: 128 and the
// number of the signal if one ended it.
func (r *Runtime) Wait(ctx context.Context, id string) (int, error) {
	_, rec, err := r.look(id)
	if err != nil {
		return 0, err
	}
	if rec.Sentry != nil {
		p, err := process.Open(*rec.Sentry)
		if err == nil {
			err = p.Wait(ctx)
			p.Close()
		}
		if err != nil && !errors.Is(err, process.ErrGone) {
			return 0, fmt.Errorf("wait for container %s: %w", id, err)
		}
	}
	x, err := r.store.ReadExit(rec)
	switch {
	case err != nil:
		return 0, err
	case x == nil:
		return 128 + int(unix.SIGKILL), nil // only a kill leaves no record
	}
	return x.Code, nil
}
