// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"strings"
	"time"

	"sandboxctl.dev/actual"
)

// Retry is an operation that failed. It keeps the operation from being tried again
// at once, and is lost with the daemon, which costs one early try.
type Retry struct {
	Op       Op        `json:"op"`
	Failures int       `json:"failures"`
	Due      time.Time `json:"due"`               // when it may be tried again
	Hash     string    `json:"hash,omitempty"`    // of the spec
	Restart  string    `json:"restart,omitempty"` // the token of the restart that it was, "" if it was none
	// Permanent says that trying the same spec again can't help.
	Permanent bool   `json:"permanent,omitempty"`
	Message   string `json:"message"`
}

// maxRetryMessage bounds a message: there may be one for each sandbox.
const maxRetryMessage = 500

// LookAgain is how often the loop looks at what an action waits for, if nothing
// tells of it.
const LookAgain = 2 * time.Second

// Delays of operations that failed without leaving it in the record.
const (
	RetryInitial = time.Second
	retryMax     = time.Minute
)

// Failed notes one more failure.
func (r *Retry) Failed(a *Action, permanent bool, message string, now time.Time) {
	if r.Op != a.Op {
		*r = Retry{Op: a.Op}
	}
	r.Failures++
	r.Restart, r.Permanent, r.Message = a.Request.ID(), permanent, strings.ToValidUTF8(message[:min(len(message), maxRetryMessage)], "")
	if a.Entry != nil {
		r.Hash = a.Entry.Hash
	}
	// A failed create is also in the record, when that could be written, and
	// the planner waits for its backoff: the longer of the two counts.
	r.Due = now.Add(min(RetryInitial<<min(r.Failures-1, 6), retryMax))
}

// delays says whether an action must wait because of the failure.
func (r *Retry) delays(a *Action, now time.Time) bool {
	switch {
	case r.Op != a.Op, a.Entry != nil && r.Hash != a.Entry.Hash:
		return false
	case a.Request != nil && a.Request.Token != r.Restart:
		return false // a person wants it now; once, if it can't even be recorded
	case r.Permanent && a.Reason != actual.ReasonInputChanged: // what it failed with is there no more
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
	// Why is what it waits for, or what failed the last time, in words; "" if it
	// only waits for its time.
	Why string
	// Permanent says that trying again can't help: somebody must change something.
	Permanent bool
	// PreconditionFailed says that it is begun when somebody has changed the host, as
	// where a file or an image is missing: who waits for a sandbox does not wait for that.
	PreconditionFailed bool
}

// failedBefore delays what has failed, or what ended by itself, and is to be tried
// again later: until the time that follows from the record, or from the last try of
// this daemon, whichever is later.
func (c *computation) failedBefore(a *Action) bool {
	until, why := a.Due, ""
	if r, failed := c.in.Retries[a.Name]; failed && r.delays(a, c.in.Now) {
		if r.Permanent && a.Reason != actual.ReasonInputChanged {
			c.plan.Delayed = append(c.plan.Delayed, Delayed{Action: *a, Why: r.Message, Permanent: true})
			return true
		}
		why = r.Message
		if r.Due.After(until) {
			until = r.Due
		}
	}
	if !until.After(c.in.Now) {
		return false
	}
	c.delay(*a, until, why)
	return true
}

// needsRoom delays what takes room on the disk of the state while there is none: a
// start, and the stop of what could not be started again.
func (c *computation) needsRoom(a *Action) bool {
	if a.Op != OpCreate && !(a.Op == OpDestroy && a.Ending.Replace) {
		return false
	}
	why := c.in.Actual.DiskFull
	if why == "" && c.room != nil {
		why = c.room.Take(a.Name, c.starts(a), c.in.Desired.Bounds())
	}
	if why == "" {
		return false
	}
	a.Reason = actual.ReasonDiskPressure
	c.delayForHost(*a, why, c.in.Actual.DiskFull == "")
	return true
}

// Describe says what a delayed action waits for, and until when.
func (d *Delayed) Describe(now time.Time) string {
	var out string
	switch {
	case d.Permanent:
		out = "trying again can't help"
	case !d.Until.IsZero():
		out = "next try in " + d.Until.Sub(now).Round(time.Second/10).String()
	}
	switch {
	case d.Why == "":
		return out
	case out == "":
		return d.Why
	}
	return out + "; the last try failed: " + d.Why
}

// delay keeps an action back.
func (c *computation) delay(a Action, until time.Time, why string) {
	c.plan.Delayed = append(c.plan.Delayed, Delayed{Action: a, Until: until, Why: why})
	if !until.IsZero() {
		c.wakeAt(until)
	}
}

// delayForHost keeps an action back until the host has changed, which nothing tells of.
// lasting says that somebody has to change it.
func (c *computation) delayForHost(a Action, why string, lasting bool) {
	c.plan.Delayed = append(c.plan.Delayed, Delayed{Action: a, Why: why, PreconditionFailed: lasting})
	c.wakeAt(c.in.Now.Add(LookAgain))
}
