// SPDX-License-Identifier: Apache-2.0

package operation

import (
	"fmt"
	"runtime/debug"
)

// Beside calls fn beside what follows, in which the operation needs nothing of it yet. wait
// returns its error when it has ended, and may be called more than once. An operation must not
// end before: what is made beside it would be left. A panic is an error of the operation, as
// one of the operation itself, and not the end of the daemon.
func Beside(fn func() error) (wait func() error) {
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		err = fn()
	}()
	return func() error {
		<-ended
		return err
	}
}
