// SPDX-License-Identifier: Apache-2.0

package operation_test

import (
	"context"
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

// What is in vain without something beside it ends with its error, and at once.
func TestBound(t *testing.T) {
	t.Parallel()
	fails := errors.New("no link")
	for what, fn := range map[string]func() error{"error": func() error { return fails }, "panic": func() error { panic(fails) }} {
		ctx, wait := operation.Bound(t.Context(), fn)
		<-ctx.Done()
		err := wait()
		if cause := context.Cause(ctx); err == nil || !errors.Is(cause, err) || what == "error" && !errors.Is(err, fails) {
			t.Errorf("%s: it returned %v, and the context ended by %v", what, err, cause)
		}
	}
	goes := make(chan struct{})
	ctx, wait := operation.Bound(t.Context(), func() error { <-goes; return nil })
	if ctx.Err() != nil {
		t.Error("it ended before")
	}
	close(goes)
	for range 2 {
		if err := wait(); err != nil || ctx.Err() == nil {
			t.Errorf("%v, %v", err, ctx.Err())
		}
	}
}
