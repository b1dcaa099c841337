// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/bridge"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/inputs"
	"sandboxctl.dev/launcher/logs"
	"sandboxctl.dev/launcher/ondisk"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/refresh"
	"sandboxctl.dev/launcher/salvage"
	"sandboxctl.dev/launcher/snapshot"
	"sandboxctl.dev/launcher/warm"
)

// Options configure a Launcher. The zero value of a duration means its default.
type Options struct {
	// Store keeps the records; its lock is held by this process.
	Store *actual.Store
	// SentryPath and GoferPath are the programs of each sandbox (see FindProgram).
	SentryPath, GoferPath string
	// Programs are others that run as root on this host: no sandbox may write them.
	Programs []string
	// Image takes the image with a digest out of the store, if roots may be images.
	Image func(ctx context.Context, want *desired.ImageRoot, digest string) (*hostfs.Image, error)
	// Networks attaches sandboxes to networks; nil if there are none to attach.
	Networks *bridge.Keeper
	// Policy returns what manifests may ask for now (default: hostpolicy.Default).
	// Containers of OCI clients, who are root, are not judged by it.
	Policy func() (*hostpolicy.Policy, error)
	// HostKey makes what is on record of documents (default: nothing is).
	HostKey []byte
	// BootTimeout bounds the time from the opening of the gates to the
	// application's start (default 60 s: a loaded host is slow, not broken).
	BootTimeout time.Duration
	// KillTimeout bounds the time a process may take to die from SIGKILL
	// (default 30 s).
	KillTimeout time.Duration
	// LogMaxBytes is the size at which a log file is rotated.
	LogMaxBytes int64
	// LogSpace is how many bytes the logs of all sandboxes may take together
	// (default: a tenth of the disk, see room.Disk).
	LogSpace uint64
	// KeepDeleted is how long the logs of deleted sandboxes are kept (default: not
	// at all).
	KeepDeleted time.Duration
	// SentryLogLevel is gVisor's log level in sentry.log: warning (default),
	// info or debug.
	SentryLogLevel string
	Log            *slog.Logger
}

// Launcher creates and destroys sandboxes. It is safe for concurrent use by
// workers that each hold a different name.
type Launcher struct {
	opts    Options
	store   *actual.Store
	sentry  *companion.Program
	gofer   *companion.Program
	cgroups *cgroup.Host
	strays  salvage.Strays
	logs    *logs.Keeper
	space   ondisk.Ledger
	begins  snapshot.Chooser
	// Warm are processes that wait for sandboxes of manifests, none until it runs.
	Warm *warm.Pool
}

