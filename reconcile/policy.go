// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile/endings"
)

// ended is the order to clean up after a sandbox that has died, with what is
// to be remembered of its container.
func ended(e *desired.Entry, o *actual.Observed, in *Input) actual.Ending {
	reason := endings.Died(o, in.Actual.BootID)
	if reason == actual.ReasonHostRebooted {
		// Not its fault: started again at once, and counted for nothing.
		kept := endings.Kept(o.Record)
		kept[0].Exit = &actual.Exit{Reason: reason, Message: "the host was rebooted", At: in.Now}
		return actual.Ending{Reason: reason, Containers: kept}
	}
	var x actual.Exit
	switch reason {
	case actual.ReasonExited:
		x = *o.Exit
	case actual.ReasonSentryKilled:
		x = actual.Exit{Reason: reason, Message: "the sentry was killed or crashed; the exit code is not known", At: in.Now}
	default:
		x = actual.Exit{Reason: reason, Message: "the gofer was killed or crashed; the sandbox lost its files", At: in.Now}
	}
	return actual.Ending{Reason: reason, Containers: []actual.ContainerEnding{endings.Container(&e.Sandbox.Spec, o.Record, o.Record.App(), x, in.Now)}}
}
