// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

// object is a sandbox as `get -o json` prints it: its manifest and its status.
type object struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Metadata   objectMeta       `json:"metadata"`
	Spec       *desired.Spec    `json:"spec,omitempty"`
	Status     reconcile.Status `json:"status"`
}

type objectMeta struct {
	desired.Metadata
	UID               string     `json:"uid,omitempty"`
	Generation        int64      `json:"generation,omitempty"`
	CreationTimestamp *time.Time `json:"creationTimestamp,omitempty"`
}

type objectList struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []object          `json:"items"`
	Summary    reconcile.Summary `json:"summary"`
	// Warnings are of files that belong to no sandbox, if all are listed.
	Warnings []desired.Warning `json:"warnings,omitempty"`
}

func (a *app) getCommand() *cobra.Command {
	var (
		sel    selection
		output string
		watch  bool
	)
	cmd := &cobra.Command{
		Use:     "get [NAME...]",
		Aliases: []string{"ls", "list"},
		Short:   "Show sandboxes",
		Long: `Show sandboxes: those the manifests want and those that are there. The status is
computed from the manifests, the records and the live processes; no daemon is
asked.`,
		Example: `  sandboxctl get
  sandboxctl get web -o yaml
  sandboxctl get web -o manifest >web.yaml    # what apply takes
  sandboxctl get -l tier=back -o wide -w`,
		ValidArgsFunction: a.completeMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "wide", "json", "yaml", "manifest", "name"); err != nil {
				return err
			}
			if watch && output == "manifest" {
				return exit.Usagef("-o manifest can't be watched; use -o yaml")
			}
			if watch {
				return a.watchGet(cmd.Context(), &sel, args, output)
			}
			w, err := a.once(cmd.Context())
			if err != nil {
				return err
			}
			names, err := sel.names(w, args, true)
			if err != nil {
				return err
			}
			return a.printGet(w, names, output)
		},
	}
	sel.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "wide, json, yaml, manifest or name")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "watch for changes")
	return cmd
}

// printGet prints the sandboxes of the names, or with nil all.
func (a *app) printGet(w *world, names []string, output string) error {
	statuses := w.statuses
	if names != nil {
		statuses = nil
		for _, n := range names {
			statuses = append(statuses, *w.status(n))
		}
	}
	switch output {
	case "manifest":
		return a.printManifests(w, statuses)
	case "name":
		for i := range statuses {
			fmt.Fprintln(a.stdout, statuses[i].Name)
		}
		return nil
	case "json", "yaml":
		encode := show.JSON
		if output == "yaml" {
			encode = show.YAML
		}
		if len(names) == 1 {
			return encode(a.stdout, w.object(statuses[0]))
		}
		list := objectList{APIVersion: desired.APIVersion, Kind: desired.Kind + "List", Items: []object{}, Summary: w.summary}
		if names == nil {
			list.Warnings = w.in.Desired.Warnings
		}
		for i := range statuses {
			list.Items = append(list.Items, w.object(statuses[i]))
		}
		return encode(a.stdout, list)
	}
	a.warnings(w)
	switch {
	case len(statuses) > 0:
	case names != nil:
		fmt.Fprintln(a.stderr, "no sandbox has these labels")
	default:
		fmt.Fprintf(a.stderr, "no sandboxes; put a manifest into %s\n", a.manifests)
	}
	rows := make([][]string, len(statuses))
	for i := range statuses {
		rows[i] = w.getRow(&statuses[i], output == "wide")
	}
	if len(rows) > 0 {
		if err := show.Table(a.stdout, getHeader(output == "wide"), rows); err != nil {
			return err
		}
	}
	// Problems of files that belong to no sandbox are shown nowhere else.
	if names == nil {
		for _, w := range w.in.Desired.Warnings {
			fmt.Fprintf(a.stderr, "warning: %s\n", show.Clean(w.Error()))
		}
		for _, p := range w.in.Desired.Problems {
			if p.Name == "" {
				fmt.Fprintf(a.stderr, "%s\n", show.Clean(p.Error()))
			}
		}
	}
	return nil
}

// object joins a status with its manifest.
func (w *world) object(s reconcile.Status) object {
	o := object{
		APIVersion: desired.APIVersion, Kind: desired.Kind, Status: s,
		Metadata: objectMeta{Metadata: desired.Metadata{Name: s.Name}, UID: s.UID, Generation: s.Generation},
	}
	if !s.CreatedAt.IsZero() {
		o.Metadata.CreationTimestamp = &s.CreatedAt
	}
	o.Status.Start = w.lastStart(&s)
	if e := w.entry(s.Name); e != nil {
		o.Metadata.Metadata, o.Spec = e.Sandbox.Metadata, &e.Sandbox.Spec
	}
	return o
}

func getHeader(wide bool) []string {
	h := []string{"NAME", "PHASE", "READY", "RESTARTS", "AGE", "SENTRY", "GOFER"}
	if wide {
		h = append(h, "GENERATION", "SOURCE", "LAST EXIT", "RUNTIME")
	}
	return append(h, "MESSAGE")
}

