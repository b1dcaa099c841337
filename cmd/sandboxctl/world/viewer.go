// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/inputs"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/salvage"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/fits"
	"sandboxctl.dev/reconcile/namespaces"
	"sandboxctl.dev/reconcile/needs"
	"sandboxctl.dev/reconcile/view"
)

// viewer looks at the world, again and again if need be: what did not change
// is not read twice.
type viewer struct {
	h     *Host
	store *actual.Store // nil if there is no state yet
	obs   *actual.Observer
	dir   *manifestdir.Dir
	view  view.View
	file  *hostpolicy.File
	info  *actual.DaemonInfo
	alive bool
	// images is the store of images, nil if there is none or nothing has asked for one.
	images *image.Store
	specs  map[string]*actual.Record // of the last look, by digest of the manifest
}

// newViewer returns a viewer that judges manifests by the host policy, or by none.
func (h *Host) newViewer(judged bool) (*viewer, error) {
	v := &viewer{h: h}
	store, err := actual.OpenStoreReadOnly(h.State)
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
	boot, err := process.BootID()
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	opts := manifestdir.Options{Path: h.Manifests, Once: true, BootID: boot, Known: v.known, Policy: v.policy}
	if !judged {
		opts.Policy = nil
	}
	v.notePolicy()
	if judged {
		// It takes about as long to decode as the records do. Load asks again, and gets
		// what is there then: all that is read ahead is a file that does not change.
		v.file = h.PolicyFile(v.info)
		go func() { _, _ = v.file.Load() }()
	}
	opts.Memory = h.MemoryOf(v.info)
	v.dir = manifestdir.New(opts)
	v.view = view.View{Source: v, Observer: v, Network: LookAtNetwork, Files: FileLooker(), HostKey: v.hostKey, Image: v.findImage, Volumes: v.lookAtVolumes, Room: func() *fits.Room { return LookAtDisk(v.store) }, Policy: reconcile.DefaultPolicy()}
	if v.info != nil && len(v.info.Policy) > 0 {
		if err := json.Unmarshal(v.info.Policy, &v.view.Policy); err != nil {
			return nil, errors.Join(fmt.Errorf("read policy of the daemon: %w", err), v.close())
		}
	}
	return v, nil
}

func (v *viewer) readDaemon() error {
	if v.store == nil {
		return nil
	}
	info, live, err := v.store.DaemonInfo()
	if err != nil {
		// Only what it says of itself: everything else can be told without.
		fmt.Fprintf(v.h.Stderr, "warning: %s\n", show.Clean(err.Error()))
		info, live = nil, process.Unknown
	}
	v.info, v.alive = info, live == process.Alive
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
		of.Version, of.Process = "unknown", process.Identity{PID: pid}
		v.info = &of
	}
	return nil
}

func (v *viewer) close() error {
	if v.store == nil {
		return nil
	}
	v.obs.Close()
	return errors.Join(v.closeImages(), v.store.Close())
}

// hostKey is what the daemon has published, nil if nothing.
func (v *viewer) hostKey() objects.HostKey {
	if v.info == nil {
		return nil
	}
	return objects.ParseHostKey(v.info.InputKey)
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
		fmt.Fprintf(v.h.Stderr, "warning: %s\n", show.Clean(err.Error()))
	}
	return b
}

// look computes what the daemon computes.
func (v *viewer) look(ctx context.Context) (_ *World, err error) {
	w := &World{Daemon: v.info, Alive: v.alive}
	var removals []time.Time
	if v.info != nil {
		removals = v.info.Removals
	}
	if v.alive {
		w.In, err = v.view.Beside(ctx, v.progress, removals)
	} else {
		// What the next daemon does: it knows of no operation and of no failure.
		w.In, err = v.view.Gather(ctx, reconcile.Progress{}, removals)
	}
	if err != nil {
		return nil, err
	}
	w.Plan = reconcile.Compute(w.In)
	w.Statuses = reconcile.Statuses(w.In, w.Plan)
	if err := v.examine(ctx, w); err != nil {
		return nil, err
	}
	if w.Strays, err = v.findStrays(w); err != nil {
		return nil, err
	}
	w.Summary = reconcile.Summarize(w.In, w.Plan, w.Statuses)
	return w, nil
}

// findStrays looks for processes of this state directory that no record knows, if
// something is wanted that has no record: it may run all the same.
func (v *viewer) findStrays(w *World) ([]salvage.Marked, error) {
	recorded := map[string]bool{}
	for i := range w.In.Actual.Sandboxes {
		recorded[w.In.Actual.Sandboxes[i].Record.Name] = true
	}
	if !slices.ContainsFunc(w.In.Desired.Entries, func(e desired.Entry) bool { return !recorded[e.Sandbox.Metadata.Name] }) {
		return nil, nil
	}
	found, err := salvage.SearchHost()
	if err != nil {
		return nil, err
	}
	if v.store != nil {
		return found.Strays(v.store)
	}
	return found.Of(v.h.StatePath())
}

// examine finds the processes of names that are quarantined, and adds them to their
// statuses.
func (v *viewer) examine(ctx context.Context, w *World) error {
	if len(w.In.Actual.Quarantined) == 0 {
		return nil
	}
	names := make([]string, len(w.In.Actual.Quarantined))
	for i, h := range w.In.Actual.Quarantined {
		names[i] = h.Name
	}
	var err error
	if w.Evidence, err = salvage.Examine(ctx, v.store, names...); err != nil {
		return fmt.Errorf("look for the processes of quarantined records: %w", err)
	}
	for i := range w.Statuses {
		if s := &w.Statuses[i]; s.Phase == reconcile.PhaseQuarantined {
			s.SentryPID, s.GoferPID = w.Evidence[s.Name].SentryPID(), w.Evidence[s.Name].GoferPID()
		}
	}
	return nil
}

// LookAtNetwork finds the network namespace of a name.
func LookAtNetwork(name string) namespaces.Namespace {
	inode, why := netns.LookAt(desired.NetnsPath(name))
	n := namespaces.Namespace{Inode: inode}
	if why != nil {
		n.NotReady = why.Error()
	}
	return n
}

// notePolicy says so when what was computed is not what the daemon computes.
func (v *viewer) notePolicy() {
	if d := v.info; v.alive && v.h.Policy != "" && d.HostPolicy.Path != "" && d.HostPolicy.Path != v.h.Policy {
		fmt.Fprintf(v.h.Stderr, "warning: judged by the host policy %s; the daemon uses %s\n", show.Clean(v.h.Policy), show.Clean(d.HostPolicy.Path))
	}
}

// policy is what the daemon judges by, also when it is another one than at the
// last look.
func (v *viewer) policy() (desired.Policy, error) {
	f := v.h.PolicyFile(v.info)
	if v.file == nil || v.file.Options().Path != f.Options().Path || v.file.Options().Optional != f.Options().Optional {
		v.file = f
	}
	return v.file.Policy()
}

// FileLooker looks at files of the host that manifests refer to.
func FileLooker() func(paths []string) map[string]needs.File {
	l := new(inputs.Looker)
	return func(paths []string) map[string]needs.File {
		out := make(map[string]needs.File, len(paths))
		for p, f := range l.Look(paths) {
			out[p] = needs.File(f)
		}
		return out
	}
}
