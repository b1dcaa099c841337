// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// goal says whether a sandbox is as wanted; s is nil if there is none. An
// error says that it will not be without somebody's help.
type goal func(w *world, name string, s *reconcile.Status) (bool, error)

func (a *app) waitCommand() *cobra.Command {
	var (
		sel     selection
		want    string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "wait NAME... --for=WHAT",
		Short: "Wait until sandboxes are as wanted",
		Long: `Wait until sandboxes are as wanted. WHAT is one of

  ready               they run what their manifests say and have done so for their
                      minReadySeconds, or they have completed
  delete              they are gone
  completed           they have run to their end with exit code 0
  phase=PHASE         as in ` + "`sandboxctl get`" + `
  condition=TYPE      as in ` + "`sandboxctl describe`" + `; condition=TYPE=False for its opposite

A sandbox that does not exist, and one that can't become what is waited for, end
the wait at once. Why a sandbox is not there yet is printed on standard error.

Exit code 0: as wanted, 3: not within the time, 1: it can't be any more.`,
		Example: `  sandboxctl wait web --for=ready
  sandboxctl wait job --for=completed --timeout 10m`,
		ValidArgsFunction: a.completeMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && sel.labels == "" {
				return exit.Usagef("expected a NAME, or -l LABEL=VALUE")
			}
			g, err := parseGoal(want)
			if err != nil {
				return err
			}
			if sel.labels != "" {
				w, err := a.once(cmd.Context())
				if err != nil {
					return err
				}
				if args, err = sel.names(w, args, false); err != nil {
					return err
				}
			}
			return a.waitFor(cmd.Context(), args, g, timeout)
		},
	}
	sel.add(cmd)
	cmd.Flags().StringVar(&want, "for", "ready", "what to wait for")
	goals := []string{"ready", "delete", "completed"}
	for _, p := range reconcile.Phases {
		goals = append(goals, "phase="+p)
	}
	completeValues(cmd, "for", goals...)
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait (0: for ever)")
	return cmd
}

func parseGoal(s string) (goal, error) {
	kind, rest, _ := strings.Cut(s, "=")
	switch {
	case s == "ready":
		return forReady, nil
	case s == "delete":
		return forDelete, nil
	case s == "completed":
		return forCompleted, nil
	case kind == "phase" && rest != "":
		i := slices.IndexFunc(reconcile.Phases, func(p string) bool { return strings.EqualFold(p, rest) })
		if i < 0 {
			return nil, exit.Usagef("--for: expected one of %s, got phase %q", strings.Join(reconcile.Phases, ", "), rest)
		}
		return func(w *world, name string, s *reconcile.Status) (bool, error) {
			if s == nil {
				return false, w.missing(name)
			}
			return s.Phase == reconcile.Phases[i], nil
		}, nil
	case kind == "condition":
		typ, status, ok := strings.Cut(rest, "=")
		if !ok {
			status = reconcile.True
		}
		if typ == "" || status == "" {
			break
		}
		return func(w *world, name string, s *reconcile.Status) (bool, error) {
			if s == nil {
				return false, w.missing(name)
			}
			c := s.Condition(typ)
			if c == nil {
				return false, exit.Usagef("--for: there is no condition %q", typ)
			}
			return strings.EqualFold(c.Status, status), nil
		}, nil
	}
	return nil, exit.Usagef("--for: expected ready, delete, completed, phase=PHASE or condition=TYPE, got %q", s)
}

// forReady: the sandbox runs what its manifest says and has done so for
// minReadySeconds, or it has completed.
func forReady(w *world, name string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return false, w.missing(name)
	}
	for _, c := range []struct{ typ, bad string }{{reconcile.CondStalled, reconcile.True}, {reconcile.CondManifestValid, reconcile.False}} {
		// A manifest that is missing only for now can come back.
		if cond := s.Condition(c.typ); cond != nil && cond.Status == c.bad && cond.Reason != actual.ReasonSourceIncomplete {
			return false, fmt.Errorf("%s: %s", cond.Reason, cond.Message)
		}
	}
	if err := unfit(name, s); err != nil {
		return false, err
	}
	switch s.Phase {
	case reconcile.PhaseCompleted, reconcile.PhaseSuspended:
		return true, nil
	case reconcile.PhaseFailed:
		ready := s.Condition(reconcile.CondReady)
		return false, fmt.Errorf("%s: %s", ready.Reason, ready.Message)
	}
	return s.Condition(reconcile.CondReady).Status == reconcile.True && w.lasted(name, s), nil
}

// unfit is the error for one who waits for a sandbox that can't be started until
// somebody changes the host or its root. It is tried again after its back-off.
func unfit(name string, s *reconcile.Status) error {
	if s.Phase != reconcile.PhaseCrashLoopBackOff || s.LastTermination == nil || !s.LastTermination.PreconditionFailed {
		return nil
	}
	return fmt.Errorf("%s: %s; when that is mended, `sandboxctl restart %s` tries at once", s.LastTermination.Reason, show.Clean(s.LastTermination.Message), name)
}

