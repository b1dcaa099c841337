// SPDX-License-Identifier: Apache-2.0

package reconcile

import "time"

// restPart is how many times as long as the last pass a rest is, up to maxRest.
const (
	restPart = 3
	maxRest  = time.Second
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

// wakes makes one channel of all that starts a pass. The first wake comes through at
// once; those that follow soon are one, after the rest.
func (l *Loop) wakes() (<-chan struct{}, func()) {
	out := make(chan struct{}, 1)
	quit := make(chan struct{})
	for _, c := range append([]<-chan struct{}{l.wake}, l.opts.Wakes...) {
		go func() {
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
				rested := time.NewTimer(l.rest())
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
