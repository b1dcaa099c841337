// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"testing"

	"sandboxctl.dev/actual/process"
)

// TestLookTwinKnown: a gofer that was seen alive, and ends soon after its sentry, is
// seen dead by the look that finds the sentry dead.
func TestLookTwinKnown(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	cmd, sentry := child(t)
	_, gofer := child(t, "sleep", "0.3")
	rec := sample("twin")
	rec.BootID, rec.Phase, rec.Sentry, rec.Gofer = sentry.BootID, PhaseRunning, &sentry, &gofer
	put(t, s, rec)
	o := NewObserver(s)
	defer o.Close()
	_, err := o.Observe(t.Context())
	must(t, err)
	must(t, cmd.Process.Kill())
	p, err := process.Open(sentry)
	must(t, err)
	must(t, p.Wait(t.Context()))
	must(t, p.Close())
	snap, err := o.Observe(t.Context())
	must(t, err)
	if w := snap.Sandboxes[0]; w.Sentry != process.Dead || w.Gofer != process.Dead {
		t.Errorf("sentry %v, gofer %v, expected Dead and Dead", w.Sentry, w.Gofer)
	}
}