// missing is the error for one who waits for a sandbox that does not exist. While
// not all manifests can be read it may exist.
func (w *world) missing(name string) error {
	if !w.in.Desired.Complete {
		return nil
	}
	return w.noSuch(name)
}

// lasted says whether a sandbox has run for its minReadySeconds. A crash loop
// runs too, for a moment. Under a clock that was set back nobody can tell.
func (w *world) lasted(name string, s *reconcile.Status) bool {
	e := w.entry(name)
	if e == nil {
		return true
	}
	ran := w.in.Now.Sub(s.StartedAt)
	return ran < 0 || ran >= time.Duration(*e.Sandbox.Spec.MinReadySeconds)*time.Second
}

// forDelete: it is gone. A removal that is held is not waited for.
func forDelete(_ *world, _ string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return true, nil
	}
	if st := s.Condition(reconcile.CondStalled); st.Status == reconcile.True && st.Reason == actual.ReasonApprovalNeeded {
		return false, fmt.Errorf("%s: %s", st.Reason, st.Message)
	}
	return false, nil
}

func forCompleted(w *world, name string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return false, w.missing(name)
	}
	if s.Phase == reconcile.PhaseCompleted {
		return true, nil
	}
	if st := s.Condition(reconcile.CondStalled); st.Status == reconcile.True {
		return false, fmt.Errorf("%s: %s", st.Reason, st.Message)
	}
	if s.Phase == reconcile.PhaseFailed {
		ready := s.Condition(reconcile.CondReady)
		return false, fmt.Errorf("%s: %s", ready.Reason, ready.Message)
	}
	if err := unfit(name, s); err != nil {
		return false, err
	}
	if e := w.entry(name); e != nil && e.Sandbox.Spec.RestartPolicy == desired.RestartAlways {
		return false, errors.New("it has restartPolicy Always and never completes; use restartPolicy Never or OnFailure")
	}
	return false, nil
}

// forToken: the restart requests have been carried out.
func forToken(tokens map[string]string) goal {
	return func(w *world, name string, s *reconcile.Status) (bool, error) {
		for i := range w.in.Actual.Sandboxes {
			if rec := w.in.Actual.Sandboxes[i].Record; rec.Name == name && rec.RestartToken == tokens[name] {
				return forReady(w, name, s)
			}
		}
		return false, nil
	}
}

// waitFor looks until all names are as wanted. What it waits for goes to
// standard error as it becomes known.
func (a *app) waitFor(ctx context.Context, names []string, want goal, timeout time.Duration) error {
	errTimeout := errors.New("timed out")
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	waiting := map[string]bool{}
	for _, n := range names {
		waiting[n] = true
	}
	var last *world
	news := waitNews{a: a, told: map[string]string{}}
	err := a.eachLook(ctx, func(w *world) (bool, error) {
		last = w
		for _, n := range names {
			if !waiting[n] {
				continue
			}
			ok, err := want(w, n, w.status(n))
			if err != nil {
				return true, fmt.Errorf("wait for %s: %w", n, err)
			}
			if ok {
				delete(waiting, n)
				continue
			}
			news.sandbox(w, n)
		}
		if len(waiting) > 0 {
			news.daemon(w)
		}
		return len(waiting) == 0, nil
	})
	if !errors.Is(err, errTimeout) {
		return err
	}
	return &exit.Error{Code: exit.Timeout, Err: errors.New(timeoutMessage(last, names, waiting, timeout))}
}

// timeoutMessage says what was waited for in vain.
func timeoutMessage(w *world, names []string, waiting map[string]bool, timeout time.Duration) string {
	var states []string
	for _, n := range names {
		if !waiting[n] {
			continue
		}
		state := n + " is not there"
		if s := w.status(n); s != nil {
			state = n + " is " + s.Phase
			if h := headline(s); h != "" {
				state += " (" + show.Clean(h) + ")"
			}
		}
		states = append(states, state)
	}
	msg := fmt.Sprintf("timed out after %s: %s", timeout, strings.Join(states, ", "))
	if !w.alive {
		msg += "; the daemon is not running"
	}
	return msg
}

// waitNews tells one who waits why, once for each reason.
type waitNews struct {
	a        *app
	told     map[string]string // by name
	noDaemon bool
}

func (n *waitNews) sandbox(w *world, name string) {
	s := w.status(name)
	if s == nil || s.Phase == reconcile.PhaseStopping {
		return // a moment later there is more to say
	}
	why := headline(s)
	key := s.Phase + why
	switch s.Phase {
	case reconcile.PhaseRestarting:
		why = "it ended with exit code 0, and is started again after a delay"
		key = why
	case reconcile.PhaseCrashLoopBackOff:
		why = fmt.Sprintf("%s; failure %d, it is started again after a delay", lastFailure(s), s.Failures)
		key = why // its countdown is no news
	}
	if why == "" || n.told[name] == key {
		return
	}
	n.told[name] = key
	fmt.Fprintf(n.a.stderr, "%s: %s: %s\n", name, s.Phase, show.Clean(why))
}

func (n *waitNews) daemon(w *world) {
	if !w.alive && !n.noDaemon {
		fmt.Fprintln(n.a.stderr, "waiting for the daemon, which is not running")
	}
	n.noDaemon = !w.alive
}
