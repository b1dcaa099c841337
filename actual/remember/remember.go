// SPDX-License-Identifier: Apache-2.0

// Package remember keeps what the host was asked for once. sync.OnceValues keeps an
// error too: a single call that failed for want of memory would be believed for the life
// of a daemon.
package remember

import "sync"

// Success returns a function that calls ask until it succeeds, and then returns what it
// said. It may be called by several at a time.
func Success[T any](ask func() (T, error)) func() (T, error) {
	var (
		mu    sync.Mutex
		known bool
		value T
	)
	return func() (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if known {
			return value, nil
		}
		v, err := ask()
		if err == nil {
			value, known = v, true
		}
		return v, err
	}
}
