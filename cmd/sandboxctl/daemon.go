// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/programs"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/view"
)

type daemonFlags struct {
	once            bool
	programs        programs.Flags
	sentryLog       string
	allowEmpty      bool
	allowMassDelete bool
	workers         int
	logSpace        string
	keepDeleted     time.Duration
	resync          time.Duration
	pollEvery       time.Duration
	logFormat       string
	logLevel        string
}

func (a *app) daemonCommand() *cobra.Command {
	var f daemonFlags
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Converge sandboxes with the manifests, for ever or once",
		Long: `Converge sandboxes with the manifests, and keep them converged.

The daemon starts, restarts and stops sandboxes until what runs is what the
manifests directory says. It can be stopped, killed and upgraded at any time:
sandboxes keep running without it and the next daemon adopts them.

With --once it converges and ends: exit code 0 if everything is as the manifests
say, 1 if not (see ` + "`sandboxctl get`" + ` for why).`,
		Example: `  sandboxctl daemon
  sandboxctl daemon --once
  sandboxctl --manifests ./manifests --state /tmp/state daemon --log-format json`,
		Args: exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.daemon(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.once, "once", false, "converge, then end")
	f.programs.Register(fl)
	fl.StringVar(&f.sentryLog, "sentry-log-level", "warning", "what sentries log: warning, info or debug")
	fl.BoolVar(&f.allowEmpty, "allow-empty", false, "believe a manifests directory that was replaced by an empty one")
	fl.BoolVar(&f.allowMassDelete, "allow-mass-delete", false, "remove any number of sandboxes without approval")
	fl.IntVar(&f.workers, "workers", 4, "operations at the same time, of each kind: starts after a failure, starts that somebody asked for, clean-up")
	fl.StringVar(&f.logSpace, "log-space", "", "how much the logs of all sandboxes may take together, such as 500Mi (default: a tenth of the disk, at most 4Gi)")
	fl.DurationVar(&f.keepDeleted, "keep-deleted-logs", time.Hour, "how long the logs of deleted sandboxes can be read (0: not at all); 64Mi and 100 sandboxes at most")
	fl.DurationVar(&f.resync, "resync", 30*time.Second, "look at everything at least this often")
	fl.DurationVar(&f.pollEvery, "poll", 10*time.Second, "look this often whether the manifests directory is still the same (without inotify: what is in it)")
	fl.StringVar(&f.logFormat, "log-format", "text", "log on stderr as text or json")
	fl.StringVar(&f.logLevel, "log-level", "info", "log level: debug, info, warn or error")
	completeValues(cmd, "sentry-log-level", "warning", "info", "debug")
	completeValues(cmd, "log-format", "text", "json")
	completeValues(cmd, "log-level", "debug", "info", "warn", "error")
	return cmd
}

func (f *daemonFlags) logger(a *app) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, exit.Usagef("--log-level: %v", err)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(seldom(slog.NewTextHandler(a.stderr, opts))), nil
	case "json":
		return slog.New(seldom(slog.NewJSONHandler(a.stderr, opts))), nil
	}
	return nil, exit.Usagef("--log-format: expected text or json, got %q", f.logFormat)
}

func (f *daemonFlags) check() error {
	switch f.sentryLog {
	case "warning", "info", "debug":
	default:
		return exit.Usagef("--sentry-log-level: expected warning, info or debug, got %q", f.sentryLog)
	}
	if f.workers < 1 || f.resync < time.Second || f.pollEvery < 100*time.Millisecond {
		return exit.Usagef("expected --workers of at least 1, --resync of at least 1s and --poll of at least 100ms")
	}
	if f.keepDeleted < 0 {
		return exit.Usagef("--keep-deleted-logs: expected a duration such as 1h, or 0, got %s", f.keepDeleted)
	}
	return nil
}

