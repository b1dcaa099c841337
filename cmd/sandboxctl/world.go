// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/salvage"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/view"
)

// world is what a verb sees: desired and actual state, and the plan that the
// daemon would make of them now.
type world struct {
	in       reconcile.Input
	plan     reconcile.Plan
	statuses []reconcile.Status
	summary  reconcile.Summary
	daemon   *actual.DaemonInfo
	alive    bool // the daemon is
	state    string
	// evidence is what is known of the names that are quarantined, without their records.
	evidence map[string]*salvage.Evidence
	// strays are processes of this state directory that no record knows.
	strays []salvage.Marked
}

// statePath is the path of the state directory without links, whether it is there
// or not: what its processes carry.
func (a *app) statePath() string {
	if p, err := filepath.EvalSymlinks(a.state); err == nil {
		if abs, err := filepath.Abs(p); err == nil {
			return abs
		}
	}
	at, err := filepath.Abs(a.state)
	if err != nil {
		return a.state
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(at)); err == nil {
		at = filepath.Join(parent, filepath.Base(at))
	}
	return at
}

// openStore opens the state directory to read it.
func (a *app) openStore() (*actual.Store, error) {
	s, err := actual.OpenStoreReadOnly(a.state)
	if errors.Is(err, actual.ErrNoState) {
		return nil, fmt.Errorf("%w; has `sandboxctl daemon` ever run with --state %s?", err, a.state)
	}
	return s, err
}

// viewer looks at the world, again and again if need be: what did not change
// is not read twice.
type viewer struct {
	a     *app
	store *actual.Store // nil if there is no state yet
	obs   *actual.Observer
	dir   *manifestdir.Dir
	view  view.View
	file  *hostpolicy.File
	info  *actual.DaemonInfo
	alive bool
	specs map[string]*actual.Record // of the last look, by digest of the manifest
}

func (a *app) newViewer() (*viewer, error) { return a.newViewerBy(true) }

// newViewerBy returns a viewer that judges manifests by the host policy, or by none.
func (a *app) newViewerBy(policy bool) (*viewer, error) {
	v := &viewer{a: a}
	store, err := actual.OpenStoreReadOnly(a.state)
	switch {
	case errors.Is(err, actual.ErrNoState):
		// Nothing has run yet: everything that is wanted is still to come.
	case err != nil:
		return nil, err
	default:
		v.store, v.obs = store, actual.NewObserver(store)
	}
	if err := v.readDaemon(); err != nil {
		return nil, errors.Join(err, v.close())
	}
	boot, err := actual.BootID()
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	opts := manifestdir.Options{Path: a.manifests, Once: true, BootID: boot, Known: v.known, Policy: v.policy}
	if !policy {
		opts.Policy = nil
	}
	v.notePolicy()
	if policy {
		// It takes about as long to decode as the records do. Load asks again, and gets
		// what is there then: all that is read ahead is a file that does not change.
		v.file = a.policyFile(v.info)
		go func() { _, _ = v.file.Load() }()
	}
	opts.Memory = a.memoryOf(v.info)
	v.dir = manifestdir.New(opts)
	v.view = view.View{Source: v, Observer: v, Network: lookAtNetwork, Policy: reconcile.DefaultPolicy()}
	if v.info != nil && len(v.info.Policy) > 0 {
		if err := json.Unmarshal(v.info.Policy, &v.view.Policy); err != nil {
			return nil, errors.Join(fmt.Errorf("read policy of the daemon: %w", err), v.close())
		}
	}
	return v, nil
}

// memoryOf is what a daemon remembers of the manifests directory, nil if nothing.
func (a *app) memoryOf(daemon *actual.DaemonInfo) *manifestdir.Memory {
	if daemon == nil || len(daemon.Memory) == 0 || daemon.ManifestsDir != a.manifests {
		return nil
	}
	m := new(manifestdir.Memory)
	if err := json.Unmarshal(daemon.Memory, m); err != nil {
		// As for the daemon: what it knew is lost, and no more.
		fmt.Fprintf(a.stderr, "warning: read memory of the daemon: %s\n", show.Clean(err.Error()))
		return nil
	}
	return m
}

