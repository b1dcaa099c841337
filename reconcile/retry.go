// SPDX-License-Identifier: Apache-2.0

package reconcile

import "time"

// Retry is an operation that failed. It keeps the operation from being tried again
// at once, and is lost with the daemon, which costs one early try.
type Retry struct {
	Op       Op
	Failures int
	Due      time.Time // when it may be tried again
	Hash     string    // of the spec
	Restart  string    // the token of the restart that it was, "" if it was none
	// Permanent says that trying the same spec again can't help.
	Permanent bool
	Message   string
}

// Delays of operations that failed without leaving it in the record.
const (
	retryInitial = time.Second
	retryMax     = time.Minute
)

// failed notes one more failure.
func (r *Retry) failed(a *Action, permanent bool, message string, now time.Time) {
	if r.Op != a.Op {
		*r = Retry{Op: a.Op}
	}
	r.Failures++
	r.Restart, r.Permanent, r.Message = a.Request.ID(), permanent, message
	if a.Entry != nil {
		r.Hash = a.Entry.Hash
	}
	// A failed create is also in the record, when that could be written, and
	// the planner waits for its backoff: the longer of the two counts.
	r.Due = now.Add(min(retryInitial<<min(r.Failures-1, 6), retryMax))
}

// delays says whether an action must wait because of the failure.
func (r *Retry) delays(a *Action, now time.Time) bool {
	switch {
	case r.Op != a.Op, a.Entry != nil && r.Hash != a.Entry.Hash:
		return false
	case a.Request != nil && a.Request.Token != r.Restart:
		return false // a person wants it now; once, if it can't even be recorded
	case r.Permanent:
		return true
	}
	// Further away than any delay is: the clock was changed.
	wait := r.Due.Sub(now)
	return wait > 0 && wait <= 2*retryMax
}

// Delayed is an action that can't be begun yet.
type Delayed struct {
	Action

	// Until is when it can; zero if that depends on something else.
	Until time.Time
	// Why is what it waits for, in words.
	Why string
}

// delay keeps an action back.
func (c *computation) delay(a Action, until time.Time, why string) {
	c.plan.Delayed = append(c.plan.Delayed, Delayed{Action: a, Until: until, Why: why})
	if !until.IsZero() {
		c.wakeAt(until)
	}
}
