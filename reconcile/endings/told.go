// SPDX-License-Identifier: Apache-2.0

package endings

import (
	"time"

	"sandboxctl.dev/actual"
)

// Succeeded says that a sandbox ran to its end, with exit code 0.
func Succeeded(r *actual.Record) bool {
	return r.Phase == actual.PhaseStopped && r.App().Completed && !r.Ending.TimeOver() && r.App().LastExit != nil && r.App().LastExit.Known && r.App().LastExit.Code == 0
}

// LastStop is since when a sandbox that does not run does not.
func LastStop(r *actual.Record) time.Time {
	if r.App().LastExit != nil {
		return r.App().LastExit.At
	}
	return r.CreatedAt
}

// Describe says how a run ended, with what is known of why.
func Describe(x *actual.Exit) string {
	switch {
	case x == nil:
		return ""
	case x.Message != "":
		return x.Reason + ": " + x.Message
	}
	return x.Reason
}

// StopTrouble says what keeps a sandbox from being stopped, "" if nothing is known
// to.
func StopTrouble(r *actual.Record) string {
	for _, w := range r.Warnings {
		if w.Reason == actual.WarningStopFailed {
			return "that failed, and is tried again: " + w.Message
		}
	}
	return ""
}
