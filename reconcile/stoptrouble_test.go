// SPDX-License-Identifier: Apache-2.0

package reconcile_test

import (
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
	"sandboxctl.dev/reconcile/reconciletest"
)

// Why a sandbox can't be stopped is in its status, whatever it is stopped for.
func TestStatusStopFailed(t *testing.T) {
	t.Parallel()
	web := reconciletest.Entry("web", "a", nil)
	const why = "remove cgroup /x: /x/y holds processes 7"
	for name, want := range map[string][]*desired.Entry{"removed": nil, "restarted": {web}} {
		o := running(web)
		o.Record.Phase, o.Record.Ending = actual.PhaseStopping, &actual.Ending{Reason: actual.ReasonManifestRemoved}
		o.Sentry, o.Gofer = actual.Dead, actual.Dead
		for _, known := range []bool{false, true} {
			if known {
				o.Record.Warnings = []actual.Warning{{Reason: "HookFailed", Message: "other"}, {Reason: actual.WarningStopFailed, Message: why}}
			}
			in := input(true, want, o)
			s := reconcile.Statuses(in, reconcile.Compute(in))[0]
			for _, typ := range []string{reconcile.CondReady, reconcile.CondReconciling} {
				c := s.Condition(typ)
				if strings.Contains(c.Message, why) != known || strings.Contains(c.Message, "other") || c.Reason == "" {
					t.Errorf("%s, known %t: %s says %q", name, known, typ, c.Message)
				}
			}
		}
	}
}
