// SPDX-License-Identifier: Apache-2.0

// Package lifetime is what manifests say of how long a sandbox may run, and how long it is
// kept when it has finished: the fields and their rules.
package lifetime

import (
	"time"

	"sandboxctl.dev/desired/scalar"
)

// Lifetime bounds the life of a sandbox. The fields are among those of Lifecycle: a change
// applies without a restart.
type Lifetime struct {
	// How long the sandbox may run, from the start of its application. Then it is stopped as with
	// `terminationGracePeriod`, has failed with the reason `DeadlineExceeded`, and is not started
	// again, whatever its `restartPolicy`. A restart after an exit or a reboot gives it no more
	// time; a new spec, `suspend`, and `sandboxctl restart` do. Default: no limit.
	ActiveDeadline *scalar.Duration `json:"activeDeadline,omitempty"`
	// When the sandbox is over: at that moment of the wall clock it is stopped as with
	// `terminationGracePeriod`, and not started from then on. A later `until` starts it again.
	// Default: never.
	Until *scalar.Time `json:"until,omitempty"`
	// How long a sandbox that has finished is kept: one that has completed or failed and is not
	// started again. Then its logs and addresses are given up, as if it had been removed, and its
	// manifest counts as done: of it remains how it ended. See
	// [Lifetimes](../guide/lifetimes.md). Default: as long as its manifest.
	TTLAfterFinished *scalar.Duration `json:"ttlAfterFinished,omitempty"`
}

// Bounds of the durations: what is shorter, or longer, is a mistake in the unit.
const (
	minDeadline = time.Second
	longest     = 10 * 365 * 24 * time.Hour
)

// Check reports what is wrong with the fields below path.
func (l *Lifetime) Check(path string, report func(field, format string, args ...any)) {
	if d := l.ActiveDeadline; d != nil && time.Duration(*d) < minDeadline {
		report(path+".activeDeadline", "expected at least %s, got %s; leave it out for no limit", minDeadline, time.Duration(*d))
	}
	if d := l.TTLAfterFinished; d != nil && *d < 0 {
		report(path+".ttlAfterFinished", "expected 0s or more, got %s; leave it out to keep the sandbox", time.Duration(*d))
	}
	tooLong := func(field string, d *scalar.Duration) {
		if d != nil && time.Duration(*d) > longest {
			report(path+field, "expected at most %s (10 years), got %s", longest, time.Duration(*d))
		}
	}
	tooLong(".activeDeadline", l.ActiveDeadline)
	tooLong(".ttlAfterFinished", l.TTLAfterFinished)
	if u := l.Until; u != nil && (u.Year() < 1970 || u.Year() > 2261) {
		report(path+".until", "expected a year from 1970 to 2261, got %d", u.Year())
	}
}

// Foreign are what Kubernetes and systemd call these fields, and what to write here.
var Foreign = map[string]string{
	"activeDeadlineSeconds": "activeDeadline: 30s", "ttlSecondsAfterFinished": "ttlAfterFinished: 1h", "RuntimeMaxSec": "activeDeadline: 30s",
}