// daemon wires the parts together and runs them.
func (a *app) daemon(ctx context.Context, f *daemonFlags) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	log, err := f.logger(a)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("the daemon must be started by root: it makes namespaces and mounts for sandboxes")
	}
	if err := gofer.CanRun(); err != nil {
		return err
	}
	opts := launcher.Options{SentryLogLevel: f.sentryLog, KeepDeleted: f.keepDeleted, Log: log}
	if opts.SentryPath, opts.GoferPath, err = f.programs.Find(); err != nil {
		return err
	}
	if err := pair.PrepareProcess(); err != nil {
		return err
	}
	if err := hardenDaemon(log); err != nil {
		return err
	}
	store, err := actual.OpenStore(a.state)
	if err != nil {
		return err
	}
	left := false
	defer func() {
		if !left {
			err = errors.Join(err, store.Close())
		}
	}()
	if err := store.Lock(); err != nil {
		return err
	}
	if _, err := store.SweepTrash(); err != nil {
		log.Warn("trash not emptied", "err", err)
	}
	if err := store.FillReserve(); err != nil {
		log.Warn("nothing could be removed on a full disk: no reserve", "err", err)
	}
	busy, err := store.SweepTemps()
	if err != nil {
		log.Warn("temporary files not removed", "err", err)
	}
	d, err := a.newDaemon(f, store, opts, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.journal.Close()) }()
	d.unswept = busy > 0
	if err := d.launcher.TrimLogs(); err != nil {
		log.Warn("old logs not removed", "err", err)
	}
	err = d.run(ctx, f.once)
	// Who still uses the store keeps it, and the lock, until the end of the process:
	// no other daemon begins before.
	left = len(d.loop.Unfinished()) > 0
	return err
}

// daemon is a running daemon.
type daemon struct {
	store    *actual.Store
	journal  *actual.Journal
	observer *actual.Observer
	dir      *manifestdir.Dir
	policy   *hostpolicy.File
	launcher *launcher.Launcher
	loop     *reconcile.Loop
	log      *slog.Logger
	resync   time.Duration
	full     chan struct{} // the disk has become full: what can be dropped is
	noRoom   bool          // the disk is full
	unswept  bool          // temporary files were left that may be nobody's
	degraded string        // why changes are noticed late, as was told last
	pressure string        // what is not done for want of room, as was told last

	info   actual.DaemonInfo
	memory manifestdir.Memory
	kept   bool // info and memory are on disk
	out    *app
}

func (a *app) newDaemon(f *daemonFlags, store *actual.Store, opts launcher.Options, log *slog.Logger) (*daemon, error) {
	manifests, err := filepath.Abs(a.manifests)
	if err != nil {
		return nil, fmt.Errorf("find manifests directory: %w", err)
	}
	boot, err := actual.BootID()
	if err != nil {
		return nil, err
	}
	// The last daemon's is not asked: what this one was started with counts.
	hostPolicy := a.policyFile(nil)
	var space desired.Bytes
	if f.logSpace != "" {
		if err := space.UnmarshalJSON([]byte(strconv.Quote(f.logSpace))); err != nil {
			return nil, exit.Usagef("--log-space: %v", err)
		}
	}
	opts.Store, opts.Policy, opts.LogSpace = store, hostPolicy.Load, uint64(space)
	l, err := launcher.New(opts)
	if err != nil {
		return nil, err
	}
	d := &daemon{store: store, launcher: l, observer: actual.NewObserver(store), policy: hostPolicy, log: log, out: a, resync: f.resync, full: make(chan struct{}, 1)}
	if d.journal, err = store.OpenJournal(); err != nil {
		return nil, err
	}
	var removals []time.Time
	dirOpts := manifestdir.Options{Path: manifests, AllowEmpty: f.allowEmpty, PollEvery: f.pollEvery, Resync: f.resync, BootID: boot, Policy: hostPolicy.Policy}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	dirOpts.Expected = len(list.Records)+len(list.Quarantined) > 0
	old, _, err := store.DaemonInfo()
	if err != nil {
		log.Warn("what the last daemon has written down can't be read", "err", err)
	}
	if old != nil {
		removals = old.Removals
	}
	if old != nil && old.ManifestsDir == manifests && len(old.Memory) > 0 {
		dirOpts.Memory = &d.memory
		if err := json.Unmarshal(old.Memory, &d.memory); err != nil {
			log.Warn("what the last daemon has written down can't be read", "err", err)
			dirOpts.Memory = nil
		}
	}
	d.dir = manifestdir.New(dirOpts)
	policy := reconcile.DefaultPolicy()
	policy.AllowMassDelete = f.allowMassDelete
	if d.info, err = describeDaemon(manifests, policy); err != nil {
		return nil, err
	}
	d.info.HostPolicy = actual.PolicyRef{Path: hostPolicy.Options().Path, Optional: hostPolicy.Options().Optional}
	d.loop = reconcile.New(reconcile.Options{
		View:     &view.View{Source: d.dir, Observer: d.observer, Network: lookAtNetwork, Policy: policy},
		Launcher: l, Repairer: l, Requests: store, Events: d.journal, Publish: d.publish,
		LastExit: func(name string) *actual.Exit {
			rec, _, err := store.Get(name)
			if err != nil || rec == nil {
				return nil
			}
			return rec.App().LastExit
		},
		Workers: f.workers, Resync: f.resync, Rest: 25 * time.Millisecond, Log: log,
		Wakes: []<-chan struct{}{d.dir.Changes(), d.observer.Exits()},
		OnPass: func(in reconcile.Input, _ reconcile.Plan) {
			d.remember(in.Removals, in.Desired.Policy)
			d.announceWatch()
			d.announceDisk(in.Actual)
		},
		Removals: removals,
	})
	return d, nil
}

