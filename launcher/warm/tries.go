// SPDX-License-Identifier: Apache-2.0

package warm

import "time"

// tries is when processes could not be made to wait, and how often in a row.
type tries struct {
	failed   time.Time
	failures int
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
