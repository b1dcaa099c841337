// SPDX-License-Identifier: Apache-2.0

package warm

import "time"

// tries is when processes could not be made to wait, and how often in a row.
type tries struct {
	failed   time.Time
	failures int
}

// lacks are why none is made, without a kernel and with one, "" if there is no reason.
type lacks struct{ pairs, warm string }

// lacks notes why none is made of those that are wanted, if there is a reason: there is room for
// none, of which memory says why, or it failed.
func (p *Pool) lacks(want, room count, memory string) {
	why := func(want, room int, t tries, failed string) string {
		switch {
		case want == 0:
			return ""
		case room == 0:
			return memory
		case t.failures > 0:
			return failed
		}
		return ""
	}
	l := lacks{
		why(want.pairs, room.pairs, p.tries[0], "none could be made to wait; the log of the daemon says why"),
		why(want.warm, room.warm, p.tries[1], "no kernel could be booted ahead; the log of the daemon says why"),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lacking = l
}

// triesOf are those with a warm sentry, or without.
func (p *Pool) triesOf(warm bool) *tries {
	if warm {
		return &p.tries[1]
	}
	return &p.tries[0]
}

// backoff is how long nothing is tried after as many errors in a row.
func backoff(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	return min(maxRetry, retry<<min(failures-1, 10))
}
