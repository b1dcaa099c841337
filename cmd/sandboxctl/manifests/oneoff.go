// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
)

// Put puts the manifest of a new sandbox into the directory, which a verb has made. What is wrong
// with it is told by its fields: nobody has written its lines.
func Put(ctx context.Context, h *world.Host, text []byte) error {
	v := verbs{h}
	policy, err := v.HostPolicy()
	if err != nil {
		return err
	}
	docs, problems := desired.Decoder{Policy: policy}.Decode("manifest", text)
	if len(problems) > 0 {
		var errs []error
		for _, p := range problems {
			errs = append(errs, errors.New(show.Clean(strings.TrimPrefix(p.Field+": "+p.Message, ": "))))
		}
		return &RefusedError{errors.Join(errs...)}
	}
	if len(docs) != 1 {
		return fmt.Errorf("%d documents in a manifest for one sandbox", len(docs))
	}
	name := docs[0].Name
	dir, w, err := v.openManifests(ctx, []manifest{{Document: docs[0], text: text}}, applyFlags{})
	if err != nil {
		return err
	}
	defer dir.Close()
	if w.Status(name) != nil {
		return taken(name)
	}
	// An order to remove an earlier sandbox of this name.
	if err := v.countermand(name); err != nil {
		return err
	}
	err = atomicfile.Create(dir, desired.OwnFile(name), text, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return taken(name)
	}
	return err
}

func taken(name string) error {
	return &RefusedError{fmt.Errorf("there is a sandbox %s already; give another name", name)}
}

// RefusedError is what is wrong with a manifest, or that its name is taken. Nothing was written.
type RefusedError struct{ error }

// Unwrap implements the interface of package errors.
func (e *RefusedError) Unwrap() error { return e.error }

// Remove removes the sandbox that was made for a process, and its manifest. One of that name that
// somebody else has made meanwhile stays: then removed is false.
func Remove(ctx context.Context, h *world.Host, name string, caller process.Identity) (removed bool, err error) {
	v := verbs{h}
	w, err := v.SettledUnjudged(ctx)
	if err != nil {
		return false, err
	}
	switch w.In.Desired.Reason {
	case desired.ReasonDirectoryUntrusted, desired.ReasonUnsettled:
		// What the files say is not known, and others may have written it.
		return false, errors.New(w.In.Desired.Message)
	}
	e := w.In.Desired.Lookup(name)
	if !oneoff.For(e, caller) {
		return false, nil
	}
	// The order comes first, as by the verb delete: killed in between, nothing has changed.
	withdraw, err := v.orderRemoval(name)
	if err != nil {
		// As on a full disk. Without an order it is a removal as any other.
		fmt.Fprintf(v.Stderr, "warning: remove %s: %s\n", name, show.Clean(err.Error()))
	}
	removed, err = v.removeFor(e.Source.File, name, caller)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // by somebody else
	}
	if !removed {
		err = errors.Join(err, withdraw())
	}
	return removed, err
}

// removeFor removes the manifest file of a sandbox that was made for a process. It is read once
// more: somebody may have put another one in its place, or more documents into it, since it was
// looked at. Then it stays.
func (v verbs) removeFor(file, name string, caller process.Identity) (removed bool, err error) {
	dir, base, text, err := v.openFile(file)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	docs, problems := desired.Decode(file, text)
	if len(problems) > 0 || len(docs) != 1 || docs[0].Sandbox == nil || docs[0].Name != name {
		return false, nil
	}
	if e := docs[0].Entry(); !oneoff.For(&e, caller) {
		return false, nil
	}
	if err := atomicfile.Remove(dir, base); err != nil {
		return false, err
	}
	// And what earlier programs like this one left that were killed.
	_, err = atomicfile.SweepTemps(dir)
	return true, err
}
