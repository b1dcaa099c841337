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
	"sandboxctl.dev/cmd/sandboxctl/world"
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
			if err := exit.Format(output, "json", "yaml"); err != nil {
				return err
			}
			w, err := a.Once(cmd.Context())
			if err != nil {
				return err
			}
			return a.printPlan(w, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return cmd
}

func (a *app) printPlan(w *world.World, output string) error {
	lines := []planned{}
	for _, act := range w.Plan.Actions {
		lines = append(lines, planned{Op: act.Op.String(), Name: act.Name, Reason: act.Reason})
	}
	for _, d := range w.Plan.Delayed {
		lines = append(lines, planned{Op: d.Op.String(), Name: d.Name, Reason: d.Reason, WaitsFor: d.Describe(w.In.Now), Until: d.Until})
	}
	for _, c := range w.Plan.Cancel {
		lines = append(lines, planned{Op: "cancel", Name: c.Name, Reason: c.Reason})
	}
	for i := range w.Statuses {
		for _, warn := range w.Statuses[i].Warnings {
			if warn.Reason == actual.WarningImageMoved {
				lines = append(lines, planned{Op: "(keeps its image)", Name: w.Statuses[i].Name, Reason: warn.Reason, WaitsFor: warn.Message})
			}
		}
	}
	lines = append(lines, ends(w)...)
	for i := range w.Plan.Volumes {
		v := &w.Plan.Volumes[i]
		lines = append(lines, planned{Op: v.Op(), Name: "volume/" + v.Name, Reason: actual.ReasonDeclared})
	}
	for i := range w.Plan.VolumesLater {
		v := &w.Plan.VolumesLater[i]
		lines = append(lines, planned{Op: v.Op(), Name: "volume/" + v.Name, Reason: actual.ReasonDeclared, WaitsFor: "the last try failed: " + v.Why, Until: v.Until})
	}
	slices.SortStableFunc(lines, func(a, b planned) int { return cmp.Compare(a.Name, b.Name) })
	doc := struct {
		Actions []planned         `json:"actions"`
		Summary reconcile.Summary `json:"summary"`
	}{lines, w.Summary}
	switch output {
	case "json":
		return show.JSON(a.Stdout, doc)
	case "yaml":
		return show.YAML(a.Stdout, doc)
	}
	a.Warnings(w)
	if g := w.Plan.Guard; g != nil {
		for _, n := range g.Names {
			lines = append(lines, planned{Op: "(pending approval)", Name: n, Reason: actual.ReasonApprovalNeeded})
		}
	}
	if len(lines) == 0 {
		fmt.Fprintln(a.Stdout, "nothing to do")
		return nil
	}
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = []string{l.Op, l.Name, l.Reason, show.Clean(l.WaitsFor)}
	}
	return show.Table(a.Stdout, []string{"OPERATION", "NAME", "REASON", "WAITS FOR"}, rows)
}

// ends are what will be stopped, and given up, because its time is over then.
func ends(w *world.World) (out []planned) {
	for i := range w.Statuses {
		s := &w.Statuses[i]
		in := func(op reconcile.Op, reason string, at time.Time) {
			if !at.IsZero() && !slices.ContainsFunc(w.Plan.Actions, func(a reconcile.Action) bool { return a.Name == s.Name && a.Op == op }) {
				out = append(out, planned{Op: op.String(), Name: s.Name, Reason: reason, WaitsFor: "its time, in " + at.Sub(w.In.Now).Round(time.Second).String(), Until: at})
			}
		}
		in(reconcile.OpDestroy, s.EndsReason, s.EndsAt)
		in(reconcile.OpForget, actual.ReasonTTLExpired, s.RetiresAt)
	}
	return out
}

func (a *app) approveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "approve",
		Short: "Approve removals that wait for it",
		Long: `Approve the removal of the sandboxes whose manifests are missing, when there are
so many of them that the daemon asks first. Only the removals that
` + "`sandboxctl plan`" + ` shows now are approved.`,
		Example: `  sandboxctl plan && sandboxctl approve`,
		Args:    exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := a.Once(cmd.Context())
			if err != nil {
				return err
			}
			if w.Plan.Guard == nil {
				fmt.Fprintln(a.Stdout, "nothing waits for approval")
				return nil
			}
			token := actual.NewUID()
			names := w.Plan.Guard.Names
			if err := a.Request(actual.Request{Kind: actual.RequestApprove, Token: token, Names: names}); err != nil {
				return err
			}
			for _, n := range names {
				fmt.Fprintf(a.Stdout, "sandbox/%s removal approved\n", n)
			}
			a.NoteDaemon(w)
			return nil
		},
	}
}
