// SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"context"
	"fmt"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/companion"
)

// Text says what starts of a sandbox begin from, "" if nothing was saved for it.
func Text(e *desired.Entry, rec *actual.Record) string {
	if e == nil || e.Sandbox.Spec.Snapshot == nil {
		return ""
	}
	s := e.Sandbox.Spec.Snapshot
	text := s.From
	switch {
	case rec == nil || rec.Phase != actual.PhaseRunning:
	case rec.App().Resumption.Began():
		text += ", which it began from"
	default:
		text += ", which it did not begin from"
	}
	if s.OnRestore != nil {
		return text + "; after a restore it runs " + strings.Join(s.OnRestore.Exec, " ")
	}
	return text + "; no onRestore: all that begin from it share the state of random number generators, tokens and addresses of memory"
}

// Note says why the next start of a sandbox will be a fresh one although its manifest names a
// snapshot, "" if nothing is known against it. It is told before anything is stopped.
func Note(ctx context.Context, h *world.Host, w *world.World, name string) string {
	e := w.In.Desired.Lookup(name)
	if e == nil || e.Sandbox.Spec.Snapshot == nil {
		return ""
	}
	v := verbs{h}
	from := e.Sandbox.Spec.Snapshot.From
	dir, err := v.find(nil, from)
	var path string
	if err == nil {
		path, err = companion.Find(companion.SentryName, "")
	}
	if err == nil {
		err = v.checkRestorable(ctx, w, e, dir, path)
	}
	if err == nil {
		return ""
	}
	return fmt.Sprintf("it is started afresh, and not from the snapshot %s: %v", from, err)
}
