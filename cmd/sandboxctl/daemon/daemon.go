// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path"
	"sync"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/clients"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/bridge"
	"sandboxctl.dev/launcher/cni"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/inputs"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/rootimage"
	"sandboxctl.dev/launcher/snapshot"
	"sandboxctl.dev/launcher/volume"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/attached"
	"sandboxctl.dev/reconcile/fits"
	"sandboxctl.dev/reconcile/loop"
	"sandboxctl.dev/reconcile/needs"
	"sandboxctl.dev/reconcile/view"
)

// converge runs a daemon until its context ends, or with --once until all is converged.
func converge(ctx context.Context, h *world.Host, version string, f *flags) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	log, err := f.logger(h.Stderr)
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
	if err := harden(log); err != nil {
		return err
	}
	store, err := actual.OpenStore(h.State)
	if err != nil {
		return err
	}
	left := false
	defer func() {
		if !left {
			err = errors.Join(err, store.Close())
		}
	}()
	unswept, err := takeOver(store, log)
	if err != nil {
		return err
	}
	d, err := newDaemon(h, version, f, store, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.journal.Close()) }()
	d.unswept = unswept
	d.openClients(h, f)
	if err := d.launcher.TrimLogs(); err != nil {
		log.Warn("old logs not removed", "err", err)
	}
	if f.once {
		err = d.once(ctx, h.Stderr)
	} else {
		err = d.run(ctx)
	}
	// Who still uses the store keeps it, and the lock, until the end of the process:
	// no other daemon begins before.
	left = len(d.loop.Unfinished()) > 0
	return err
}

// takeOver locks the state, and removes what killed programs have left there. It says
// whether temporary files may be left that are nobody's.
func takeOver(store *actual.Store, log *slog.Logger) (unswept bool, err error) {
	if err := store.Lock(); err != nil {
		return false, err
	}
	// What it moves into the trash is removed next, up to a bound.
	if err := volume.Sweep(context.Background(), store.RootDir()); err != nil {
		log.Warn("not everything that is left over of volumes was removed", "err", err)
	}
	if err := snapshot.Sweep(context.Background(), store.RootDir()); err != nil {
		log.Warn("not everything that is left over of snapshots was removed", "err", err)
	}
	if _, err := store.SweepTrash(); err != nil {
		log.Warn("trash not emptied", "err", err)
	}
	if s, err := image.OpenStore(store.Path()); err != nil {
		// The disk is full: sandboxes can be stopped all the same.
		log.Warn("leftovers of images not removed", "err", err)
	} else {
		if err := s.Unswept(); err != nil {
			log.Warn("leftovers of images not removed", "err", err)
		}
		_ = s.Close() // it never fails
	}
	if err := store.FillReserve(); err != nil {
		log.Warn("nothing could be removed on a full disk: no reserve", "err", err)
	}
	busy, err := store.SweepTemps()
	if err != nil {
		log.Warn("temporary files not removed", "err", err)
	}
	return busy > 0, nil
}

// daemon is a running daemon.
type daemon struct {
	store    *actual.Store
	journal  *actual.Journal
	observer *actual.Observer
	dir      *manifestdir.Dir
	policy   *hostpolicy.File
	launcher *launcher.Launcher
	networks *bridge.Keeper
	checker  *cni.Checker
	loop     *loop.Loop
	inputs   *inputs.Poll // files of the host that manifests refer to
	clock    *moment.Steps
	callers  *callers        // processes that sandboxes are for
	clients  *clients.Server // nil if there is no socket
	log      *slog.Logger
	resync   time.Duration
	sweeps   chan struct{} // what is left over is to be removed
	swept    time.Time     // when that was asked for
	noRoom   bool          // the disk is full
	unswept  bool          // temporary files were left that may be nobody's
	degraded string        // why changes are noticed late, as was told last
	pressure string        // what is not done because room ran out, as was told last

	info   actual.DaemonInfo
	memory manifestdir.Memory
	kept   bool // info and memory are on disk
}