func (w *world) getRow(s *reconcile.Status, wide bool) []string {
	now := w.in.Now
	ready := s.Condition(reconcile.CondReady)
	since := s.CreatedAt
	if s.Phase == reconcile.PhaseRunning {
		since = s.StartedAt
	}
	row := []string{s.Name, s.Phase, ready.Status, strconv.FormatInt(s.RestartCount, 10), show.Age(since, now), pidText(s.SentryPID), pidText(s.GoferPID)}
	if wide {
		source := s.SourceFile
		if s.SourceLine > 0 {
			source += ":" + strconv.Itoa(s.SourceLine)
		}
		generation := strconv.FormatInt(s.ObservedGeneration, 10)
		if s.Generation != s.ObservedGeneration {
			generation += " of " + strconv.FormatInt(s.Generation, 10)
		}
		row = append(row, generation, show.Clean(source), exitText(s.LastTermination), show.Clean(s.Runtime))
	}
	return append(row, show.Clean(w.headline(s)))
}

// headline is that of a sandbox, without what is said of the whole above the rows.
func (w *world) headline(s *reconcile.Status) string {
	said := headline(s)
	if !w.summary.Complete && said == w.summary.Reason+": "+w.summary.Message || w.plan.Guard != nil && said == w.plan.Guard.Message {
		return "see the warning"
	}
	return said
}

func pidText(pid int) string {
	if pid == 0 {
		return ""
	}
	return strconv.Itoa(pid)
}

func exitText(x *actual.Exit) string {
	switch {
	case x == nil:
		return ""
	case x.Known:
		return fmt.Sprintf("%s (%d)", x.Reason, x.Code)
	}
	return x.Reason
}

// headline is the one message that matters most.
func headline(s *reconcile.Status) string {
	for _, c := range []struct{ typ, bad string }{
		{reconcile.CondManifestValid, reconcile.False},
		{reconcile.CondStalled, reconcile.True},
		{reconcile.CondReconciling, reconcile.True},
		{reconcile.CondReady, reconcile.False},
		{reconcile.CondResourcesEnforced, reconcile.False},
	} {
		if cond := s.Condition(c.typ); cond != nil && cond.Status == c.bad && cond.Message != "" {
			if why := lastFailure(s); why != "" && c.typ == reconcile.CondReconciling && cond.Reason == actual.ReasonBackOff {
				return why + "; " + cond.Message
			}
			return cond.Message
		}
	}
	if len(s.Warnings) > 0 {
		w := s.Warnings[0]
		more := ""
		if n := len(s.Warnings) - 1; n > 0 {
			more = fmt.Sprintf(" (and %d more)", n)
		}
		return "warning: " + w.Reason + ": " + w.Message + more
	}
	return ""
}

// lastFailure is why a sandbox waits for its next start.
func lastFailure(s *reconcile.Status) string {
	if x := s.LastTermination; x != nil && x.Message != "" {
		return x.Reason + ": " + x.Message
	}
	return exitText(s.LastTermination)
}

// watchEvery is how often a watching verb looks. What did not change costs a
// stat.
const watchEvery = 200 * time.Millisecond

// eachLook calls fn with the world again and again until it returns true.
func (a *app) eachLook(ctx context.Context, fn func(*world) (done bool, err error)) (err error) {
	v, err := a.newViewer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	// The first look is made however short the time is: what to say of a
	// timeout is what it sees.
	for lookCtx := context.WithoutCancel(ctx); ; lookCtx = ctx {
		if v.store == nil {
			// The first daemon may have started meanwhile.
			now, err := a.newViewer()
			if err != nil {
				return err
			}
			v = now
		} else if err := v.readDaemon(); err != nil {
			return err
		}
		w, err := v.look(lookCtx)
		if err != nil {
			return err
		}
		if done, err := fn(w); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (a *app) watchGet(ctx context.Context, sel *selection, args []string, output string) error {
	last := map[string]string{}
	cols := &show.Columns{}
	if output == "" || output == "wide" {
		cols.Add(getHeader(output == "wide"))
	}
	err := a.eachLook(ctx, func(w *world) (bool, error) {
		names, err := sel.names(w, nil, true)
		if err != nil {
			return true, err
		}
		if len(args) > 0 {
			names = args // of which some may not be there yet
		}
		if err := a.printChanges(w, names, output, last, cols); err != nil {
			return true, err
		}
		return false, cols.Print(a.stdout)
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// printChanges prints the sandboxes whose status is not what it was.
func (a *app) printChanges(w *world, names []string, output string, last map[string]string, cols *show.Columns) error {
	now := map[string]bool{}
	for i := range w.statuses {
		s := &w.statuses[i]
		if names != nil && !slices.Contains(names, s.Name) {
			continue
		}
		now[s.Name] = true
		b, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("encode status: %w", err)
		}
		row := w.getRow(s, output == "wide")
		key := string(b)
		if s.Phase == reconcile.PhaseCrashLoopBackOff || s.Phase == reconcile.PhaseRestarting {
			key = s.Phase + exitText(s.LastTermination) + strconv.Itoa(s.Failures) // its countdown is no news
		}
		if last[s.Name] == key {
			continue
		}
		last[s.Name] = key
		switch output {
		case "json":
			err = show.JSONLine(a.stdout, w.object(*s))
		case "yaml":
			fmt.Fprintln(a.stdout, "---")
			err = show.YAML(a.stdout, w.object(*s))
		case "name":
			_, err = fmt.Fprintln(a.stdout, s.Name)
		default:
			cols.Add(row)
		}
		if err != nil {
			return err
		}
	}
	for n := range last {
		if !now[n] {
			delete(last, n)
			if output == "" || output == "wide" {
				cols.Add([]string{n, "removed"})
			}
		}
	}
	return nil
}
