// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/documents"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/laststart"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/snapshots"
	"sandboxctl.dev/cmd/sandboxctl/volumes"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/cni"
	"sandboxctl.dev/launcher/ondisk"
	"sandboxctl.dev/launcher/volume"
	"sandboxctl.dev/reconcile"
)

// maxEvents is how many events describe shows.
const maxEvents = 10

func (a *app) describeCommand() *cobra.Command {
	var (
		sel    world.Selection
		output string
	)
	cmd := &cobra.Command{
		Use:   "describe NAME...",
		Short: "Show everything about sandboxes, and the documents that they use",
		Long: `Show everything about sandboxes: the conditions of each and what they mean, its
manifest and the problems in it, its processes, how its last run ended, how long
each phase of its last start took, and what happened to it lately. config/NAME and
secret/NAME are documents: which sandboxes use which key of them, and in which field.

-o json and -o yaml print what get prints with them.`,
		Example:           "  sandboxctl describe web\n  sandboxctl describe -l tier=back\n  sandboxctl describe web -o json\n  sandboxctl describe secret/web",
		ValidArgsFunction: documents.Completer(&a.Host),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exit.Format(output, "json", "yaml"); err != nil {
				return err
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
			case docs != nil:
				return docs.Describe(&a.Host, w, output)
			}
			names, err := sel.Names(w, args, false)
			if err != nil {
				return err
			}
			if output != "" {
				return a.printGet(w, names, output)
			}
			for i, n := range names {
				if i > 0 {
					fmt.Fprintln(a.Stdout)
				}
				if err := a.describe(cmd.Context(), w, w.Status(n)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	sel.Add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return cmd
}

// eventsOf returns the last events of a sandbox.
func (a *app) eventsOf(name string) ([]actual.Event, error) {
	store, err := actual.OpenStoreReadOnly(a.State)
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
			if len(out) > maxEvents {
				out = out[1:]
			}
		}
		return nil
	})
	return out, err
}

func (a *app) describe(ctx context.Context, w *world.World, s *reconcile.Status) error {
	events, err := a.eventsOf(s.Name)
	if err != nil {
		return err
	}
	out := a.Stdout
	if err := describeState(out, w, s); err != nil {
		return err
	}
	if err := laststart.Print(out, s, laststart.Of(a.State, s)); err != nil {
		return err
	}
	if s.Phase == reconcile.PhaseCreating {
		describeOwnership(out, a.State, s.Name, w.In.Now)
	}
	describeTroubles(out, w, s)
	if e := w.Entry(s.Name); e != nil {
		if err := volumes.Describe(ctx, &a.Host, out, &e.Sandbox.Spec, w.In.Now); err != nil {
			return err
		}
		if err := describeSpec(out, &e.Sandbox.Spec); err != nil {
			return err
		}
	}
	return describeEvents(out, events, w.In.Now)
}

// describeState prints what the sandbox is, how it ran, and its conditions.
func describeState(out io.Writer, w *world.World, s *reconcile.Status) error {
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
	if p := w.In.Desired.Policy; p != nil {
		line("Host policy", "%s", p.Source())
	}
	line("Made for", "%s", oneoff.Text(w.Entry(s.Name)))
	describeRuns(line, s, w.In.Now)
	for i := range w.In.Actual.Quarantined {
		if h := &w.In.Actual.Quarantined[i]; h.Name == s.Name {
			line("Evidence", "%s", w.EvidenceText(h))
		}
	}
	line("Sentry", "%s", processText(s.SentryPID))
	line("Gofer", "%s", processText(s.GoferPID))
	line("Runtime", "%s", s.Runtime)
	if s.Image != nil {
		line("Image", "%s (%s)", show.Clean(s.Image.Ref), show.Clean(s.Image.Digest))
	}
	line("Disk", "%s", diskText(w, s.Name))
	line("Addresses", "%s", addressText(w.Record(s.Name)))
	line("Network check", "%s", checkText(w.Record(s.Name)))
	line("Published", "%s", publishedText(w.Entry(s.Name)))
	line("Bandwidth", "%s", bandwidthText(w.Entry(s.Name)))
	line("Init", "%s", initText(s.Init))
	line("Snapshot", "%s", snapshots.Text(w.Entry(s.Name), w.Record(s.Name)))
	fmt.Fprintln(tw, "\nConditions:\t")
	fmt.Fprintln(tw, "  TYPE\tSTATUS\tREASON\tSINCE\tMESSAGE")
	for _, c := range s.Conditions {
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\n", c.Type, c.Status, c.Reason, show.Age(c.LastTransitionTime, w.In.Now), show.Clean(c.Message))
	}
	return tw.Flush()
}

// describeRuns says when it was started, how often, and how the last run ended.
func describeRuns(line func(k, format string, args ...any), s *reconcile.Status, now time.Time) {
	line("Created", "%s", timeText(s.CreatedAt, now))
	line("Started", "%s", timeText(s.StartedAt, now))
	if s.Phase != reconcile.PhaseQuarantined { // whose record would say
		line("Restarts", "%d (attempt %d, failures in a row %d)", s.RestartCount, s.Attempt, s.Failures)
	}
	if r := s.Refresh; r != nil {
		line("New files", "%d times, the last %s", r.Count, timeText(r.At, now))
		if len(r.Pending) > 0 {
			line("", "not finished: %s", show.Clean(strings.Join(r.Pending, ", ")))
		}
	}
	if !s.NextRetry.IsZero() {
		what := "Next start"
		if s.SentryPID != 0 || s.Phase == reconcile.PhaseRemoving || s.Phase == reconcile.PhaseStopping {
			what = "Next try"
		}
		line(what, "in %s", s.NextRetry.Sub(now).Round(time.Second/10))
	}
	if !s.EndsAt.IsZero() {
		line("Ends", "%s (in %s): %s", s.EndsAt.Local().Format(time.RFC3339), s.EndsAt.Sub(now).Round(time.Second), s.EndsReason)
	}
	if s.Retired {
		line("Given up", "its ttlAfterFinished is over: only its record is left; `sandboxctl restart %s` runs it again", s.Name)
	}
	if !s.RetiresAt.IsZero() {
		line("Given up", "%s (in %s): %s", s.RetiresAt.Local().Format(time.RFC3339), s.RetiresAt.Sub(now).Round(time.Second), actual.ReasonTTLExpired)
	}
	if x := s.LastTermination; x != nil {
		how := world.ExitText(x)
		if x.Message != "" {
			how += ": " + x.Message
		}
		line("Last exit", "%s, %s", how, timeText(x.At, now))
	}
}