func (v *viewer) readDaemon() error {
	if v.store == nil {
		return nil
	}
	info, live, err := v.store.DaemonInfo()
	if err != nil {
		// Only what it says of itself: everything else can be told without.
		fmt.Fprintf(v.a.stderr, "warning: %s\n", show.Clean(err.Error()))
		info, live = nil, actual.Unknown
	}
	v.info, v.alive = info, live == actual.Alive
	if v.alive {
		return nil
	}
	// On a full disk a daemon can't write what it is; the kernel knows all the same
	// who holds the state.
	if pid := v.store.LockedBy(); pid > 0 {
		v.alive = true
		of := actual.DaemonInfo{}
		if info != nil {
			of = *info
		}
		of.Version, of.Process = "unknown", actual.Identity{PID: pid}
		v.info = &of
	}
	return nil
}

func (v *viewer) close() error {
	if v.store == nil {
		return nil
	}
	v.obs.Close()
	return v.store.Close()
}

// known is what the daemon made of a manifest, if it is on record.
func (v *viewer) known(digest string) *desired.Entry {
	rec, ok := v.specs[digest]
	if !ok {
		return nil
	}
	e, err := desired.Recall(rec.Spec, rec.SpecHash, digest)
	if err != nil {
		return nil // it is decoded from its text
	}
	return e
}

// Observe implements reconcile.Observer, also where there is no state yet.
func (v *viewer) Observe(ctx context.Context) (*actual.Snapshot, error) {
	if v.store == nil {
		return &actual.Snapshot{}, nil
	}
	return v.obs.Observe(ctx)
}

// Load implements reconcile.Source. What is on record spares the parsing of the
// manifests that it is of.
func (v *viewer) Load(ctx context.Context) (*desired.Snapshot, error) {
	list := &actual.Listing{}
	if v.store != nil {
		var err error
		if list, err = v.store.List(); err != nil {
			return nil, err
		}
	}
	v.specs = make(map[string]*actual.Record, len(list.Records))
	for _, rec := range list.Records {
		if rec.SourceDigest != "" {
			v.specs[rec.SourceDigest] = rec
		}
	}
	v.dir.Expect(len(list.Records)+len(list.Quarantined) > 0)
	return v.dir.Load(ctx)
}

// progress is what the daemon has published of what it does, nil if nothing.
func (v *viewer) progress() []byte {
	if v.store == nil {
		return nil
	}
	b, err := v.store.Progress()
	if err != nil {
		fmt.Fprintf(v.a.stderr, "warning: %s\n", show.Clean(err.Error()))
	}
	return b
}

// look computes what the daemon computes.
func (v *viewer) look(ctx context.Context) (_ *world, err error) {
	w := &world{daemon: v.info, alive: v.alive, state: v.a.state}
	var removals []time.Time
	if v.info != nil {
		removals = v.info.Removals
	}
	if v.alive {
		w.in, err = v.view.Beside(ctx, v.progress, removals)
	} else {
		// What the next daemon does: it knows of no operation and of no failure.
		w.in, err = v.view.Gather(ctx, reconcile.Progress{}, removals)
	}
	if err != nil {
		return nil, err
	}
	w.plan = reconcile.Compute(w.in)
	w.statuses = reconcile.Statuses(w.in, w.plan)
	if err := v.examine(ctx, w); err != nil {
		return nil, err
	}
	if w.strays, err = v.findStrays(w); err != nil {
		return nil, err
	}
	w.summary = reconcile.Summarize(w.in, w.plan, w.statuses)
	return w, nil
}

// findStrays looks for processes of this state directory that no record knows, if
// something is wanted that has no record: it may run all the same.
func (v *viewer) findStrays(w *world) ([]salvage.Marked, error) {
	recorded := map[string]bool{}
	for i := range w.in.Actual.Sandboxes {
		recorded[w.in.Actual.Sandboxes[i].Record.Name] = true
	}
	if !slices.ContainsFunc(w.in.Desired.Entries, func(e desired.Entry) bool { return !recorded[e.Sandbox.Metadata.Name] }) {
		return nil, nil
	}
	found, err := salvage.SearchHost()
	if err != nil {
		return nil, err
	}
	if v.store != nil {
		return found.Strays(v.store)
	}
	return found.Of(v.a.statePath())
}

