// SPDX-License-Identifier: Apache-2.0

package rounds

import "time"

// Pace says when a loop goes on that nobody wakes.
type Pace struct {
	// Every is how often all is looked at, whatever wakes the loop meanwhile.
	Every time.Duration
	// Soon is when a round is done again that has failed. What is pending, for somebody else
	// must end it, is looked at then too, and less and less often.
	Soon time.Duration

	due   time.Time
	pause time.Duration
}

// Looked notes that all was looked at.
func (p *Pace) Looked() { p.due = time.Now().Add(p.Every) }

// Due says whether all is to be looked at.
func (p *Pace) Due() bool { return !time.Now().Before(p.due) }

// Wait is how long to wait after a round that has failed, or has left something pending.
func (p *Pace) Wait(failed, pending bool) time.Duration {
	wait := time.Until(p.due)
	if !pending {
		p.pause = 0
	}
	switch {
	case failed:
		wait = min(wait, p.Soon)
	case pending:
		p.pause = min(max(2*p.pause, p.Soon), p.Every)
		wait = min(wait, p.pause)
	}
	return max(wait, 0)
}
