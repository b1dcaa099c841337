// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/reconcile"
)

// planned is one line of a plan.
type planned struct {
	Op     string `json:"op"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
	// WaitsFor says what it can't be begun before, Until when that is, if that is
	// known.
	WaitsFor string    `json:"waitsFor,omitempty"`
	Until    time.Time `json:"until,omitzero"`
}

func (a *app) planCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what the daemon would do now",
		Long: `Show what the daemon would do now, computed as the daemon computes it: what it can
begin, what waits, for what and until when, which operations it cancels, and what
waits for approval. Nothing is done.`,
		Example: `  sandboxctl plan
  sandboxctl plan -o json`,
		Args: exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := a.once(cmd.Context())
			if err != nil {
				return err
			}
			return a.printPlan(w, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return cmd
}

func (a *app) printPlan(w *world, output string) error {
	lines := []planned{}
	for _, act := range w.plan.Actions {
		lines = append(lines, planned{Op: act.Op.String(), Name: act.Name, Reason: act.Reason})
	}
	for _, d := range w.plan.Delayed {
		lines = append(lines, planned{Op: d.Op.String(), Name: d.Name, Reason: d.Reason, WaitsFor: d.Describe(w.in.Now), Until: d.Until})
	}
	for _, c := range w.plan.Cancel {
		lines = append(lines, planned{Op: "cancel", Name: c.Name, Reason: c.Reason})
	}
	slices.SortStableFunc(lines, func(a, b planned) int { return cmp.Compare(a.Name, b.Name) })
	doc := struct {
		Actions []planned         `json:"actions"`
		Summary reconcile.Summary `json:"summary"`
	}{lines, w.summary}
	switch output {
	case "json":
		return show.JSON(a.stdout, doc)
	case "yaml":
		return show.YAML(a.stdout, doc)
	case "":
	default:
		return exit.Usagef("-o: expected json or yaml, got %q", output)
	}
	a.warnings(w)
	if g := w.plan.Guard; g != nil {
		for _, n := range g.Names {
			lines = append(lines, planned{Op: "(pending approval)", Name: n, Reason: actual.ReasonApprovalNeeded})
		}
	}
	if len(lines) == 0 {
		fmt.Fprintln(a.stdout, "nothing to do")
		return nil
	}
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = []string{l.Op, l.Name, l.Reason, show.Clean(l.WaitsFor)}
	}
	return show.Table(a.stdout, []string{"OPERATION", "NAME", "REASON", "WAITS FOR"}, rows)
}

// warnings says on stderr what is the matter with the whole.
func (a *app) warnings(w *world) {
	if !w.summary.Complete {
		fmt.Fprintf(a.stderr, "warning: %s: %s\n", w.summary.Reason, show.Clean(w.summary.Message))
	}
	if w.plan.Guard != nil {
		fmt.Fprintf(a.stderr, "warning: "+actual.EventApprovalNeeded+": %s\n", w.plan.Guard.Message)
	}
	if !w.alive && (len(w.plan.Actions) > 0 || len(w.statuses) > 0) {
		fmt.Fprintln(a.stderr, "warning: the daemon is not running; changes take effect when it starts (systemctl start sandboxctl)")
	}
	for i := range w.strays {
		m := &w.strays[i]
		fmt.Fprintf(a.stderr, "warning: the %s of %s lives and no record knows it: it is not started a second time; was the state directory %s removed, replaced or not mounted?\n", m, m.Sandbox, a.state)
	}
	if w.summary.DiskPressure != "" {
		fmt.Fprintf(a.stderr, "warning: DiskPressure: %s (%s)\n", w.summary.DiskPressure, a.state)
	}
}

func (a *app) approveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "approve",
		Short: "Approve removals that wait for it",
		Long: `Approve the removal of the sandboxes whose manifests are missing, when there are
so many of them that the daemon asks first. Exactly those are approved that
` + "`sandboxctl plan`" + ` shows now.`,
		Example: `  sandboxctl plan && sandboxctl approve`,
		Args:    exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := a.once(cmd.Context())
			if err != nil {
				return err
			}
			if w.plan.Guard == nil {
				fmt.Fprintln(a.stdout, "nothing waits for approval")
				return nil
			}
			token := actual.NewUID()
			names := w.plan.Guard.Names
			if err := a.request(actual.Request{Kind: actual.RequestApprove, Token: token, Names: names}); err != nil {
				return err
			}
			for _, n := range names {
				fmt.Fprintf(a.stdout, "sandbox/%s removal approved\n", n)
			}
			a.noteDaemon(w)
			return nil
		},
	}
}

// request leaves a request for the daemon.
func (a *app) request(r actual.Request) error {
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	return store.PutRequest(r)
}

// noteNotRunning says so after a change of manifests.
func (a *app) noteNotRunning(w *world) {
	if !w.alive {
		fmt.Fprintln(a.stderr, "note: the daemon is not running; changes take effect when it starts (systemctl start sandboxctl)")
	}
}

// noteDaemon says so when nobody will carry a request out for now.
func (a *app) noteDaemon(w *world) {
	if !w.alive {
		fmt.Fprintln(a.stderr, "note: the daemon is not running; the request is kept and carried out when it starts")
	}
}
