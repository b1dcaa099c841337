// SPDX-License-Identifier: Apache-2.0

package loop

import "time"

// restPart is how many times as long as the last pass a rest is, up to maxRest.
// maxCredit is how many passes may come without a rest after a quiet time: one change
// is often two events, as a file that is removed and another one that is put in.
const (
	restPart  = 3
	maxRest   = time.Second
	maxCredit = 3
)

// rest is how long to wait between two passes for the same reason. A program that
// writes into a watched directory all the time, as a log there does, then costs a part
// of one processor and not all of it.
func (l *Loop) rest() time.Duration {
	if l.opts.Rest <= 0 {
		return 0
	}
	return min(max(l.opts.Rest, restPart*time.Duration(l.took.Load())), maxRest)
}

// credit counts the passes that need no rest before them. One is earned in each rest.
type credit struct {
	passes float64
	since  time.Time
}

// spend takes one pass, and says how long to rest before the next one.
func (c *credit) spend(now time.Time, rest time.Duration) time.Duration {
	if rest <= 0 {
		return 0
	}
	c.passes = min(maxCredit, c.passes+now.Sub(c.since).Seconds()/rest.Seconds()) - 1
	c.since = now
	return time.Duration(max(0, 1-c.passes) * float64(rest))
}

// wakes makes one channel of all that starts a pass. The first wakes come through at
// once; when they go on, those that follow soon are one, after the rest.
func (l *Loop) wakes() (<-chan struct{}, func()) {
	out := make(chan struct{}, 1)
	quit := make(chan struct{})
	for _, c := range append([]<-chan struct{}{l.wake}, l.opts.Wakes...) {
		go func() {
			left := credit{passes: maxCredit, since: time.Now()}
			for {
				select {
				case <-quit:
					return
				case _, ok := <-c:
					if !ok {
						return
					}
				}
				select {
				case out <- struct{}{}:
				default:
				}
				wait := left.spend(time.Now(), l.rest())
				if wait == 0 {
					continue
				}
				rested := time.NewTimer(wait)
				select {
				case <-quit:
					rested.Stop()
					return
				case <-rested.C:
				}
			}
		}()
	}
	return out, func() { close(quit) }
}