// describeTroubles says what is wrong with the manifest and what runs.
func describeTroubles(out io.Writer, w *world.World, s *reconcile.Status) {
	if len(s.Problems) > 0 {
		fmt.Fprintln(out, "\nProblems of the manifest (what ran before keeps running):")
		for _, p := range s.Problems {
			fmt.Fprintf(out, "  %s\n", show.Clean(p.Error()))
		}
	}
	for _, warn := range s.Warnings {
		fmt.Fprintf(out, "\nWarning: %s: %s\n", warn.Reason, show.Clean(warn.Message))
	}
	for _, f := range w.ReplacedFiles(s.Name) {
		fmt.Fprintf(out, "\nWarning: FileReplaced: %s\n", show.Clean(f))
	}
}

// describeOwnership says how far a start is that gives files of the host to other owners.
func describeOwnership(out io.Writer, state, name string, now time.Time) {
	store, err := actual.OpenStoreReadOnly(state)
	if err != nil {
		return
	}
	defer store.Close()
	dir, err := store.Dir(name)
	if err != nil {
		return // it was never started
	}
	defer dir.Close()
	if p := volume.HostOwnership(dir); p != nil {
		fmt.Fprintf(out, "\nChanging owners in %s: %d files so far, since %s\n", show.Clean(p.Path), p.Files, show.Age(p.Began, now))
	}
}

func describeSpec(out io.Writer, spec *desired.Spec) error {
	b, err := yaml.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	fmt.Fprintln(out, "\nSpec:")
	for l := range strings.Lines(string(b)) {
		fmt.Fprintf(out, "  %s\n", show.Clean(strings.TrimSuffix(l, "\n")))
	}
	return nil
}

func describeEvents(out io.Writer, events []actual.Event, now time.Time) error {
	if len(events) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nEvents:")
	rows := make([][]string, len(events))
	for i, e := range events {
		rows[i] = []string{"  " + show.Age(e.At, now), e.Type, e.Reason, show.Clean(e.Message)}
	}
	return show.Table(out, []string{"  AGE", "TYPE", "REASON", "MESSAGE"}, rows)
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

// diskText says what a sandbox that runs may write to the disk, and has written.
func diskText(w *world.World, name string) string {
	rec := w.Record(name)
	if rec == nil {
		return ""
	}
	used, err := ondisk.Used(rec)
	var words []string
	for i, p := range rec.OnDisk {
		text := cmp.Or(p.Volume, "the root") + " "
		if err == nil {
			text += fmt.Sprintf("%dMi of ", used[i]>>20)
		}
		words = append(words, text+scalar.Bytes(p.Size).String())
	}
	return strings.Join(words, ", ")
}

// addressText is where a sandbox is on its networks.
func addressText(rec *actual.Record) string {
	if rec == nil {
		return ""
	}
	var words []string
	for i := range rec.Attachments {
		a := &rec.Attachments[i]
		for _, ip := range []netip.Addr{a.Address4, a.Address6} {
			if ip.IsValid() {
				words = append(words, fmt.Sprintf("%s (%s)", ip, a.Network))
			}
		}
	}
	for _, c := range cni.Of(rec) {
		for _, ip := range cni.Addresses(&c) {
			words = append(words, fmt.Sprintf("%s (%s)", ip, c.Network))
		}
	}
	return strings.Join(words, ", ")
}

// checkText says that nobody finds out whether the network of a sandbox stays as it was made.
func checkText(rec *actual.Record) string {
	if rec == nil {
		return ""
	}
	var fails []string
	for _, c := range cni.Of(rec) {
		if c.CheckFails != "" {
			fails = append(fails, c.CheckFails)
		}
	}
	if len(fails) == 0 {
		return ""
	}
	return "none: its plugins found fault with it right after they had made it: " + strings.Join(fails, "; ")
}

// publishedText are the ports of the host that lead to a sandbox.
func publishedText(e *desired.Entry) string {
	if e == nil {
		return ""
	}
	var words []string
	ports := e.Sandbox.Spec.Network.Published()
	for i := range ports {
		first, _ := ports[i].First()
		words = append(words, fmt.Sprintf("%s to %d", ports[i].Describe(), first))
	}
	return strings.Join(words, ", ")
}

// bandwidthText is what a sandbox may send and receive, if that is limited.
func bandwidthText(e *desired.Entry) string {
	if e == nil {
		return ""
	}
	var words []string
	b := e.Sandbox.Spec.Network.Limits()
	if b.Egress != 0 {
		words = append(words, "egress "+b.Egress.String())
	}
	if b.Ingress != 0 {
		words = append(words, "ingress "+b.Ingress.String())
	}
	return strings.Join(words, ", ")
}

// initText says what process 1 of a sandbox is.
func initText(s string) string {
	if s == actual.InitOwn {
		return s + " is process 1 and starts the application"
	}
	return s
}
