// SPDX-License-Identifier: Apache-2.0

package operation

import (
	"context"
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

// Bound is Beside for something that what follows is in vain without: its error, or its panic,
// ends the context that is returned. That ends too when wait has returned.
func Bound(ctx context.Context, fn func() error) (_ context.Context, wait func() error) {
	ctx, cancel := context.WithCancelCause(ctx)
	inner := Beside(fn)
	outer := Beside(func() error {
		err := inner()
		if err != nil {
			cancel(err)
		}
		return err
	})
	return ctx, func() error {
		defer cancel(nil)
		return outer()
	}
}