// publish has other programs know what the loop does and waits for.
func (d *daemon) publish(p reconcile.Progress) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode progress: %w", err)
	}
	return d.store.PutProgress(&actual.Progress{Process: d.info.Process, State: b})
}

// describeDaemon is what other programs can read of this one.
func describeDaemon(manifests string, policy reconcile.Policy) (actual.DaemonInfo, error) {
	p, err := json.Marshal(policy)
	if err != nil {
		return actual.DaemonInfo{}, fmt.Errorf("encode policy: %w", err)
	}
	pid := os.Getpid()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return actual.DaemonInfo{}, fmt.Errorf("identify daemon: %w", err)
	}
	defer unix.Close(fd)
	self, err := actual.Identify(fd, pid)
	if err != nil {
		return actual.DaemonInfo{}, err
	}
	return actual.DaemonInfo{Version: programVersion(), Process: self, StartedAt: time.Now(), ManifestsDir: manifests, Policy: p}, nil
}

// announceWatch tells when changes of the manifests begin to be noticed late,
// and when that is over.
func (d *daemon) announceWatch() {
	why := d.dir.Degraded()
	if why == d.degraded {
		return
	}
	d.degraded = why
	e := actual.Event{Type: actual.EventWarning, Reason: actual.EventWatchDegraded, Message: why}
	level := slog.LevelWarn
	if why == "" {
		e = actual.Event{Type: actual.EventNormal, Reason: actual.EventWatchRestored, Message: "changes of the manifests are noticed at once again"}
		level = slog.LevelInfo
	}
	d.log.Log(context.Background(), level, "watch of the manifests", "reason", e.Reason, "message", e.Message)
	if err := d.journal.Append(e); err != nil {
		d.log.Warn("event not recorded", "err", err)
	}
}

// announceDisk tells when room begins to be short, and when that is over.
func (d *daemon) announceDisk(have *actual.Snapshot) {
	if full := have.DiskFull != ""; full != d.noRoom {
		if d.noRoom = full; full {
			select {
			case d.full <- struct{}{}:
			default: // it is about to be looked at
			}
		}
	}
	why := have.DiskPressure
	if (why == "") == (d.pressure == "") {
		return
	}
	d.pressure = why
	e := actual.Event{Type: actual.EventWarning, Reason: actual.EventDiskPressure, Message: why}
	level := slog.LevelWarn
	if why == "" {
		e = actual.Event{Type: actual.EventNormal, Reason: actual.EventDiskPressureOver, Message: "the disk of the state directory has room again"}
		level = slog.LevelInfo
	}
	d.log.Log(context.Background(), level, "disk of the state", "reason", e.Reason, "message", e.Message)
	if err := d.journal.Append(e); err != nil {
		d.log.Warn("event not recorded", "err", err)
	}
}