// examine finds the processes of names that are quarantined, and adds them to their
// statuses.
func (v *viewer) examine(ctx context.Context, w *world) error {
	if len(w.in.Actual.Quarantined) == 0 {
		return nil
	}
	names := make([]string, len(w.in.Actual.Quarantined))
	for i, h := range w.in.Actual.Quarantined {
		names[i] = h.Name
	}
	var err error
	if w.evidence, err = salvage.Examine(ctx, v.store, names...); err != nil {
		return fmt.Errorf("look for the processes of quarantined records: %w", err)
	}
	for i := range w.statuses {
		if s := &w.statuses[i]; s.Phase == reconcile.PhaseQuarantined {
			s.SentryPID, s.GoferPID = w.evidence[s.Name].SentryPID(), w.evidence[s.Name].GoferPID()
		}
	}
	return nil
}

func lookAtNetwork(name string) reconcile.Network {
	inode, why := netns.LookAt(desired.NetnsPath(name))
	n := reconcile.Network{Inode: inode}
	if why != nil {
		n.NotReady = why.Error()
	}
	return n
}

// once looks one time.
func (a *app) once(ctx context.Context) (*world, error) {
	v, err := a.newViewer()
	if err != nil {
		return nil, err
	}
	w, err := v.look(ctx)
	return w, errors.Join(err, v.close())
}

// onceUnjudged looks one time, whatever the host policy allows: for what needs to know
// only which file is about a name.
func (a *app) onceUnjudged(ctx context.Context) (*world, error) {
	v, err := a.newViewerBy(false)
	if err != nil {
		return nil, err
	}
	w, err := v.look(ctx)
	return w, errors.Join(err, v.close())
}

// record finds the record of a sandbox, nil if there is none that can be read.
func (w *world) record(name string) *actual.Record {
	for i := range w.in.Actual.Sandboxes {
		if rec := w.in.Actual.Sandboxes[i].Record; rec.Name == name {
			return rec
		}
	}
	return nil
}

// onRecord says whether there is anything of a sandbox.
func (w *world) onRecord(name string) bool {
	return w.record(name) != nil || slices.ContainsFunc(w.in.Actual.Quarantined, func(h actual.Quarantined) bool { return h.Name == name })
}

// removing says whether a sandbox is about to be removed, or being removed.
func (w *world) removing(name string) bool {
	rec := w.record(name)
	return rec != nil && rec.Ending != nil && rec.Ending.Reason == actual.ReasonManifestRemoved || w.busy(name) && rec != nil &&
		slices.ContainsFunc(w.in.Actual.Requests, func(r actual.Request) bool { return r.Kind == actual.RequestRemove && r.Name == name })
}

// busy says whether the daemon has an operation on a name.
func (w *world) busy(name string) bool {
	_, busy := w.in.Operations[name]
	return busy
}

// unread says whether it can't be told what a manifest file says now.
func (w *world) unread(file string) bool {
	if w.in.Desired.Reason != "" && w.in.Desired.Reason != desired.ReasonInvalidManifests {
		return true
	}
	return slices.ContainsFunc(w.in.Desired.Problems, func(p desired.Problem) bool {
		return p.File == file || strings.HasPrefix(file, p.File+"/")
	})
}

// status finds one sandbox.
func (w *world) status(name string) *reconcile.Status {
	for i := range w.statuses {
		if w.statuses[i].Name == name {
			return &w.statuses[i]
		}
	}
	return nil
}

// noSuch is the error for a name that nothing is known of.
func (w *world) noSuch(name string) error {
	names := make([]string, len(w.statuses))
	for i := range w.statuses {
		names[i] = w.statuses[i].Name
	}
	if len(names) == 0 {
		return fmt.Errorf("no sandbox %q; there are none", name)
	}
	if len(names) > 8 {
		return fmt.Errorf("no sandbox %q; see `sandboxctl get`", name)
	}
	return fmt.Errorf("no sandbox %q; there are %s", name, strings.Join(names, ", "))
}

// completeNames completes the names of sandboxes on record.
func (a *app) completeNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(args, func(l *actual.Listing) []string {
		var names []string
		for _, r := range l.Records {
			names = append(names, r.Name)
		}
		return names
	})
}

// complete completes one name among those picked of the state directory.
func (a *app) complete(args []string, pick func(*actual.Listing) []string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	store, err := actual.OpenStoreReadOnly(a.state)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer store.Close()
	list, err := store.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := pick(list)
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}
