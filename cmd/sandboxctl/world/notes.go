// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
)

// Warnings says on stderr what is the matter with the whole.
func (h *Host) Warnings(w *World) {
	if !w.Summary.Complete {
		fmt.Fprintf(h.Stderr, "warning: %s: %s\n", w.Summary.Reason, show.Clean(w.Summary.Message))
	}
	if w.Plan.Guard != nil {
		fmt.Fprintf(h.Stderr, "warning: "+actual.EventApprovalNeeded+": %s\n", w.Plan.Guard.Message)
	}
	if !w.Alive && (len(w.Plan.Actions) > 0 || len(w.Statuses) > 0) {
		fmt.Fprintln(h.Stderr, "warning: the daemon is not running; changes take effect when it starts (systemctl start sandboxctl)")
	}
	for i := range w.Strays {
		m := &w.Strays[i]
		fmt.Fprintf(h.Stderr, "warning: the %s of %s lives and no record knows it: it is not started a second time; was the state directory %s removed, replaced or not mounted?\n", m, m.Sandbox, h.State)
	}
	if w.Summary.DiskPressure != "" {
		fmt.Fprintf(h.Stderr, "warning: DiskPressure: %s (%s)\n", w.Summary.DiskPressure, h.State)
	}
}

// NoteNotRunning says so after a change of manifests.
func (h *Host) NoteNotRunning(w *World) {
	if !w.Alive {
		fmt.Fprintln(h.Stderr, "note: the daemon is not running; changes take effect when it starts (systemctl start sandboxctl)")
	}
}

// NoteDaemon says so when nobody will carry a request out for now.
func (h *Host) NoteDaemon(w *World) {
	if !w.Alive {
		fmt.Fprintln(h.Stderr, "note: the daemon is not running; the request is kept and carried out when it starts")
	}
}
