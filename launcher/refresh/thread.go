// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// apart calls fn on a thread that ends with it: what fn makes of the thread's namespaces, root
// and ids is seen by nothing else of this program.
func apart(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			done <- recovered(fn)
			return
		}
		// Go keeps the main thread for ever, and what /proc says of this program is said of
		// it. While it is locked here the next goroutine runs on another one.
		err := apart(fn)
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// recovered has a panic end the operation and not the daemon.
func recovered(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}
