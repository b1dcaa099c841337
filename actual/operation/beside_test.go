// SPDX-License-Identifier: Apache-2.0

package operation_test

import (
	"errors"
	"strings"
	"testing"

	"sandboxctl.dev/actual/operation"
)

// What is done beside an operation is waited for, as often as somebody asks, and its panic is
// an error.
func TestBeside(t *testing.T) {
	t.Parallel()
	begun, goes := make(chan struct{}), make(chan struct{})
	fails := errors.New("no room")
	wait := operation.Beside(func() error {
		close(begun)
		<-goes
		return fails
	})
	<-begun // nobody waits for it yet
	close(goes)
	for range 2 {
		if err := wait(); !errors.Is(err, fails) {
			t.Errorf("it returned %v", err)
		}
	}
	err := operation.Beside(func() error { panic("mistake") })()
	if err == nil || !strings.Contains(err.Error(), "panic: mistake") || !strings.Contains(err.Error(), "beside_test.go") {
		t.Errorf("a panic: %v", err)
	}
	if err := operation.Beside(func() error { return nil })(); err != nil {
		t.Error(err)
	}
}
