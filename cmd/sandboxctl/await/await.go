// SPDX-License-Identifier: Apache-2.0

// Package await waits until sandboxes are as somebody wants them, and says meanwhile
// why they are not: for the verb wait, and for --wait of those that change something.
package await

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// Goal says whether a sandbox is as wanted; s is nil if there is none. An
// error says that it will not be without somebody's help.
type Goal func(w *world.World, name string, s *reconcile.Status) (bool, error)

// Command is the verb wait.
func Command(h *world.Host) *cobra.Command {
	var (
		sel     world.Selection
		want    string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "wait NAME... --for=WHAT",
		Short: "Wait until sandboxes are as wanted",
		Long: `Wait until sandboxes are as wanted. WHAT is one of

  ready               they run what their manifests say and have done so for their
                      minReadySeconds, or they have completed; one that is suspended
                      ends the wait at once
  delete              they are gone
  completed           they have run to their end with exit code 0
  phase=PHASE         as in ` + "`sandboxctl get`" + `
  condition=TYPE      as in ` + "`sandboxctl describe`" + `; condition=TYPE=False for its opposite

A sandbox that does not exist ends the wait at once, and so does one that can't
become ready, completed or deleted without somebody's help. Why a sandbox is not
there yet is printed on standard error.

Exit code 0: as wanted, 3: not within the time, 1: it can't be any more.`,
		Example: `  sandboxctl wait web --for=ready
  sandboxctl wait job --for=completed --timeout 10m`,
		ValidArgsFunction: h.CompleteMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && sel.Labels == "" {
				return exit.Usagef("expected a NAME, or -l LABEL=VALUE")
			}
			g, err := Parse(want)
			if err != nil {
				return err
			}
			if sel.Labels != "" {
				w, err := h.Once(cmd.Context())
				if err != nil {
					return err
				}
				if args, err = sel.Names(w, args, false); err != nil {
					return err
				}
			}
			return Until(cmd.Context(), h, args, g, timeout)
		},
	}
	sel.Add(cmd)
	cmd.Flags().StringVar(&want, "for", "ready", "what to wait for")
	goals := []string{"ready", "delete", "completed"}
	for _, p := range reconcile.Phases {
		goals = append(goals, "phase="+p)
	}
	entry.CompleteValues(cmd, "for", goals...)
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait (0: for ever)")
	return cmd
}