func newDaemon(h *world.Host, version string, f *flags, store *actual.Store, opts launcher.Options) (*daemon, error) {
	// The last daemon's policy is not asked for: what this one was started with counts.
	hostPolicy := h.PolicyFile(&actual.DaemonInfo{Registries: f.registries})
	space, err := f.space()
	if err != nil {
		return nil, err
	}
	opts.Store, opts.Policy, opts.LogSpace, opts.HostKey = store, hostPolicy.Load, uint64(space), hostKey(store)
	images := &rootimage.Images{State: store.Path()}
	opts.Image = images.Open
	program, err := companion.Find(companion.ImageName, "")
	if err != nil {
		return nil, err
	}
	// Who writes it runs as root at the next pull.
	opts.Programs = []string{program}
	pulls := rootimage.Puller{Program: &companion.Program{Name: companion.ImageName, Path: program}, State: store.Path(), Registries: f.registries, Policy: hostPolicy.Load}
	if opts.Networks, err = bridge.New(store, f.resync, opts.Log); err != nil {
		return nil, err
	}
	l, err := launcher.New(opts)
	if err != nil {
		return nil, err
	}
	d := &daemon{
		store: store, launcher: l, networks: opts.Networks, checker: cni.NewChecker(store, hostPolicy.Load, opts.Log), observer: actual.NewObserver(store), policy: hostPolicy, log: opts.Log, resync: f.resync, sweeps: make(chan struct{}, 1), swept: time.Now(),
		inputs: inputs.NewPoll(new(inputs.Looker).Look), clock: moment.NewSteps(), callers: newCallers(h, opts.Log),
	}
	policy := reconcile.DefaultPolicy()
	policy.AllowMassDelete = f.allowMassDelete
	if d.info, err = describe(version, h.Manifests, policy); err != nil {
		return nil, err
	}
	d.info.HostPolicy = actual.PolicyRef{Path: hostPolicy.Options().Path, Optional: hostPolicy.Options().Optional}
	d.info.Registries = f.registries
	d.info.InputKey = objects.HostKey(opts.HostKey).Digits()
	if err := d.openManifests(f); err != nil {
		return nil, err
	}
	if d.journal, err = store.OpenJournal(); err != nil {
		return nil, err
	}
	d.loop = loop.New(loop.Options{
		View:     &view.View{Source: d.dir, Observer: d.observer, Network: world.LookAtNetwork, Files: world.FileLooker(), HostKey: func() objects.HostKey { return opts.HostKey }, Image: func(_ context.Context, ref string) string { return images.Find(ref) }, Volumes: (&world.VolumeLooker{State: store.RootDir()}).Look, Room: func() *fits.Room { return world.LookAtDisk(store) }, Routes: d.routes, Policy: policy},
		Launcher: l, Repairer: l, Puller: pulls, Volumes: world.Volumes{State: store.RootDir(), Manifests: h.Manifests}, Requests: store, Events: d.journal, Publish: d.publish,
		LastExit: func(name string) *actual.Exit {
			rec, _, err := store.Get(name)
			if err != nil || rec == nil {
				return nil
			}
			return rec.App().LastExit
		},
		Workers: f.workers, Resync: f.resync, Rest: 25 * time.Millisecond, Log: d.log,
		Wakes: []<-chan struct{}{d.dir.Changes(), d.observer.Exits(), d.inputs.Changes(), d.networks.Changes(), d.checker.Changes(), d.clock.Changes()},
		Lacks: d.lacks, OnInput: d.declareNetworks,
		OnPass: func(in reconcile.Input, plan reconcile.Plan) {
			d.inputs.Want(ofHost(in.Files))
			d.tellNetworks(&in)
			d.remember(in.Removals, in.Desired.Policy)
			d.announce(&in, &plan)
			d.tellPools(in.Desired)
			// With a pass, so that an idle daemon wakes once for both.
			if time.Since(d.swept) >= d.resync {
				d.askForSweep()
			}
		},
		Removals: d.info.Removals,
	})
	return d, nil
}

// routes are those of the host, none if they can't be read: then the start tells.
func (d *daemon) routes() []netip.Prefix {
	host, err := links.Look()
	if err != nil {
		d.log.Warn("routes of the host not looked at", "err", err)
		return nil
	}
	return host.Routes
}

