// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/salvage"
	"sandboxctl.dev/reconcile"
)

// describeEvents is how many events describe shows.
const describeEvents = 10

func (a *app) describeCommand() *cobra.Command {
	var (
		sel    selection
		output string
	)
	cmd := &cobra.Command{
		Use:   "describe NAME...",
		Short: "Show everything about sandboxes",
		Long: `Show everything about sandboxes: the conditions of each and what they mean, its
manifest and the problems in it, its processes, how its last run ended, how long
each phase of its last start took, and what happened to it lately.

-o json and -o yaml print what get prints with them.`,
		Example:           "  sandboxctl describe web\n  sandboxctl describe -l tier=back\n  sandboxctl describe web -o json",
		ValidArgsFunction: a.completeMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "json", "yaml"); err != nil {
				return err
			}
			w, err := a.once(cmd.Context())
			if err != nil {
				return err
			}
			names, err := sel.names(w, args, false)
			if err != nil {
				return err
			}
			if output != "" {
				return a.printGet(w, names, output)
			}
			for i, n := range names {
				if i > 0 {
					fmt.Fprintln(a.stdout)
				}
				events, err := a.eventsOf(n)
				if err != nil {
					return err
				}
				if err := describe(a.stdout, w, w.status(n), events); err != nil {
					return err
				}
			}
			return nil
		},
	}
	sel.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return cmd
}

// eventsOf returns the last events of a sandbox.
func (a *app) eventsOf(name string) ([]actual.Event, error) {
	store, err := actual.OpenStoreReadOnly(a.state)
	if err != nil {
		return nil, nil // nothing has happened yet
	}
	defer store.Close()
	var out []actual.Event
	r := store.ReadEvents()
	defer r.Close()
	err = r.Next(func(e actual.Event) error {
		if e.Sandbox == name {
			out = append(out, e)
			if len(out) > describeEvents {
				out = out[1:]
			}
		}
		return nil
	})
	return out, err
}

func describe(out io.Writer, w *world, s *reconcile.Status, events []actual.Event) error {
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	line := func(k, format string, args ...any) {
		if v := show.Clean(fmt.Sprintf(format, args...)); v != "" {
			fmt.Fprintf(tw, "%s:\t%s\n", k, v)
		}
	}
	line("Name", "%s", s.Name)
	line("UID", "%s", s.UID)
	line("Phase", "%s", s.Phase)
	line("Manifest", "%s", sourceText(s))
	if s.Generation > 0 {
		line("Generation", "%d (runs or ran last: %d)", s.Generation, s.ObservedGeneration)
	}
	line("Spec hash", "%s", s.SpecHash)
	if p := w.in.Desired.Policy; p != nil {
		line("Host policy", "%s", p.Source())
	}
	line("Created", "%s", timeText(s.CreatedAt, w.in.Now))
	line("Started", "%s", timeText(s.StartedAt, w.in.Now))
	if s.Phase != reconcile.PhaseQuarantined { // whose record would say
		line("Restarts", "%d (attempt %d, failures in a row %d)", s.RestartCount, s.Attempt, s.Failures)
	}
	if !s.NextRetry.IsZero() {
		what := "Next start"
		if s.SentryPID != 0 || s.Phase == reconcile.PhaseRemoving || s.Phase == reconcile.PhaseStopping {
			what = "Next try"
		}
		line(what, "in %s", s.NextRetry.Sub(w.in.Now).Round(time.Second/10))
	}
	if x := s.LastTermination; x != nil {
		how := exitText(x)
		if x.Message != "" {
			how += ": " + x.Message
		}
		line("Last exit", "%s, %s", how, timeText(x.At, w.in.Now))
	}
	for i := range w.in.Actual.Quarantined {
		if h := &w.in.Actual.Quarantined[i]; h.Name == s.Name {
			line("Evidence", "%s", evidenceText(h, w.evidence[s.Name]))
		}
	}
	line("Sentry", "%s", processText(s.SentryPID))
	line("Gofer", "%s", processText(s.GoferPID))
	line("Runtime", "%s", s.Runtime)
	line("Init", "%s", initText(s.Init))
	fmt.Fprintln(tw, "\nConditions:\t")
	fmt.Fprintln(tw, "  TYPE\tSTATUS\tREASON\tSINCE\tMESSAGE")
	for _, c := range s.Conditions {
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\n", c.Type, c.Status, c.Reason, show.Age(c.LastTransitionTime, w.in.Now), show.Clean(c.Message))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if err := describeStart(out, s, w.lastStart(s)); err != nil {
		return err
	}
	if len(s.Problems) > 0 {
		fmt.Fprintln(out, "\nProblems of the manifest (what ran before keeps running):")
		for _, p := range s.Problems {
			fmt.Fprintf(out, "  %s\n", show.Clean(p.Error()))
		}
	}
	for _, warn := range s.Warnings {
		fmt.Fprintf(out, "\nWarning: %s: %s\n", warn.Reason, show.Clean(warn.Message))
	}
	for _, f := range w.replacedFiles(s.Name) {
		fmt.Fprintf(out, "\nWarning: FileReplaced: %s\n", show.Clean(f))
	}
	if o := w.object(*s); o.Spec != nil {
		b, err := yaml.Marshal(o.Spec)
		if err != nil {
			return fmt.Errorf("encode spec: %w", err)
		}
		fmt.Fprintln(out, "\nSpec:")
		for l := range strings.Lines(string(b)) {
			fmt.Fprintf(out, "  %s\n", show.Clean(strings.TrimSuffix(l, "\n")))
		}
	}
	if len(events) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nEvents:")
	rows := make([][]string, len(events))
	for i, e := range events {
		rows[i] = []string{"  " + show.Age(e.At, w.in.Now), e.Type, e.Reason, show.Clean(e.Message)}
	}
	return show.Table(out, []string{"  AGE", "TYPE", "REASON", "MESSAGE"}, rows)
}