// Parse reads a goal as --for gives it.
func Parse(s string) (Goal, error) {
	kind, rest, _ := strings.Cut(s, "=")
	switch {
	case s == "ready":
		return orSuspended(Ready), nil
	case s == "delete":
		return Deleted, nil
	case s == "completed":
		return orSuspended(completed), nil
	case kind == "phase" && rest != "":
		i := slices.IndexFunc(reconcile.Phases, func(p string) bool { return strings.EqualFold(p, rest) })
		if i < 0 {
			return nil, exit.Usagef("--for: expected one of %s, got phase %q", strings.Join(reconcile.Phases, ", "), rest)
		}
		return func(w *world.World, name string, s *reconcile.Status) (bool, error) {
			if s == nil {
				return false, missing(w, name)
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
		return func(w *world.World, name string, s *reconcile.Status) (bool, error) {
			if s == nil {
				return false, missing(w, name)
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

// Ready is the goal that a sandbox runs what its manifest says and has done so for
// minReadySeconds, or it has completed.
func Ready(w *world.World, name string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return false, missing(w, name)
	}
	for _, c := range []struct{ typ, bad string }{{reconcile.CondStalled, reconcile.True}, {reconcile.CondManifestValid, reconcile.False}} {
		// A manifest that is missing only for now can come back.
		if cond := s.Condition(c.typ); cond != nil && cond.Status == c.bad && cond.Reason != actual.ReasonSourceIncomplete {
			return false, fmt.Errorf("%s: %s", cond.Reason, cond.Message)
		}
	}
	if err := unfit(w, name, s); err != nil {
		return false, err
	}
	switch s.Phase {
	case reconcile.PhaseCompleted, reconcile.PhaseSuspended:
		return true, nil
	case reconcile.PhaseFailed, reconcile.PhaseExpired:
		ready := s.Condition(reconcile.CondReady)
		return false, fmt.Errorf("%s: %s", ready.Reason, ready.Message)
	}
	return s.Condition(reconcile.CondReady).Status == reconcile.True && lasted(w, name, s), nil
}

// orSuspended is a goal that a sandbox does not come to while it is suspended, or when its
// until is over: the error says so.
func orSuspended(goal Goal) Goal {
	return func(w *world.World, name string, s *reconcile.Status) (bool, error) {
		if err := Suspended(w, name); err != nil && s != nil && s.Phase != reconcile.PhaseCompleted {
			return false, err
		}
		return goal(w, name, s)
	}
}

// Suspended is the error for one who wants a sandbox to run whose manifest says that it is
// not to.
func Suspended(w *world.World, name string) error {
	if e := w.Entry(name); e != nil && e.Sandbox.Spec.Suspend {
		return fmt.Errorf("%s: spec.suspend is set; `sandboxctl start %s` starts it", actual.ReasonSuspended, name)
	}
	if s := w.Status(name); s != nil && s.Phase == reconcile.PhaseExpired {
		return fmt.Errorf("%s: %s; give it a later until", actual.ReasonExpired, s.Condition(reconcile.CondReady).Message)
	}
	return nil
}

// blocked is the error for one who waits for a start that is not even tried until
// somebody changes the host, as where a file that the manifest names or its image is
// missing.
func blocked(w *world.World, name string) error {
	for i := range w.Plan.Delayed {
		d := &w.Plan.Delayed[i]
		if d.Name != name || !d.PreconditionFailed {
			continue
		}
		if d.Reason == actual.ReasonDiskPressure && len(w.Plan.Actions)+len(w.In.Operations) > 0 {
			continue // what is under way may make room
		}
		hint := ""
		if !d.Until.IsZero() {
			hint = "; when that is corrected, `sandboxctl restart " + name + "` tries at once"
		}
		return fmt.Errorf("%s: %s%s", d.Reason, show.Clean(d.Why), hint)
	}
	return nil
}

// unfit is the error for one who waits for a sandbox that can't be started until
// somebody changes the host or its root. It is tried again after its back-off.
func unfit(w *world.World, name string, s *reconcile.Status) error {
	if err := blocked(w, name); err != nil {
		return err
	}
	if s.Phase != reconcile.PhaseCrashLoopBackOff || s.LastTermination == nil || !s.LastTermination.PreconditionFailed {
		return nil
	}
	return fmt.Errorf("%s: %s; when that is corrected, `sandboxctl restart %s` tries at once", s.LastTermination.Reason, show.Clean(s.LastTermination.Message), name)
}

// missing is the error for one who waits for a sandbox that does not exist. While
// not all manifests can be read it may exist.
func missing(w *world.World, name string) error {
	if !w.In.Desired.Complete {
		return nil
	}
	return w.NoSuch(name)
}

// lasted says whether a sandbox has run for its minReadySeconds. A crash loop
// runs too, for a moment. Under a clock that was set back nobody can tell.
func lasted(w *world.World, name string, s *reconcile.Status) bool {
	e := w.Entry(name)
	if e == nil {
		return true
	}
	ran := w.In.Now.Sub(s.StartedAt)
	return ran < 0 || ran >= time.Duration(*e.Sandbox.Spec.MinReadySeconds)*time.Second
}

// Deleted is the goal that a sandbox is gone. A removal that waits for approval is not waited for.
func Deleted(_ *world.World, _ string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return true, nil
	}
	if st := s.Condition(reconcile.CondStalled); st.Status == reconcile.True && st.Reason == actual.ReasonApprovalNeeded {
		return false, fmt.Errorf("%s: %s", st.Reason, st.Message)
	}
	return false, nil
}

func completed(w *world.World, name string, s *reconcile.Status) (bool, error) {
	if s == nil {
		return false, missing(w, name)
	}
	if s.Phase == reconcile.PhaseCompleted {
		return true, nil
	}
	if st := s.Condition(reconcile.CondStalled); st.Status == reconcile.True {
		return false, fmt.Errorf("%s: %s", st.Reason, st.Message)
	}
	if s.Phase == reconcile.PhaseFailed || s.Phase == reconcile.PhaseExpired {
		ready := s.Condition(reconcile.CondReady)
		return false, fmt.Errorf("%s: %s", ready.Reason, ready.Message)
	}
	if err := unfit(w, name, s); err != nil {
		return false, err
	}
	if e := w.Entry(name); e != nil && e.Sandbox.Spec.RestartPolicy == desired.RestartAlways {
		return false, errors.New("it has restartPolicy Always and never completes; use restartPolicy Never or OnFailure")
	}
	return false, nil
}

// Restarted is the goal that restart requests have been carried out.
func Restarted(tokens map[string]string) Goal {
	return orSuspended(func(w *world.World, name string, s *reconcile.Status) (bool, error) {
		if carriedOut(w, name, tokens[name]) == nil {
			return false, blocked(w, name)
		}
		return Ready(w, name, s)
	})
}

// Restored is the goal that a restart request has been carried out, and the sandbox resumed from
// its checkpoint. One that was started afresh instead is not what was asked for.
func Restored(token string) Goal {
	return func(w *world.World, name string, s *reconcile.Status) (bool, error) {
		rec := carriedOut(w, name, token)
		if rec == nil {
			return false, blocked(w, name)
		}
		// The request set the failures to zero: the last start that failed is its own.
		if app := rec.App(); app.Failures > 0 && app.LastExit != nil && app.LastExit.Reason == actual.ReasonCreateFailed {
			return false, fmt.Errorf("it was not restored and is started afresh: %s", show.Clean(app.LastExit.Message))
		}
		return Ready(w, name, s)
	}
}

// carriedOut is the record of a sandbox whose last restart request is the one with
// this token, nil if there is none.
func carriedOut(w *world.World, name, token string) *actual.Record {
	for i := range w.In.Actual.Sandboxes {
		if rec := w.In.Actual.Sandboxes[i].Record; rec.Name == name && rec.RestartToken == token {
			return rec
		}
	}
	return nil
}

// Until looks until all names are as wanted. What it waits for goes to
// standard error as it becomes known.
func Until(ctx context.Context, h *world.Host, names []string, want Goal, timeout time.Duration) error {
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
	var last *world.World
	news := waitNews{h: h, told: map[string]string{}, stops: map[string]time.Time{}}
	err := h.EachLook(ctx, func(w *world.World) (bool, error) {
		last = w
		for _, n := range names {
			if !waiting[n] {
				continue
			}
			ok, err := want(w, n, w.Status(n))
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
func timeoutMessage(w *world.World, names []string, waiting map[string]bool, timeout time.Duration) string {
	var states []string
	for _, n := range names {
		if !waiting[n] {
			continue
		}
		state := n + " is not there"
		if s := w.Status(n); s != nil {
			state = n + " is " + s.Phase
			if h := cmp.Or(stopText(w, s), world.Headline(s)); h != "" {
				state += " (" + show.Clean(h) + ")"
			}
		}
		states = append(states, state)
	}
	msg := fmt.Sprintf("timed out after %s: %s", timeout, strings.Join(states, ", "))
	if !w.Alive {
		msg += "; the daemon is not running"
	}
	return msg
}

// waitNews tells one who waits why, once for each reason.
type waitNews struct {
	h        *world.Host
	told     map[string]string    // by name
	stops    map[string]time.Time // since when each has been stopping
	noDaemon bool
}

func (n *waitNews) sandbox(w *world.World, name string) {
	s := w.Status(name)
	if s == nil {
		return
	}
	why := world.Headline(s)
	key := s.Phase + why
	switch s.Phase {
	case reconcile.PhaseStopping:
		if !n.lasts(w, name) {
			return // a moment later there is more to say
		}
		why = cmp.Or(stopText(w, s), why)
		key = why
	case reconcile.PhaseRestarting:
		why = "it ended with exit code 0, and is started again after a delay"
		key = why
	case reconcile.PhaseCrashLoopBackOff:
		why = fmt.Sprintf("%s; failure %d, it is started again after a delay", world.LastFailure(s), s.Failures)
		key = why // its countdown is no news
	}
	if why == "" || n.told[name] == key {
		return
	}
	n.told[name] = key
	fmt.Fprintf(n.h.Stderr, "%s: %s: %s\n", name, s.Phase, show.Clean(why))
}

// lasts says whether a stop takes longer than most do.
func (n *waitNews) lasts(w *world.World, name string) bool {
	since, ok := n.stops[name]
	if !ok {
		n.stops[name] = w.In.Now
	}
	return ok && w.In.Now.Sub(since) >= time.Second
}

// stopText says what the stop of a sandbox waits for: its application, "" if that is not so.
func stopText(w *world.World, s *reconcile.Status) string {
	rec := w.Record(s.Name)
	if s.Phase != reconcile.PhaseStopping || rec == nil || rec.Ending == nil || rec.Ending.Grace == 0 || s.SentryPID == 0 {
		return ""
	}
	text := fmt.Sprintf("its application was sent %s, and is killed if it has not ended %s after that", rec.Ending.StopSignal, rec.Ending.Grace)
	for _, warn := range rec.Warnings {
		if warn.Reason == actual.WarningStopFailed {
			text = "to stop it has failed, and is tried again: " + warn.Message
		}
	}
	return text
}

func (n *waitNews) daemon(w *world.World) {
	if !w.Alive && !n.noDaemon {
		fmt.Fprintln(n.h.Stderr, "waiting for the daemon, which is not running")
	}
	n.noDaemon = !w.Alive
}