// lacks is what sandboxes do not have of their networks.
func (d *daemon) lacks() map[string]attached.Lack {
	found := d.networks.Lacks()
	out := make(map[string]attached.Lack, len(found))
	for name, lack := range found {
		out[name] = attached.Lack{
			UID: lack.UID, Attempt: lack.Attempt, Gone: lack.Gone, Refused: lack.Refused, Unlimited: lack.Unlimited, Dropping: lack.Dropping,
		}
	}
	for name, f := range d.checker.Failed() { // a sandbox has one kind of network
		out[name] = attached.Lack{UID: f.UID, Attempt: f.Attempt, Check: f.Message}
	}
	return out
}

// hostKey is the key of this host for documents: that of the last daemon, or a new one.
// It is on disk with what this daemon says of itself.
func hostKey(store *actual.Store) objects.HostKey {
	if old, _, err := store.DaemonInfo(); err == nil && old != nil && objects.ParseHostKey(old.InputKey) != nil {
		return objects.ParseHostKey(old.InputKey)
	}
	return objects.NewHostKey()
}

// ofHost is what a pass has found of files of the host, which can be polled.
func ofHost(found map[string]needs.File) map[string]inputs.File {
	var out map[string]inputs.File
	for p, f := range found {
		if !path.IsAbs(p) {
			continue // a document
		}
		if out == nil {
			out = make(map[string]inputs.File, len(found))
		}
		out[p] = inputs.File(f)
	}
	return out
}

// declareNetworks says what Network documents say, before a pass starts anything: a sandbox
// could else be given the default route of a document before, and would be restarted by the
// next pass. Rules follow with tellNetworks.
func (d *daemon) declareNetworks(in reconcile.Input) {
	d.networks.Declare(documentsOf(in.Desired), attached.Whole(in.Desired))
}

// tellNetworks says what manifests want of networks, and what the host policy allows.
func (d *daemon) tellNetworks(in *reconcile.Input) {
	if p, ok := in.Desired.Policy.(*hostpolicy.Policy); ok {
		d.networks.Bound(p.Network.MaxConnections)
	}
	d.networks.Want(networksOf(in))
}

// documentsOf are the Network documents, by name.
func documentsOf(want *desired.Snapshot) (out map[string]*networks.Declared) {
	for i := range want.Objects {
		o := &want.Objects[i]
		if o.Network == nil {
			continue
		}
		if out == nil {
			out = map[string]*networks.Declared{}
		}
		_, name, _ := objects.Split(o.Name())
		out[name] = o.Network
	}
	return out
}

// networksOf is what manifests say of networks, by sandbox, and which sandboxes have
// attachments to one on record.
func networksOf(in *reconcile.Input) (wanted map[string]*networks.Network, recorded map[string]bool) {
	for i := range in.Desired.Entries {
		if n := &in.Desired.Entries[i].Sandbox.Spec.Network; n.Mode == networks.Bridge {
			if wanted == nil {
				wanted = map[string]*networks.Network{}
			}
			wanted[in.Desired.Entries[i].Sandbox.Metadata.Name] = n
		}
	}
	for i := range in.Actual.Sandboxes {
		if r := in.Actual.Sandboxes[i].Record; len(r.Attachments) > 0 {
			if recorded == nil {
				recorded = map[string]bool{}
			}
			recorded[r.Name] = true
		}
	}
	return wanted, recorded
}

// openManifests opens the manifests directory with what the last daemon remembered of
// it, and takes over which removals that has seen.
func (d *daemon) openManifests(f *flags) error {
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	list, err := d.store.List()
	if err != nil {
		return err
	}
	opts := manifestdir.Options{
		Path: d.info.ManifestsDir, AllowEmpty: f.allowEmpty, PollEvery: f.pollEvery, Resync: f.resync, BootID: boot, Policy: d.policy.Policy,
		Expected: len(list.Records)+len(list.Quarantined) > 0,
	}
	old, _, err := d.store.DaemonInfo()
	if err != nil {
		d.log.Warn("what the last daemon has written down can't be read", "err", err)
	}
	if old != nil {
		d.info.Removals = old.Removals
	}
	if old != nil && old.ManifestsDir == d.info.ManifestsDir && len(old.Memory) > 0 {
		opts.Memory = &d.memory
		if err := json.Unmarshal(old.Memory, &d.memory); err != nil {
			d.log.Warn("what the last daemon has written down can't be read", "err", err)
			opts.Memory = nil
		}
	}
	d.dir = manifestdir.New(opts)
	return nil
}