// remember keeps what the source must know after a restart, and what manifests
// are judged by.
func (d *daemon) remember(removals []time.Time, policy desired.Policy) {
	m := d.dir.Memory()
	digest := ""
	if policy != nil {
		digest = policy.Digest()
	}
	if d.kept && m.Equal(&d.memory) && slices.EqualFunc(removals, d.info.Removals, time.Time.Equal) && digest == d.info.HostPolicy.Digest {
		return
	}
	if digest != d.info.HostPolicy.Digest && digest != "" {
		d.log.Info("host policy", "from", policy.Source(), "digest", digest)
	}
	d.info.Removals, d.info.HostPolicy.Digest, d.kept = removals, digest, false
	b, err := json.Marshal(m)
	if err == nil {
		d.info.Memory = b
		err = d.store.PutDaemonInfo(&d.info)
	}
	if err != nil {
		d.log.Warn("memory of the manifests directory not kept", "err", err)
		return
	}
	d.memory, d.kept = m, true
}

// watchRetry is how long a watcher that has failed waits before it is started
// again.
const watchRetry = time.Second

func (d *daemon) run(ctx context.Context, once bool) error {
	d.log.Info("daemon started", "version", d.info.Version, "pid", d.info.Process.PID, "manifests", d.info.ManifestsDir, "state", d.store.Path())
	// The watchers end after the loop, which may still be waiting for the end
	// of operations.
	watchCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{
		"watch manifests": d.dir.Run, "watch processes": d.observer.Run, "watch requests": d.watchRequests, "sweep": d.sweep,
		"watch host policy": d.watchPolicy,
	} {
		wg.Go(func() {
			for watchCtx.Err() == nil {
				err := run(watchCtx)
				if err == nil {
					return
				}
				// Meanwhile the loop looks at everything now and then.
				d.log.Error(name+" failed, will retry", "err", err)
				select {
				case <-watchCtx.Done():
				case <-time.After(watchRetry):
				}
			}
		})
	}
	defer wg.Wait()
	defer stop()
	if !once {
		err := d.loop.Run(ctx)
		d.log.Info("daemon stopped; sandboxes keep running")
		return err
	}
	summary, err := d.loop.Once(ctx)
	if err != nil {
		return err
	}
	if !summary.Converged {
		return &exit.Error{Code: exit.Failure, Err: fmt.Errorf("not converged: %d of %d sandboxes are ready%s; see `sandboxctl get`", summary.Ready, summary.Sandboxes, why(&summary))}
	}
	fmt.Fprintf(d.out.stderr, "converged: %d sandboxes\n", summary.Sandboxes)
	return nil
}

func why(s *reconcile.Summary) string {
	if s.Complete {
		return ""
	}
	return ", " + s.Message
}

// sweep removes what killed programs have left of their requests, and what could
// not be removed when it should have been.
func (d *daemon) sweep(ctx context.Context) error {
	every := time.NewTicker(d.resync)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		case <-d.full:
		}
		// Freed first, so that there is room for the reserve.
		err := errors.Join(d.launcher.TrimLogs(), d.store.FillReserve(), d.store.SweepRequests())
		var terr error
		for more := true; more && terr == nil && ctx.Err() == nil; {
			more, terr = d.store.SweepTrash()
		}
		err = errors.Join(err, terr)
		if d.unswept {
			busy, serr := d.store.SweepTemps()
			d.unswept, err = busy > 0 || serr != nil, errors.Join(err, serr)
		}
		if err != nil {
			d.log.Warn("not everything that is left over was removed", "err", err)
		}
	}
}
