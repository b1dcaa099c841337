// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"fmt"

	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/yamldoc"
	"sandboxctl.dev/reconcile/contention"
)

// contended are sandboxes that ask for a port of the host or an address that another one
// asks for too: of two, the later one. text is that of a file, to find the place in it, nil
// if it can't be read. Suspended ones have nothing.
func contended(entries []desired.Entry, text func(file string) []byte) (out []desired.Problem) {
	var before contention.Index
	for i := range entries {
		e := &entries[i]
		if e.Sandbox.Spec.Suspend {
			continue
		}
		if other, reason, field, why := before.Holder(e); reason != "" {
			out = append(out, desired.Problem{
				Position: placeOf(e, field, text), Name: e.Sandbox.Metadata.Name, Field: field,
				Message: fmt.Sprintf("%s (%s)", why, placeOf(other, "spec.network", text)),
			})
		}
		before.Add(e)
	}
	return out
}

// placeOf is where a field of a manifest is in its file, or the closest one around it.
func placeOf(e *desired.Entry, field string, text func(file string) []byte) desired.Position {
	chunks, _ := yamldoc.Chunks(e.Source.File, text(e.Source.File))
	for _, c := range chunks {
		d := yamldoc.Parse(e.Source.File, c, "")
		if !d.Parsed() || d.Position() != e.Source {
			continue
		}
		desired.ManifestKinds.Check(d)
		return d.Place(field)
	}
	return e.Source
}

// textOf reads a file of the manifests directory.
func (v verbs) textOf(file string) []byte {
	dir, _, text, err := v.openFile(file)
	if err != nil {
		return nil
	}
	dir.Close()
	return text
}

// unreachable warns of sandboxes of a directory that wait for a network, or for another
// address.
func unreachable(snap *desired.Snapshot) (out []desired.Warning) {
	for i := range snap.Entries {
		e := &snap.Entries[i]
		if reason, why := contention.Documents(e, snap, false); reason != "" {
			out = append(out, desired.Warning{Position: e.Source, Message: fmt.Sprintf("%s: %s", e.Sandbox.Metadata.Name, why), Names: []string{e.Sandbox.Metadata.Name}})
		}
	}
	return out
}

// warnOfContention tells who applies manifests that one of them will wait for another one.
func (v verbs) warnOfContention(w *world.World, ms []manifest) {
	var entries []desired.Entry
	for i := range w.In.Desired.Entries {
		if e := &w.In.Desired.Entries[i]; !among(ms, e.Sandbox.Metadata.Name) {
			entries = append(entries, *e)
		}
	}
	for i := range ms {
		if ms[i].Sandbox != nil {
			entries = append(entries, ms[i].Entry())
		}
	}
	for _, p := range contended(entries, func(string) []byte { return nil }) { // the document is place enough
		if among(ms, p.Name) {
			fmt.Fprintf(v.Stderr, "warning: %s; it is not started before that has changed\n", show.Clean(p.Error()))
		}
	}
}
