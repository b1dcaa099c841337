// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/reconcile"
)

// goal says whether a sandbox is as wanted; s is nil if there is none. An
// error says that it will not be without somebody's help.
type goal func(w *world, name string, s *reconcile.Status) (bool, error)

func (a *app) waitCommand() *cobra.Command {
	var (
		want    string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "wait NAME... --for=WHAT",
		Short: "Wait until sandboxes are as wanted",
		Long: `Wait until sandboxes are as wanted. WHAT is one of

  ready               they run what their manifests say, or have completed
  delete              they are gone
  completed           they have run to their end with exit code 0
  phase=PHASE         as in ` + "`sandboxctl get`" + `
  condition=TYPE      as in ` + "`sandboxctl describe`" + `; condition=TYPE=False for its opposite

Exit code 0: as wanted, 3: not within the time, 1: it can't be any more.`,
		Example: `  sandboxctl wait web --for=ready
  sandboxctl wait job --for=completed --timeout 10m`,
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("expected a NAME")
			}
			g, err := parseGoal(want)
			if err != nil {
				return err
			}
			return a.waitFor(cmd.Context(), args, g, timeout)
		},
	}
	cmd.Flags().StringVar(&want, "for", "ready", "what to wait for")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait (0: for ever)")
	return cmd
}

func parseGoal(s string) (goal, error) {
	kind, rest, _ := strings.Cut(s, "=")
	switch {
	case s == "ready":
		return forSettled, nil
	case s == "delete":
		return forDelete, nil
	case s == "completed":
		return forCompleted, nil
	case kind == "phase" && rest != "":
		return func(_ *world, _ string, s *reconcile.Status) (bool, error) {
			return s != nil && strings.EqualFold(s.Phase, rest), nil
		}, nil
	case kind == "condition":
		typ, status, ok := strings.Cut(rest, "=")
		if !ok {
			status = reconcile.True
		}
		if typ == "" || status == "" {
			break
		}
		return func(_ *world, _ string, s *reconcile.Status) (bool, error) {
			if s == nil {
				return false, nil
			}
			c := s.Condition(typ)
			if c == nil {
				return false, usagef("--for: there is no condition %q", typ)
			}
			return strings.EqualFold(c.Status, status), nil
		}, nil
	}
	return nil, usagef("--for: expected ready, delete, completed, phase=PHASE or condition=TYPE, got %q", s)
}

// forSettled: the sandbox runs what its manifest says, or has completed.
func forSettled(_ *world, _ string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return false, nil
	}
	if st := s.Condition(reconcile.CondStalled); st.Status == reconcile.True {
		return false, fmt.Errorf("%s: %s", st.Reason, st.Message)
	}
	switch s.Phase {
	case reconcile.PhaseCompleted, reconcile.PhaseSuspended:
		return true, nil
	case reconcile.PhaseFailed:
		ready := s.Condition(reconcile.CondReady)
		return false, fmt.Errorf("%s: %s", ready.Reason, ready.Message)
	}
	return s.Condition(reconcile.CondReady).Status == reconcile.True, nil
}

// forDelete: it is gone. A removal that is held is not waited for.
func forDelete(_ *world, _ string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return true, nil
	}
	if st := s.Condition(reconcile.CondStalled); st.Status == reconcile.True && st.Reason == reconcile.ReasonApprovalNeeded {
		return false, fmt.Errorf("%s: %s", st.Reason, st.Message)
	}
	return false, nil
}

func forCompleted(_ *world, _ string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return false, nil
	}
	if s.Phase == reconcile.PhaseFailed {
		ready := s.Condition(reconcile.CondReady)
		return false, fmt.Errorf("%s: %s", ready.Reason, ready.Message)
	}
	return s.Phase == reconcile.PhaseCompleted, nil
}

// forToken: the restart requests have been carried out.
func forToken(tokens map[string]string) goal {
	return func(w *world, name string, s *reconcile.Status) (bool, error) {
		for i := range w.in.Actual.Sandboxes {
			if rec := w.in.Actual.Sandboxes[i].Record; rec.Name == name && rec.RestartToken == tokens[name] {
				return forSettled(w, name, s)
			}
		}
		return false, nil
	}
}

// waitFor looks until all names are as wanted.
func (a *app) waitFor(ctx context.Context, names []string, want goal, timeout time.Duration) error {
	errTimeout := errors.New("timed out")
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	left := map[string]bool{}
	for _, n := range names {
		left[n] = true
	}
	var last *world
	err := a.eachLook(ctx, func(w *world) (bool, error) {
		last = w
		for n := range left {
			ok, err := want(w, n, w.status(n))
			if err != nil {
				return true, fmt.Errorf("wait for %s: %w", n, err)
			}
			if ok {
				delete(left, n)
			}
		}
		return len(left) == 0, nil
	})
	if !errors.Is(err, errTimeout) {
		return err
	}
	var states []string
	for n := range left {
		state := n + " is not there"
		if s := last.status(n); s != nil {
			state = n + " is " + s.Phase
			if h := headline(s); h != "" {
				state += " (" + clean(h) + ")"
			}
		}
		states = append(states, state)
	}
	msg := fmt.Sprintf("timed out after %s: %s", timeout, strings.Join(states, ", "))
	if !last.alive {
		msg += "; the daemon is not running"
	}
	return &exitError{code: exitTimeout, err: errors.New(msg)}
}
