// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/reconcile"
)

// steps reports them, one every half minute, and returns an error if it is ended before.
func steps(n int, step func(i int) operation.PullStep) func(context.Context, func(operation.PullStep)) error {
	return func(ctx context.Context, report func(operation.PullStep)) error {
		for i := range n {
			report(step(i))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(30 * time.Second):
			}
		}
		return nil
	}
}

// Beside more pulls that hang than there are places, an image that this host merges for an
// hour becomes complete in one go. What stands still, or waits for a registry, has its turn
// like all others, and that is no failure.
func TestLongMerge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		large    func(context.Context, func(operation.PullStep)) error
		complete bool
	}{
		"it merges": {steps(120, func(i int) operation.PullStep {
			return operation.PullStep{Text: fmt.Sprintf("merging %d", i), Local: true}
		}), true},
		"it merges slowly": {steps(120, func(i int) operation.PullStep {
			return operation.PullStep{Text: fmt.Sprintf("merging %d", i/18), Local: true}
		}), true},
		"it fetches, and merges": {steps(120, func(i int) operation.PullStep {
			return operation.PullStep{Text: fmt.Sprintf("step %d", i), Local: i > 15}
		}), true},
		"its merge stands still": {steps(120, func(int) operation.PullStep {
			return operation.PullStep{Text: "merging", Local: true}
		}), false},
		"it fetches a little at a time": {steps(120, func(i int) operation.PullStep {
			return operation.PullStep{Text: fmt.Sprintf("fetching %d", i)}
		}), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inPulls(t, 2, func(p *pulling) {
				p.OnPull = func(ctx context.Context, r imageref.PullRequest, report func(operation.PullStep)) error {
					if r.Ref == refZ {
						return c.large(ctx, report)
					}
					<-ctx.Done()
					return ctx.Err()
				}
				p.Publish(refZ, digest("a"))
				p.Want(imageEntry("z", refZ, "", nil))
				for i := range 17 {
					p.Want(imageEntry(fmt.Sprintf("s%02d", i), fmt.Sprintf("docker.io/library/a:%02d", i), "", nil))
				}
				p.after(70 * time.Minute)
				begun := 0
				for _, r := range p.Pulls() {
					if r.Ref == refZ {
						begun++
					}
				}
				if c.complete != (begun == 1) {
					t.Errorf("its pull was begun %d times", begun)
				}
				if c.complete {
					p.runs("z", digest("a"))
				}
				for _, s := range p.seen() {
					if msg := s.Condition(reconcile.CondReconciling).Message; strings.Contains(msg, "made room") || !s.NextRetry.IsZero() {
						t.Errorf("%s: its turn was over, which counts as a failure: %s", s.Name, msg)
					}
				}
				if n := len(p.published().PullRetries); n != 0 {
					t.Errorf("%d pulls count as failed", n)
				}
			})
		})
	}
}
