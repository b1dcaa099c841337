// SPDX-License-Identifier: Apache-2.0

// Package fits says whether there is room on the disk of the state directory for what a
// sandbox may write there (emptyDir, overlay: disk) when it is stopped to be started again.
// The launcher decides at the start, when the one of before is gone: this is the same sum
// made in advance, so that a sandbox is not stopped for one that can't be started. It is pure,
// like the planner that asks it.
package fits

import (
	"cmp"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/room"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/reconcile/attached"
	"sandboxctl.dev/reconcile/needs"
)

// Room is what is known of the disk.
type Room struct {
	Disk room.Disk
	// Places are what sandboxes have written there and may still write, by name.
	Places map[string]Place
}

// Place is what one sandbox has on the disk.
type Place struct {
	// Written is free again when it ends, Left is what it may still write.
	Written, Left int64
}

// Asked is how much a sandbox of a manifest may write, by the sizes that it has and that of
// the policy.
func Asked(e *desired.Entry, bounds desired.Bounds) (n int64) {
	if e == nil {
		return 0
	}
	for _, p := range e.Sandbox.Spec.OnDisk() {
		n += cmp.Or(int64(p.Size), bounds.DefaultDiskSize, int64(hostpolicy.BuiltInDiskSize))
	}
	return n
}

// Matters says whether one that may write to the disk is stopped to be started again, or may be:
// otherwise nobody need look.
func Matters(want *desired.Snapshot, have *actual.Snapshot, recorded map[string]*desired.Entry, files map[string]needs.File) bool {
	return slices.ContainsFunc(have.Sandboxes, func(o actual.Observed) bool {
		rec := o.Record
		e := cmp.Or(want.Lookup(rec.Name), recorded[rec.Name])
		if Asked(e, desired.Bounds{}) == 0 {
			return false
		}
		return replaced(rec) || rec.Phase == actual.PhaseRunning && (rec.SpecHash != e.Hash || asked(have, rec.Name) || attached.Outdated(want, rec) != "" || needs.Changed(e, rec, files))
	})
}

// asked says whether somebody asks for a restart.
func asked(have *actual.Snapshot, name string) bool {
	return slices.ContainsFunc(have.Requests, func(r actual.Request) bool { return r.Kind == actual.RequestRestart && r.Name == name })
}

// Sum is what the room is promised for while a plan is made.
type Sum struct {
	room   *Room
	starts map[string]int64
}

// Begin makes the sum of what is there: what runs, and what is being started or stopped to be
// started again. busy are the names of operations under way. It is nil if nothing is known of
// the room.
func Begin[T any](r *Room, want *desired.Snapshot, have *actual.Snapshot, busy map[string]T) *Sum {
	if r == nil {
		return nil
	}
	s := &Sum{room: r, starts: map[string]int64{}}
	for name := range busy {
		s.count(name, wanted(want, name), want.Bounds())
	}
	for i := range have.Sandboxes {
		if rec := have.Sandboxes[i].Record; replaced(rec) {
			s.count(rec.Name, wanted(want, rec.Name), want.Bounds())
		}
	}
	return s
}

// wanted is the manifest of a name that is to run, nil if there is none.
func wanted(want *desired.Snapshot, name string) *desired.Entry {
	if e := want.Lookup(name); e != nil && !e.Sandbox.Spec.Suspend {
		return e
	}
	return nil
}

// replaced says of a sandbox that was stopped to be started again whether that is still to
// come. The record of a start, also of one that failed, no longer says so.
func replaced(rec *actual.Record) bool {
	if rec.Ending == nil || rec.Phase != actual.PhaseStopped && rec.Phase != actual.PhaseStopping {
		return false
	}
	switch rec.Ending.Reason {
	case actual.ReasonSpecChanged, actual.ReasonRestartRequested, actual.ReasonInputChanged, actual.ReasonNetworkChanged:
		return true
	}
	return false
}

func (s *Sum) count(name string, e *desired.Entry, bounds desired.Bounds) {
	if n := Asked(e, bounds); n > 0 {
		s.starts[name] = n
	}
}

// Take counts a start, before which a sandbox of that name that runs is stopped, or says why
// there is no room for it. What was stopped for a start has its room before others.
func (s *Sum) Take(name string, e *desired.Entry, bounds desired.Bounds) (why string) {
	asked := Asked(e, bounds)
	if asked == 0 {
		return ""
	}
	var others int64
	for other, p := range s.room.Places {
		if other != name {
			others += max(p.Left, s.starts[other])
		}
	}
	for other, n := range s.starts {
		if _, counted := s.room.Places[other]; !counted && other != name {
			others += n
		}
	}
	disk := s.room.Disk
	disk.Free += uint64(s.room.Places[name].Written)
	if why = disk.Lacks(asked, others); why == "" {
		s.count(name, e, bounds)
	}
	return why
}
