// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
)

// DyingSlowly is how long a process or a cgroup may take to be gone before the operation
// gives up its worker: from then on only the kernel can end it.
const DyingSlowly = time.Second

// usualDeath is how long a process takes to die, or to leave by itself, on a host that
// has much to do. One that takes longer may be frozen, and is thawed. To look each
// time would cost more than the kill.
const usualDeath = 250 * time.Millisecond

// frozenGrace is how long a process may take to die in a frozen group: with
// cgroup2 it does, with v1 it waits for somebody to thaw the group.
const frozenGrace = 2 * time.Second

// Target is a process on record that is to be dead.
type Target struct {
	// What it is, for errors.
	What string
	// ID is its identity on record; nil if there was none, which is as good as dead.
	ID *process.Identity
	// Grace is how long it has to leave by itself before it is killed.
	Grace time.Duration
	// Timeout is how long it may take to die of SIGKILL.
	Timeout time.Duration
	// Thaw thaws what keeps it frozen, and returns what can't be thawed. Nil if nobody
	// knows what that would be.
	Thaw func() (frozenBy string)
}

// Kill makes a process dead, and returns when that is proven. Only the process that was
// recorded is ever signalled.
func Kill(ctx context.Context, t *Target) error {
	if t.ID == nil {
		return nil
	}
	p, err := process.Open(*t.ID)
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s (pid %d): %w", process.ErrUnknownProcess, t.What, t.ID.PID, err)
	}
	defer p.Close()
	if t.Grace > 0 {
		// Frozen it would not see that it is to leave.
		if dead, _ := t.dies(ctx, p, t.Grace); dead {
			return nil
		}
	}
	if p.Alive() != process.Dead {
		if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %s (pid %d): %w", t.What, t.ID.PID, err)
		}
	}
	defer operation.WaitsAfter(ctx, DyingSlowly)()
	dead, frozenBy := t.dies(ctx, p, t.Timeout)
	if dead {
		return nil
	}
	if frozenBy != "" {
		return fmt.Errorf("process does not die: %s (pid %d) is kept frozen by the cgroup %s; thaw it", t.What, t.ID.PID, frozenBy)
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("wait for the death of %s (pid %d): %w", t.What, t.ID.PID, cause)
	}
	return fmt.Errorf("process does not die: %s (pid %d) is alive %s after SIGKILL; is it in an uninterruptible sleep?", t.What, t.ID.PID, t.Timeout)
}

// dies waits for the end of a process, at most for the timeout. If it does not come
// soon, what keeps it frozen is thawed; frozenBy is what can't be.
func (t *Target) dies(ctx context.Context, p *process.Handle, timeout time.Duration) (dead bool, frozenBy string) {
	soon := min(usualDeath, timeout)
	if waitDead(ctx, p, soon) {
		return true, ""
	}
	rest := timeout - soon
	if t.Thaw != nil {
		if frozenBy = t.Thaw(); frozenBy != "" {
			rest = min(rest, frozenGrace)
		}
	}
	return waitDead(ctx, p, rest), frozenBy
}

// waitDead waits for the process to die, at most for the timeout, and reaps it
// if it is a child of this program.
func waitDead(ctx context.Context, p *process.Handle, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		return false
	}
	p.Reap()
	return true
}

// ProveDead returns an error unless both processes of a record are proven not to live.
func ProveDead(sentry, gofer *process.Identity) error {
	for _, p := range []struct {
		what string
		id   *process.Identity
	}{{"sentry", sentry}, {"gofer", gofer}} {
		switch live, err := process.LivenessOf(p.id); live {
		case process.Dead, process.None:
		case process.Alive:
			return fmt.Errorf("its %s (pid %d) is alive", p.what, p.id.PID)
		default:
			return fmt.Errorf("%w: %s (pid %d): %w", process.ErrUnknownProcess, p.what, p.id.PID, err)
		}
	}
	return nil
}
