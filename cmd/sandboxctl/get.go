// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/documents"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/laststart"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
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
		sel    world.Selection
		output string
		watch  bool
	)
	cmd := &cobra.Command{
		Use:     "get [NAME... | configs | secrets | volumes | pools | claims]",
		Aliases: []string{"ls", "list"},
		Short:   "Show sandboxes, and the documents that they use",
		Long: `Show sandboxes: those the manifests want and those that are there. The status is
computed from the manifests, the records and the live processes; no daemon is
asked.

"configs", "secrets" and "volumes" are the documents of these kinds, with their keys and the
sandboxes that use them: get secrets, get config NAME, get config/NAME. Of a Secret no
value is shown, in no format. "networks" and "pools" are documents too, and "claims" are the
sandboxes of pools. A sandbox that is called so comes first.`,
		Example: `  sandboxctl get
  sandboxctl get web -o yaml
  sandboxctl get web -o manifest >web.yaml    # what apply takes
  sandboxctl get -l tier=back -o wide -w
  sandboxctl get secrets`,
		ValidArgsFunction: documents.Completer(&a.Host),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exit.Format(output, "wide", "json", "yaml", "manifest", "name"); err != nil {
				return err
			}
			if watch && output == "manifest" {
				return exit.Usagef("-o manifest can't be watched; use -o yaml")
			}
			w, err := a.Once(cmd.Context())
			if err != nil {
				return err
			}
			docs, args, err := documents.Parse(w, args)
			switch {
			case err != nil:
				return err
			case docs != nil && sel.Labels != "":
				return exit.Usagef("-l selects sandboxes; name documents, as in config/NAME")
			case docs != nil && watch:
				return exit.Usagef("documents can't be watched; `sandboxctl events` tells of what changes with them")
			case docs != nil:
				return docs.Get(&a.Host, w, output)
			case watch:
				return a.watchGet(cmd.Context(), &sel, args, output)
			}
			names, err := sel.Names(w, args, true)
			if err != nil {
				return err
			}
			return a.printGet(w, names, output)
		},
	}
	sel.Add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "wide, json, yaml, manifest or name")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "watch for changes")
	return cmd
}

// printGet prints the sandboxes of the names, or with nil all.
func (a *app) printGet(w *world.World, names []string, output string) error {
	statuses := w.Statuses
	if names != nil {
		statuses = nil
		for _, n := range names {
			statuses = append(statuses, *w.Status(n))
		}
	}
	switch output {
	case "manifest":
		return a.printManifests(w, statuses)
	case "name":
		for i := range statuses {
			fmt.Fprintln(a.Stdout, statuses[i].Name)
		}
		return nil
	case "json", "yaml":
		encode := show.JSON
		if output == "yaml" {
			encode = show.YAML
		}
		if len(names) == 1 {
			return encode(a.Stdout, objectOf(&a.Host, w, statuses[0]))
		}
		list := objectList{APIVersion: desired.APIVersion, Kind: desired.Kind + "List", Items: []object{}, Summary: w.Summary}
		if names == nil {
			list.Warnings = w.In.Desired.Warnings
		}
		for i := range statuses {
			list.Items = append(list.Items, objectOf(&a.Host, w, statuses[i]))
		}
		return encode(a.Stdout, list)
	}
	a.Warnings(w)
	switch {
	case len(statuses) > 0:
	case names != nil:
		fmt.Fprintln(a.Stderr, "no sandbox has these labels")
	default:
		fmt.Fprintf(a.Stderr, "no sandboxes; put a manifest into %s\n", a.Manifests)
	}
	rows := make([][]string, len(statuses))
	for i := range statuses {
		rows[i] = getRow(w, &statuses[i], output == "wide")
	}
	if len(rows) > 0 {
		if err := show.Table(a.Stdout, getHeader(output == "wide"), rows); err != nil {
			return err
		}
	}
	// Problems of files that belong to no sandbox are shown nowhere else.
	if names == nil {
		for _, w := range w.In.Desired.Warnings {
			fmt.Fprintf(a.Stderr, "warning: %s\n", show.Clean(w.Error()))
		}
		for _, p := range w.In.Desired.Problems {
			if !desired.ValidName(p.Name) {
				fmt.Fprintf(a.Stderr, "%s\n", show.Clean(p.Error()))
			}
		}
	}
	return nil
}

// object joins a status with its manifest.
func objectOf(h *world.Host, w *world.World, s reconcile.Status) object {
	o := object{
		APIVersion: desired.APIVersion, Kind: desired.Kind, Status: s,
		Metadata: objectMeta{Metadata: desired.Metadata{Name: s.Name}, UID: s.UID, Generation: s.Generation},
	}
	if !s.CreatedAt.IsZero() {
		o.Metadata.CreationTimestamp = &s.CreatedAt
	}
	o.Status.Start = laststart.Of(h.State, &s)
	if e := w.Entry(s.Name); e != nil {
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

func getRow(w *world.World, s *reconcile.Status, wide bool) []string {
	now := w.In.Now
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
		row = append(row, generation, show.Clean(source), world.ExitText(s.LastTermination), show.Clean(s.Runtime))
	}
	return append(row, show.Clean(rowMessage(w, s)))
}

// rowMessage is the headline of a sandbox, without what is said of the whole above the rows.
func rowMessage(w *world.World, s *reconcile.Status) string {
	headline := world.Headline(s)
	if !w.Summary.Complete && headline == w.Summary.Reason+": "+w.Summary.Message || w.Plan.Guard != nil && headline == w.Plan.Guard.Message {
		return "see the warning"
	}
	return cmp.Or(headline, world.EndText(s))
}

func pidText(pid int) string {
	if pid == 0 {
		return ""
	}
	return strconv.Itoa(pid)
}

func (a *app) watchGet(ctx context.Context, sel *world.Selection, args []string, output string) error {
	last := map[string]string{}
	cols := &show.Columns{}
	if output == "" || output == "wide" {
		cols.Add(getHeader(output == "wide"))
	}
	err := a.EachLook(ctx, func(w *world.World) (bool, error) {
		names, err := sel.Names(w, nil, true)
		if err != nil {
			return true, err
		}
		if len(args) > 0 {
			names = args // of which some may not be there yet
		}
		if err := a.printChanges(w, names, output, last, cols); err != nil {
			return true, err
		}
		return false, cols.Print(a.Stdout)
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// printChanges prints the sandboxes whose status is not what it was.
func (a *app) printChanges(w *world.World, names []string, output string, last map[string]string, cols *show.Columns) error {
	now := map[string]bool{}
	for i := range w.Statuses {
		s := &w.Statuses[i]
		if names != nil && !slices.Contains(names, s.Name) {
			continue
		}
		now[s.Name] = true
		b, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("encode status: %w", err)
		}
		row := getRow(w, s, output == "wide")
		key := string(b)
		if s.Phase == reconcile.PhaseCrashLoopBackOff || s.Phase == reconcile.PhaseRestarting {
			key = s.Phase + world.ExitText(s.LastTermination) + strconv.Itoa(s.Failures) // its countdown is no news
		}
		if last[s.Name] == key {
			continue
		}
		last[s.Name] = key
		switch output {
		case "json":
			err = show.JSONLine(a.Stdout, objectOf(&a.Host, w, *s))
		case "yaml":
			fmt.Fprintln(a.Stdout, "---")
			err = show.YAML(a.Stdout, objectOf(&a.Host, w, *s))
		case "name":
			_, err = fmt.Fprintln(a.Stdout, s.Name)
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
