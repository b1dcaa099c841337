// SPDX-License-Identifier: Apache-2.0

package operation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"sandboxctl.dev/actual/operation"
)

// What an operation does to clean up goes on when the operation is cancelled, and
// ends with the daemon.
func TestOperation(t *testing.T) {
	t.Parallel()
	daemon, end := context.WithCancelCause(t.Context())
	waits := 0
	ctx, cancel := operation.New(daemon, func() { waits++ })
	step, done := context.WithTimeout(ctx, time.Hour)
	defer done()
	operation.Waits(step)
	if waits != 1 || operation.CancelReason(step) != "" || operation.Shutdown(step) {
		t.Errorf("waits %d, cancelled %q, shut down %t", waits, operation.CancelReason(step), operation.Shutdown(step))
	}
	cancel(&operation.Cancelled{Reason: "SpecChanged"})
	if operation.CancelReason(step) != "SpecChanged" || operation.CleanUp(step).Err() != nil || operation.Shutdown(step) {
		t.Errorf("cancelled: %q, clean-up %v", operation.CancelReason(step), operation.CleanUp(step).Err())
	}
	end(operation.ErrShutdown)
	if operation.CleanUp(step).Err() == nil || !operation.Shutdown(step) {
		t.Error("the clean-up outlives the daemon")
	}
}

// A context that is of no operation, such as an OCI client's, has no worker to
// give up and cleans up whatever happened to it.
func TestNoOperation(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	operation.Waits(ctx)
	cancel(errors.New("interrupted"))
	if operation.CleanUp(ctx).Err() != nil || operation.CancelReason(ctx) != "" || operation.Shutdown(ctx) {
		t.Error("it is taken for an operation's")
	}
}
