// SPDX-License-Identifier: Apache-2.0

// Package proctest is what tests that start programs share: programs of their own,
// written in a way that other tests do not disturb.
package proctest

import (
	"os"
	"syscall"
)

// WriteProgram writes a program that can be executed at once. No other test of this
// process may start one meanwhile: its child would have the file open for writing for a
// moment, and executing it would fail (ETXTBSY, go.dev/issue/22315).
func WriteProgram(path string, b []byte, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, b, mode)
}