// replacedFiles says of which volumes the file of the host is another one than at
// the start: the sandbox keeps the old one.
func (w *world) replacedFiles(name string) (out []string) {
	for i := range w.in.Actual.Sandboxes {
		o := &w.in.Actual.Sandboxes[i]
		if o.Record.Name != name || o.Record.Phase != actual.PhaseRunning {
			continue
		}
		for _, f := range o.Record.Files {
			switch replaced, err := f.Replaced(); {
			case err != nil:
				out = append(out, err.Error())
			case replaced:
				out = append(out, fmt.Sprintf("the host's file %s was replaced or removed after the start; the sandbox still has the old one; `sandboxctl restart %s` gives it the new one", f.Path, name))
			}
		}
	}
	return out
}

// evidenceText says what is known of a sandbox whose record is quarantined, and what
// repair would make of it.
func evidenceText(h *actual.Quarantined, e *salvage.Evidence) string {
	switch {
	case h.Reason != actual.QuarantinedCorrupt && h.Reason != actual.QuarantinedUnreadable:
		return e.List() + " of it found alive; repair is not for this"
	case e.Gap == "":
		return e.List() + " live, and agree with the second copy of the record: repair restores it from there"
	case len(e.Processes) == 0:
		return "none of its processes lives: repair moves what is left to damaged/"
	}
	return e.List() + " live; the record can't be restored: " + e.Gap + "; repair --end ends them"
}

func sourceText(s *reconcile.Status) string {
	if s.SourceLine > 0 {
		return fmt.Sprintf("%s:%d", s.SourceFile, s.SourceLine)
	}
	return s.SourceFile
}

func timeText(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", t.Local().Format(time.RFC3339), show.Age(t, now))
}

func processText(pid int) string {
	if pid == 0 {
		return "not running"
	}
	return fmt.Sprintf("pid %d", pid)
}

// initText says what process 1 of a sandbox is.
func initText(s string) string {
	if s == actual.InitOwn {
		return s + " is process 1 and starts the application"
	}
	return s
}
