// SPDX-License-Identifier: Apache-2.0

// Package backoff says when a sandbox that has stopped may be started again, and why it is:
// only one that stopped by itself has a delay to wait for. It is pure.
package backoff

import (
	"hash/fnv"
	"math"
	"strconv"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// Next is when a stopped sandbox may be started.
func Next(b *desired.Backoff, rec *actual.Record, floor time.Duration, now time.Time) time.Time {
	if rec.App().LastExit == nil || Reason(rec) != actual.ReasonBackOff {
		return now
	}
	wait := delay(b, rec, floor)
	from := rec.App().LastExit.At
	if from.After(now.Add(wait)) {
		// The clock was set back by more than the delay. Nothing remembers since
		// when it has waited, and that clock may be years away: it starts now,
		// and what it does next is on record under this clock.
		return now
	}
	return from.Add(wait)
}

// Reason is why a stopped sandbox is started: only one that stopped by
// itself has a delay to wait for.
func Reason(rec *actual.Record) string {
	if rec.App().LastExit != nil && rec.App().LastExit.Reason == actual.ReasonCreateFailed {
		return actual.ReasonBackOff
	}
	if rec.Ending == nil {
		return actual.ReasonBackOff
	}
	switch rec.Ending.Reason {
	case actual.ReasonExited, actual.ReasonSentryKilled, actual.ReasonGoferDied:
		return actual.ReasonBackOff
	case actual.ReasonSuspended, actual.ReasonExpired:
		return actual.ReasonResumed
	case actual.ReasonManifestRemoved:
		return actual.ReasonNew
	}
	return rec.Ending.Reason
}

// delay is the one after the given number of failures: initial, doubled
// for each further one, at most max, and spread by up to a tenth so that
// sandboxes that failed together do not come back together. The spread is
// derived from the name and the attempt: the same input gives the same plan. It is
// never below the floor, which is the administrator's: an author who wants no delay
// must not have a sandbox that ends at once take all of the host.
func delay(b *desired.Backoff, rec *actual.Record, floor time.Duration) time.Duration {
	// One of the two is 0: an end of one kind ends the row of the other.
	times := rec.App().Failures + rec.App().CleanExits
	if times <= 0 {
		return 0
	}
	initial, most := float64(*b.Initial), float64(*b.Max)
	wait := min(initial*math.Pow(2, float64(min(times-1, 62))), most)
	h := fnv.New64a()
	h.Write([]byte(rec.Name))
	h.Write(strconv.AppendInt(nil, rec.Attempt, 10))
	spread := float64(h.Sum64()%2001)/1000 - 1 // -1 to 1
	return max(time.Duration(wait*(1+0.1*spread)), time.Duration(float64(floor)*(1+0.05*(1+spread))))
}
