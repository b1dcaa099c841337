// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/launcher/guest"
	"sandboxctl.dev/launcher/proc"
)

// Set is the hooks of one point of a container's life, under its name in the
// OCI specification. They run as this process, one after the other, with the
// state on stdin.
type Set struct {
	Kind  string
	Hooks []specs.Hook
	// Env is the environment of hooks that have none of their own.
	Env []string
	// OOMScore is theirs on the host; nil leaves them this process's.
	OOMScore *int
	// Limit is how long they may take together, whatever timeouts they have; 0 is
	// as long as those.
	Limit time.Duration
}

// limited returns a context that ends at the limit of the set.
func (s Set) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.Limit == 0 || len(s.Hooks) == 0 {
		return ctx, func() {}
	}
	operation.Waits(ctx)
	return context.WithTimeoutCause(ctx, s.Limit, fmt.Errorf("killed after %s, which is maxHookTime of the host policy", s.Limit))
}

// Run runs the hooks up to the first that fails.
func (s Set) Run(ctx context.Context, state specs.State) error {
	ctx, done := s.limited(ctx)
	defer done()
	for i := range s.Hooks {
		if err := s.runOne(ctx, i, state); err != nil {
			return err
		}
	}
	return nil
}

// RunAll runs all hooks. That one fails is a warning, as the specification has
// it for what comes after the start.
func (s Set) RunAll(ctx context.Context, state specs.State, warn func(format string, args ...any)) {
	ctx, done := s.limited(ctx)
	defer done()
	for i := range s.Hooks {
		if err := s.runOne(ctx, i, state); err != nil {
			warn("%v", err)
		}
	}
}

func (s Set) runOne(ctx context.Context, i int, state specs.State) error {
	b, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := s.runHook(ctx, &s.Hooks[i], b); err != nil {
		return fmt.Errorf("error running %s hook #%d: %w", s.Kind, i, err)
	}
	return nil
}

func (s Set) runHook(ctx context.Context, h *specs.Hook, state []byte) error {
	return guest.Run(ctx, h, s.Env, state, func(ctx context.Context, cmd *exec.Cmd) error { return proc.RunGroup(ctx, cmd, s.OOMScore) })
}