// watchRetry is how long a watcher that has failed waits before it is started
// again.
const watchRetry = time.Second

// run converges for ever.
func (d *daemon) run(ctx context.Context) error {
	// A daemon that runs once leaves before anybody could use what waits.
	more := map[string]func(context.Context) error{"keep processes waiting": d.launcher.Warm.Run}
	if d.clients != nil {
		// They end with ctx, before the loop does: no pass would carry out what they ask for.
		more["serve clients"] = func(context.Context) error { return d.clients.Run(ctx) }
	}
	defer d.watch(ctx, more)()
	err := d.loop.Run(ctx)
	d.log.Info("daemon stopped; sandboxes keep running")
	return err
}

// once converges one time, and is an error if that can't be done.
func (d *daemon) once(ctx context.Context, out io.Writer) error {
	if err := d.launcher.Warm.Sweep(ctx); err != nil {
		d.log.Warn("not everything that waited for a sandbox has ended", "err", err)
	}
	defer d.watch(ctx, nil)()
	summary, err := d.loop.Once(ctx)
	if err != nil {
		return err
	}
	if !summary.Converged {
		return &exit.Error{Code: exit.Failure, Err: fmt.Errorf("not converged: %d of %d sandboxes are ready%s; see `sandboxctl get`", summary.Ready, summary.Sandboxes, why(&summary))}
	}
	fmt.Fprintf(out, "converged: %d sandboxes\n", summary.Sandboxes)
	return nil
}

// watch starts what wakes the loop, and more, and returns how to end it: after the loop, which
// may still be waiting for the end of operations.
func (d *daemon) watch(ctx context.Context, more map[string]func(context.Context) error) (end func()) {
	d.launcher.Warm.OnCold = d.drained
	d.log.Info("daemon started", "version", d.info.Version, "pid", d.info.Process.PID, "manifests", d.info.ManifestsDir, "state", d.store.Path())
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	all := map[string]func(context.Context) error{
		"watch manifests": d.dir.Run, "watch processes": d.observer.Run, "watch requests": d.watchRequests, "sweep": d.sweep,
		"watch host policy": d.watchPolicy, "watch files": d.inputs.Run,
		"keep networks": d.networks.Run, "check networks": d.checker.Run, "watch clock": d.clock.Run, "watch callers": d.callers.run,
	}
	maps.Copy(all, more)
	for name, run := range all {
		wg.Go(func() { keep(ctx, d.log, name, run, watchRetry) })
	}
	return func() { stop(); wg.Wait() }
}

// keep runs something until it returns without an error, or ctx ends. Meanwhile the loop looks at
// everything now and then. What fails each time with the same words, as where somebody else has the
// path of a socket, is in the log once, and again after it has run for longer.
func keep(ctx context.Context, log *slog.Logger, name string, run func(context.Context) error, pause time.Duration) {
	for told := ""; ctx.Err() == nil; {
		began := time.Now()
		err := run(ctx)
		if err == nil {
			return
		}
		if text := err.Error(); text != told || time.Since(began) > 10*pause {
			told = text
			log.Error(name+" failed, will retry", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func why(s *reconcile.Summary) string {
	if s.Complete {
		return ""
	}
	return ", " + s.Message
}

// askForSweep has sweep begin, unless it is about to.
func (d *daemon) askForSweep() {
	d.swept = time.Now()
	select {
	case d.sweeps <- struct{}{}:
	default:
	}
}

// sweep removes what killed programs have left of their requests, and what could
// not be removed when it should have been.
func (d *daemon) sweep(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.sweeps:
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
