// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/launcher/salvage"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/places"
)

// World is what a verb sees: desired and actual state, and the plan that the
// daemon would make of them now.
type World struct {
	In       reconcile.Input
	Plan     reconcile.Plan
	Statuses []reconcile.Status
	Summary  reconcile.Summary
	Daemon   *actual.DaemonInfo
	Alive    bool // the daemon is
	// Evidence is what is known of the names that are quarantined, without their records.
	Evidence map[string]*salvage.Evidence
	// Strays are processes of this state directory that no record knows.
	Strays []salvage.Marked
}

// Record finds the record of a sandbox, nil if there is none that can be read.
func (w *World) Record(name string) *actual.Record {
	for i := range w.In.Actual.Sandboxes {
		if rec := w.In.Actual.Sandboxes[i].Record; rec.Name == name {
			return rec
		}
	}
	return nil
}

// OnRecord says whether there is anything of a sandbox.
func (w *World) OnRecord(name string) bool {
	return w.Record(name) != nil || slices.ContainsFunc(w.In.Actual.Quarantined, func(h actual.Quarantined) bool { return h.Name == name })
}

// Removing says whether a sandbox is about to be removed, or being removed.
func (w *World) Removing(name string) bool {
	rec := w.Record(name)
	return rec != nil && rec.Ending != nil && rec.Ending.Reason == actual.ReasonManifestRemoved || w.Busy(name) && rec != nil &&
		slices.ContainsFunc(w.In.Actual.Requests, func(r actual.Request) bool { return r.Kind == actual.RequestRemove && r.Name == name })
}

// Busy says whether the daemon has an operation on a name.
func (w *World) Busy(name string) bool {
	_, busy := w.In.Operations[name]
	return busy
}

// Unread says whether it can't be told what a manifest file says now.
func (w *World) Unread(file string) bool {
	if w.In.Desired.Reason != "" && w.In.Desired.Reason != desired.ReasonInvalidManifests {
		return true
	}
	return slices.ContainsFunc(w.In.Desired.Problems, func(p desired.Problem) bool {
		return p.File == file || strings.HasPrefix(file, p.File+"/")
	})
}

// Status finds one sandbox.
func (w *World) Status(name string) *reconcile.Status {
	for i := range w.Statuses {
		if w.Statuses[i].Name == name {
			return &w.Statuses[i]
		}
	}
	return nil
}

// NoSuch is the error for a name that nothing is known of.
func (w *World) NoSuch(name string) error {
	if _, _, ok := objects.Split(name); ok {
		if o := w.In.Desired.Objects.Lookup(name); o != nil {
			return fmt.Errorf("%s is no sandbox; it is defined at %s, and `sandboxctl describe %s` shows it", name, o.Source, name)
		}
		return fmt.Errorf("no %s in the manifests directory", desired.Described(name))
	}
	names := make([]string, len(w.Statuses))
	for i := range w.Statuses {
		names[i] = w.Statuses[i].Name
	}
	if slices.Contains(names, name) {
		return fmt.Errorf("no manifest that can be read defines %s, which is %s", name, w.state(name))
	}
	// As apply and delete print it.
	if short, found := strings.CutPrefix(name, "sandbox/"); found && slices.Contains(names, short) {
		return fmt.Errorf("no sandbox %q; did you mean %q?", name, short)
	}
	if len(names) == 0 {
		return fmt.Errorf("no sandbox %q; there are none", name)
	}
	if len(names) > 8 {
		return fmt.Errorf("no sandbox %q; see `sandboxctl get`", name)
	}
	return fmt.Errorf("no sandbox %q; there are %s", name, strings.Join(names, ", "))
}

// UsedBy are the sandboxes whose manifests refer to a document, sorted.
func (w *World) UsedBy(object string) (names []string) {
	for i := range w.In.Desired.Entries {
		if sb := w.In.Desired.Entries[i].Sandbox; len(References(sb, object)) > 0 {
			names = append(names, sb.Metadata.Name)
		}
	}
	return names
}

// References are where a manifest refers to a document.
func References(sb *desired.Sandbox, object string) (refs []desired.FileRef) {
	switch kind, name, _ := objects.Split(object); kind {
	case objects.Volume:
		for i := range sb.Spec.Volumes {
			if v := sb.Spec.Volumes[i].Volume; v != nil && v.Name == name {
				refs = append(refs, desired.FileRef{Field: fmt.Sprintf("spec.volumes[%d].volume", i), Path: object})
			}
		}
		return refs
	case objects.Network:
		if sb.Spec.Network.Joins(name) {
			refs = append(refs, desired.FileRef{Field: "spec.network.join", Path: object})
		}
		return refs
	case objects.Pool:
		if places.PoolOf(sb) == name {
			refs = append(refs, desired.FileRef{Field: "spec.pool", Path: object})
		}
		return refs
	}
	return slices.DeleteFunc(sb.Spec.FileRefs(), func(r desired.FileRef) bool {
		name, _, ok := objects.Referred(r.Path)
		return !ok || name != object
	})
}

// Referred are the documents that a manifest refers to, by full name; some more than once.
func Referred(sb *desired.Sandbox) (names []string) {
	if pool := places.PoolOf(sb); pool != "" {
		names = append(names, objects.Name(objects.Pool, pool))
	}
	for i := range sb.Spec.Volumes {
		if v := sb.Spec.Volumes[i].Volume; v != nil {
			names = append(names, objects.Name(objects.Volume, v.Name))
		}
	}
	if n := &sb.Spec.Network; n.Mode == networks.Bridge {
		for _, name := range n.Join {
			names = append(names, objects.Name(objects.Network, name))
		}
	}
	for _, r := range sb.Spec.FileRefs() {
		if name, _, ok := objects.Referred(r.Path); ok {
			names = append(names, name)
		}
	}
	return names
}

// Entry is the manifest of a sandbox: the one in the directory or, without it,
// the last valid one on record; nil if there is neither.
func (w *World) Entry(name string) *desired.Entry {
	if e := w.In.Desired.Lookup(name); e != nil {
		return e
	}
	return w.In.LastGood[name]
}

// ReplacedFiles says of which volumes the file of the host is another one than at
// the start: the sandbox keeps the old one.
func (w *World) ReplacedFiles(name string) (out []string) {
	for i := range w.In.Actual.Sandboxes {
		o := &w.In.Actual.Sandboxes[i]
		if o.Record.Name != name || o.Record.Phase != actual.PhaseRunning {
			continue
		}
		for _, f := range o.Record.Files {
			switch replaced, err := f.Replaced(); {
			case err != nil:
				out = append(out, err.Error())
			case replaced:
				out = append(out, fmt.Sprintf("the host's file %s was replaced or removed after the start; the sandbox still has the old one; `sandboxctl restart %s` gives it the new one", f.Path, name))
			}
		}
	}
	return out
}

// EvidenceText says what is known of a sandbox whose record is quarantined, and what
// repair would make of it.
func (w *World) EvidenceText(h *actual.Quarantined) string {
	e := w.Evidence[h.Name]
	switch {
	case h.Reason != actual.QuarantinedCorrupt && h.Reason != actual.QuarantinedUnreadable:
		return e.List() + " of it found alive; repair is not for this"
	case e.Gap == "":
		return e.List() + " live, and agree with the second copy of the record: repair restores it from there"
	case len(e.Processes) == 0:
		return "none of its processes lives: repair moves what is left to damaged/"
	}
	return e.List() + " live; the record can't be restored: " + e.Gap + "; repair --end ends them"
}
