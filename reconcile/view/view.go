// SPDX-License-Identifier: Apache-2.0

// Package view gathers what a plan is computed from. The daemon and every verb that
// tells what the daemon does use it, so that all of them see the same.
package view

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/ownjson"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/contention"
	"sandboxctl.dev/reconcile/declared"
	"sandboxctl.dev/reconcile/expand"
	"sandboxctl.dev/reconcile/fits"
	"sandboxctl.dev/reconcile/namespaces"
	"sandboxctl.dev/reconcile/needs"
)

// View looks at desired and actual state. It is for one goroutine, and keeps what
// need not be decoded twice.
type View struct {
	Source   reconcile.Source
	Observer reconcile.Observer
	// Network looks at the network namespace of a name, if set.
	Network func(name string) namespaces.Namespace
	// Files looks at files of the host, if set.
	Files func(paths []string) map[string]needs.File
	// HostKey tells whether documents have changed since a start, if set.
	HostKey func() objects.HostKey
	// Image is the digest of the image in the store that a reference or a digest means,
	// "" if there is none, if set. It asks nobody over a network.
	Image func(ctx context.Context, ref string) (digest string)
	// Room looks at the disk of the state, if set; nil if that can't be done.
	Room func() *fits.Room
	// Routes are those of the host, if set: of the daemon alone, which publishes what it makes
	// of them. Another program may be in another network.
	Routes func() []netip.Prefix
	// Volumes looks at named volumes, if set.
	Volumes func(names []string) map[string]declared.Found
	Policy  reconcile.Policy
	// Boot is how long ago the host was booted, if set; CLOCK_BOOTTIME otherwise.
	Boot func() time.Duration

	expander expand.Expander
	lastGood map[string]cachedEntry
}

// cachedEntry is a decoded recorded manifest.
type cachedEntry struct {
	rec   *actual.Record
	entry *desired.Entry
}

// Gather makes an input of what there is now, and of what the loop knows besides.
//
// Desired state comes first. Who orders a removal leaves the request before the
// manifest goes: a look that misses the manifest finds the request.
func (v *View) Gather(ctx context.Context, p reconcile.Progress, removals []time.Time) (reconcile.Input, error) {
	want, err := v.Source.Load(ctx)
	if err != nil {
		return reconcile.Input{}, fmt.Errorf("load manifests: %w", err)
	}
	read := time.Now()
	have, err := v.Observer.Observe(ctx)
	if err != nil {
		return reconcile.Input{}, fmt.Errorf("observe sandboxes: %w", err)
	}
	want = v.expander.Claims(want, have)
	in := reconcile.Input{
		Desired: want, Actual: have, LastGood: v.recorded(want, have), Progress: p,
		Now: time.Now(), Read: read, Policy: v.Policy, Removals: removals,
	}
	if in.Boot = moment.SinceBoot(); v.Boot != nil {
		in.Boot = v.Boot()
	}
	in.Denied = Denied(want, in.LastGood)
	if v.Network != nil {
		in.Networks = namespaces.Look(want, v.Network)
	}
	if paths := needs.Paths(want, in.LastGood); v.Files != nil && len(paths) > 0 {
		in.Files = v.Files(paths)
	}
	var key objects.HostKey
	if v.HostKey != nil && len(want.Objects) > 0 {
		key = v.HostKey()
	}
	in.Files = needs.AddObjects(in.Files, want, in.LastGood, key)
	if v.Room != nil && fits.Matters(want, have, in.LastGood, in.Files) {
		in.Room = v.Room()
	}
	if v.Routes != nil {
		in.Led = contention.Led(want, have.Sandboxes, v.Routes)
	}
	if v.Volumes != nil {
		if names := declared.Names(want); len(names) > 0 {
			in.Volumes = v.Volumes(names)
		}
	}
	if v.Image != nil {
		in.Images = lookUpImages(&in, func(ref string) string { return v.Image(ctx, ref) })
	}
	return in, nil
}

// tries is how often what a daemon says of itself is compared with what there is.
const tries = 3

// Beside makes the input that the loop of the daemon which runs beside this program
// would make. read returns what the loop published last, nil if nothing.
//
// The loop publishes an operation before it begins. If it said the same before and
// after the look, it is about what was seen: else what is half done might be taken
// for what was left half done by a daemon that died.
func (v *View) Beside(ctx context.Context, read func() []byte, removals []time.Time) (reconcile.Input, error) {
	before := read()
	for try := 1; ; try++ {
		in, err := v.Gather(ctx, reconcile.Progress{}, removals)
		if err != nil {
			return in, err
		}
		after := read()
		if !bytes.Equal(before, after) && try < tries {
			before = after
			continue
		}
		if after == nil || ownjson.Unmarshal(after, &in.Progress) != nil {
			in.Progress = fromRecords(in.Actual)
			return in, nil
		}
		var earlier reconcile.Progress
		if ownjson.Unmarshal(before, &earlier) == nil && earlier.Operations != nil {
			maps.Copy(earlier.Operations, in.Operations)
			in.Operations = earlier.Operations
		}
		return in, nil
	}
}

// recorded decodes the manifests of records that the source does not have.
func (v *View) recorded(want *desired.Snapshot, have *actual.Snapshot) map[string]*desired.Entry {
	var out map[string]*desired.Entry
	kept := map[string]cachedEntry{}
	for i := range have.Sandboxes {
		rec := have.Sandboxes[i].Record
		if want.Lookup(rec.Name) != nil {
			continue
		}
		c, ok := v.lastGood[rec.Name]
		if !ok || c.rec != rec {
			c = cachedEntry{rec: rec}
			// One that can't be used any more stays nil.
			if e, err := desired.FromCanonical(rec.Spec, rec.SourceFile); err == nil {
				c.entry = e
			}
		}
		kept[rec.Name] = c
		if out == nil {
			out = map[string]*desired.Entry{}
		}
		out[rec.Name] = c.entry
	}
	v.lastGood = kept
	return out
}

// LastGood decodes the manifests of records that the source does not have.
func LastGood(want *desired.Snapshot, have *actual.Snapshot) map[string]*desired.Entry {
	return new(View).recorded(want, have)
}

// Denied says which of the recorded manifests the host policy does not allow by
// what the source was read with (see reconcile.Input).
func Denied(want *desired.Snapshot, lastGood map[string]*desired.Entry) map[string]string {
	if want.Policy == nil && want.Reason != desired.ReasonPolicyUnusable {
		return nil
	}
	out := map[string]string{}
	for name, e := range lastGood {
		switch {
		case want.Policy == nil:
			out[name] = want.Message
		case e != nil:
			if errs := want.Policy.Check(e.Sandbox); len(errs) > 0 {
				out[name] = errs[0].Field + ": " + errs[0].Message
			}
		}
	}
	return out
}

// fromRecords tells what is under way as far as records do, where the daemon has
// not said it: it is an older one, has just started, or had no room to write.
func fromRecords(have *actual.Snapshot) reconcile.Progress {
	p := reconcile.Progress{Operations: map[string]reconcile.Operation{}}
	for i := range have.Sandboxes {
		switch rec := have.Sandboxes[i].Record; rec.Phase {
		case actual.PhaseRunning, actual.PhaseStopped:
		default:
			p.Operations[rec.Name] = reconcile.Operation{}
		}
	}
	return p
}