// New returns a launcher.
func New(opts Options) (*Launcher, error) {
	if opts.BootTimeout == 0 {
		opts.BootTimeout = 60 * time.Second
	}
	if opts.KillTimeout == 0 {
		opts.KillTimeout = 30 * time.Second
	}
	if opts.SentryLogLevel == "" {
		opts.SentryLogLevel = "warning"
	}
	if opts.Policy == nil {
		opts.Policy = func() (*hostpolicy.Policy, error) { return hostpolicy.Default(), nil }
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	host, err := cgroup.Detect()
	if err != nil {
		return nil, fmt.Errorf("detect cgroups: %w", err)
	}
	if opts.Store != nil {
		host.Mark(opts.Store.Marker())
	}
	l := &Launcher{
		opts: opts, store: opts.Store, cgroups: host,
		logs:   &logs.Keeper{Store: opts.Store, Space: opts.LogSpace, KeepDeleted: opts.KeepDeleted, Log: opts.Log},
		sentry: &companion.Program{Name: companion.SentryName, Path: opts.SentryPath}, gofer: &companion.Program{Name: companion.GoferName, Path: opts.GoferPath},
	}
	l.begins.Store, l.begins.Version = opts.Store, snapshot.VersionOf(l.sentry)
	l.Warm = warm.New(warm.Options{Store: opts.Store, Cgroups: host, Sentry: l.sentry, Gofer: l.gofer, Policy: opts.Policy, KillTimeout: opts.KillTimeout, Log: opts.Log})
	return l, nil
}

// Create makes a sandbox of the entry and returns when its application was
// started; see reconcile.Launcher.
func (l *Launcher) Create(ctx context.Context, e *desired.Entry, restart *actual.Request, digest string) error {
	name := e.Sandbox.Metadata.Name
	defer l.Warm.Starting()()
	if err := l.create(ctx, e, restart, digest, time.Now()); err != nil {
		return fmt.Errorf("create sandbox %s: %w", name, err)
	}
	return nil
}

func (l *Launcher) create(ctx context.Context, e *desired.Entry, restart *actual.Request, digest string, began time.Time) error {
	if err := l.logs.Room(); err != nil {
		return err
	}
	// The policy may have changed since the decision to create: what counts is
	// what it allows now. Nothing has been touched yet.
	policy, err := l.allowed(e.Sandbox)
	if err != nil {
		return err
	}
	root, err := l.openRoot(ctx, e.Sandbox, digest)
	if err != nil {
		return err
	}
	// Until it is on record it is kept in the store by this.
	defer root.Close()
	rec, err := l.intent(ctx, e, restart.ID(), root.Setup().Record())
	if err != nil {
		return err
	}
	// With the intent: what could not be used is tried again as soon as it changes.
	in, inErr := inputs.ForStart(ctx, e.Sandbox, l.documents(e), policy, l.host(l.sentry.Path, l.gofer.Path))
	rec.HasRead(in.Inputs)
	in.Objects = e.Objects
	joined, netErr := l.join(rec, e, policy)
	inErr, in.Places = errors.Join(inErr, netErr), bridge.Places(rec)
	pass := operation.PassOf(ctx)
	rec.StartBegins(pass.Began, pass.Read, began)
	if err := l.store.Put(rec); err != nil {
		return fmt.Errorf("record intent: %w", err)
	}
	joined()
	rec.StartReaches(actual.StartSpawn, time.Now())
	if err = inErr; err == nil {
		err = root.Blame(ctx, l.start(ctx, rec, e.Sandbox, root, policy, restart, in))
	}
	if err == nil {
		return nil
	}
	if !operation.Shutdown(ctx) {
		err = errors.Join(err, l.abort(ctx, rec, err))
	}
	if operation.Shutdown(ctx) {
		// What there is stays, as if this program had been killed: the next one
		// resumes or undoes it, and counts no failure.
		return errors.Join(operation.ErrShutdown, err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return errors.Join(cause, err)
	}
	return err
}

// Refresh gives a sandbox that runs the new files of volumes; see reconcile.Launcher.
func (l *Launcher) Refresh(ctx context.Context, e *desired.Entry, volumes []string) error {
	rec, err := l.load(e.Sandbox.Metadata.Name)
	if err == nil && rec == nil {
		err = errors.New("it has no record")
	}
	var policy *hostpolicy.Policy
	if err == nil {
		policy, err = l.allowed(e.Sandbox)
	}
	if err == nil {
		err = refresh.Run(ctx, l.store, rec, e, volumes, l.documents(e), policy, l.host(l.sentry.Path, l.gofer.Path))
	}
	switch cause := context.Cause(ctx); {
	case err == nil:
		return nil
	case operation.Shutdown(ctx):
		err = errors.Join(operation.ErrShutdown, err)
	case cause != nil:
		err = errors.Join(cause, err)
	}
	return fmt.Errorf("refresh sandbox %s: %w", e.Sandbox.Metadata.Name, err)
}

// documents are what the manifest of an entry may take values of.
func (l *Launcher) documents(e *desired.Entry) inputs.Documents {
	return inputs.Documents{Objects: e.Objects, HostKey: l.opts.HostKey}
}

// openRoot takes the image that the root is, nil if it is none.
func (l *Launcher) openRoot(ctx context.Context, sb *desired.Sandbox, digest string) (*hostfs.Image, error) {
	want := sb.Spec.Root.Image
	if want == nil || l.opts.Image == nil {
		return nil, nil // the set-up misses it
	}
	return l.opts.Image(ctx, want, digest)
}

// allowed returns the policy if it allows the manifest.
func (l *Launcher) allowed(sb *desired.Sandbox) (*hostpolicy.Policy, error) {
	policy, err := l.opts.Policy()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range policy.Check(sb) {
		errs = append(errs, fmt.Errorf("%s: %s", e.Field, e.Message))
	}
	return policy, errors.Join(errs...)
}

// intent is the record of a sandbox about to be created, from the one it had.
func (l *Launcher) intent(ctx context.Context, e *desired.Entry, restartToken string, img *actual.Image) (*actual.Record, error) {
	name := e.Sandbox.Metadata.Name
	old, err := l.load(name)
	if err != nil {
		return nil, err
	}
	spec, err := desired.Canonical(e.Sandbox)
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	// Also with a record: one that was put back from a copy does not know what was
	// started since.
	if err := l.CheckStrays(name); err != nil {
		return nil, err
	}
	in := actual.Intent{
		Name: name, Spec: spec, SpecHash: e.Hash, SourceFile: e.Source.File, SourceDigest: e.Digest, RestartToken: restartToken,
		Image: img,
	}
	if in.BootID, err = process.BootID(); err != nil {
		return nil, err
	}
	if old == nil {
		if err := l.store.Claim(name); err != nil {
			return nil, fmt.Errorf("claim name: %w", err)
		}
		in.UID = actual.NewUID()
	} else {
		if err := proc.ProveDead(old.Sentry, old.Gofer); err != nil {
			return nil, err
		}
		// What a crash may have left of an earlier attempt.
		if _, err := l.release(operation.CleanUp(ctx), old); err != nil {
			return nil, fmt.Errorf("clean up attempt %d: %w", old.Attempt, err)
		}
	}
	return actual.NextAttempt(old, in, time.Now()), nil
}

// CheckStrays returns an error if something lives of a name and no record knows it,
// or if that can't be told.
func (l *Launcher) CheckStrays(name string) error { return l.strays.Check(l.store, l.cgroups, name) }

// load returns the record of a name, nil if there is none.
func (l *Launcher) load(name string) (*actual.Record, error) {
	rec, quarantined, err := l.store.Get(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("load record: %w", err)
	case quarantined != nil:
		return nil, fmt.Errorf("load record: %s: %s", quarantined.Reason, quarantined.Message)
	}
	return rec, nil
}

// abort undoes a create that failed or was cancelled: nothing is left running, and
// the record says why.
func (l *Launcher) abort(create context.Context, rec *actual.Record, cause error) error {
	// Not the context of the create: it may be what failed.
	cleanUp := operation.CleanUp(create)
	ctx, cancel := context.WithTimeout(cleanUp, 2*l.opts.KillTimeout)
	defer cancel()
	if err := l.reapPair(ctx, rec); err != nil {
		return err
	}
	if _, err := l.release(ctx, rec); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	if err := l.afterEnd(cleanUp, rec); err != nil {
		return err
	}
	if reason := operation.CancelReason(create); reason != "" {
		rec.Cancelled(reason, time.Now())
	} else {
		rec.Failed(untrusted.Line(cause.Error(), 1000), operation.Permanent(cause), time.Now())
		rec.App().LastExit.PreconditionFailed = operation.PreconditionFailed(cause)
	}
	if err := l.store.PutUrgent(rec); err != nil {
		return fmt.Errorf("record failure: %w", err)
	}
	return nil
}

// TrimLogs removes logs that take too much of the disk, and those of deleted
// sandboxes whose time is over. It may be called as often as a disk fills up.
func (l *Launcher) TrimLogs() error { return l.logs.TrimGrown() }

// Forget removes the record and logs of a stopped sandbox; see
// reconcile.Launcher.
func (l *Launcher) Forget(_ context.Context, name string) error {
	rec, err := l.loadStopped(name)
	switch {
	case err != nil:
	case rec != nil:
		err = l.forget(rec)
	default:
		err = l.store.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("forget sandbox %s: %w", name, err)
	}
	return nil
}

// Retire gives up all of a finished sandbox but its record; see reconcile.Launcher.
func (l *Launcher) Retire(_ context.Context, name string) error {
	rec, err := l.loadStopped(name)
	if err == nil && rec != nil {
		l.keepLogs(rec)
		// What is retired on record has no logs, also where they could not be kept.
		if err = l.logs.Drop(name); err == nil {
			rec = rec.Clone()
			rec.Retire()
			err = l.store.Put(rec)
		}
	}
	if err != nil {
		return fmt.Errorf("retire sandbox %s: %w", name, err)
	}
	return nil
}

// loadStopped returns the record of a name, nil if there is none. It must be stopped, and
// proven dead.
func (l *Launcher) loadStopped(name string) (*actual.Record, error) {
	rec, err := l.load(name)
	if err != nil || rec == nil {
		return nil, err
	}
	if rec.Phase != actual.PhaseStopped {
		return nil, fmt.Errorf("it is %s, expected Stopped", rec.Phase)
	}
	return rec, proc.ProveDead(rec.Sentry, rec.Gofer)
}

// forget removes the record of a sandbox that is proven dead.
func (l *Launcher) forget(rec *actual.Record) error {
	l.keepLogs(rec)
	return l.store.Remove(rec.Name)
}

// keepLogs keeps the logs of a sandbox that goes. They hold no removal up: what can't be
// kept goes with the rest.
func (l *Launcher) keepLogs(rec *actual.Record) {
	if err := l.logs.Keep(rec.Name, rec.Attempt); err != nil {
		l.opts.Log.Warn("logs of a deleted sandbox are not kept", "sandbox", rec.Name, "err", err)
	}
}
