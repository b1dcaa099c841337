// SPDX-License-Identifier: Apache-2.0

package reconcile

import "sandboxctl.dev/actual"

// Lane is a queue of actions with workers of its own: actions of one lane never
// wait for those of another. A sandbox that ends again and again can't keep the
// workers from a change that somebody makes, or from cleaning up.
type Lane int

// The lanes.
const (
	LaneRestart Lane = iota // starts that nobody asked for: after an exit, a failure, a reboot
	LaneChange              // starts that somebody asked for: a manifest, an edit, a restart
	LaneClean               // cleaning up after what is dead, and what costs no time
	LaneStop                // stops that wait for their application
	LaneRemove              // removals whose application gets no time: the kernel alone decides how long
	LaneCount
)

func graceful(a *Action) bool { return a.Op == OpDestroy && a.Ending.Grace > 0 }

func laneOf(a *Action) Lane {
	switch {
	case graceful(a):
		return LaneStop
	case a.Forget:
		return LaneRemove
	case a.Op == OpResume, a.Op == OpRefresh:
		return LaneRestart // a start that is resumed, or what is done instead of a restart
	case a.Op != OpCreate:
		return LaneClean
	}
	switch a.Reason {
	case actual.ReasonNew, actual.ReasonSpecChanged, actual.ReasonRestartRequested, actual.ReasonResumed:
		return LaneChange
	}
	return LaneRestart
}
