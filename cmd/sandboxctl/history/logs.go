// SPDX-License-Identifier: Apache-2.0

// Package history has the verbs that print what has been written down while sandboxes
// ran: the logs of their applications, and the events of the daemon.
package history

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/launcher/logs"
	"sandboxctl.dev/reconcile"
)

// verbs are the verbs of one run of the program.
type verbs struct{ *world.Host }

// Commands are all of them.
func Commands(h *world.Host) []*cobra.Command {
	return []*cobra.Command{LogsCommand(h), verbs{h}.eventsCommand()}
}

type logsFlags struct {
	follow     bool
	previous   bool
	sentry     bool
	timestamps bool
	prefix     bool
	tail       int
	since      string
	after      time.Time // since, as a time
}

// LogsCommand is the verb logs.
func LogsCommand(h *world.Host) *cobra.Command {
	v := verbs{h}
	var f logsFlags
	var sel world.Selection
	cmd := &cobra.Command{
		Use:   "logs NAME... | -l LABEL=VALUE",
		Short: "Print what sandboxes have written",
		Long: `Print what the application of a sandbox has written to its standard output and
error: of its current run, or of the one before with --previous. The log does not
pass through the daemon and survives it.

Of several sandboxes each line begins with [NAME].

The logs of a deleted sandbox can be read for an hour, or as long as
` + "`daemon --keep-deleted-logs`" + ` says; a note on standard error tells that it is
deleted. Where there is a new sandbox of that name, and it has not been
restarted, they are the run before the current one: --previous.

With -f it ends when the sandbox is deleted, or its job has finished, or it has
failed and is not started again.`,
		Example: `  sandboxctl logs web
  sandboxctl logs -f --tail 10 web db
  sandboxctl logs -l app=shop --since 1d --timestamps
  sandboxctl logs --previous web`,
		ValidArgsFunction: v.completeLogs,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if f.after, err = sinceTime(f.since, time.Now()); err != nil {
				return err
			}
			names, err := v.Named(cmd.Context(), &sel, args, false)
			if err != nil {
				return err
			}
			return v.logs(cmd.Context(), names, &f)
		},
	}
	sel.Add(cmd)
	fl := cmd.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "follow what is written, also after a restart")
	fl.BoolVarP(&f.previous, "previous", "p", false, "the run before the current one")
	fl.BoolVar(&f.sentry, "sentry", false, "the log of gVisor's sentry instead of the application's")
	fl.BoolVar(&f.timestamps, "timestamps", false, "print the time of each line")
	fl.BoolVar(&f.prefix, "prefix", false, "begin each line with the sandbox's name (always done for several)")
	fl.IntVarP(&f.tail, "tail", "n", -1, "only the last N lines of each sandbox (-1: all)")
	fl.StringVar(&f.since, "since", "", "only lines younger than this: 5m, 1d, or a time such as 2006-01-02T15:04")
	return cmd
}

// logs prints the logs of the sandboxes, one after the other, or all at the same
// time if they are followed. One that has none keeps no other from being printed.
func (v verbs) logs(ctx context.Context, names []string, f *logsFlags) error {
	store, err := v.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	var out, notes sync.Mutex
	one := func(name string) error {
		w := v.Stdout
		if f.prefix || len(names) > 1 {
			lines := &prefixWriter{mu: &out, w: v.Stdout, prefix: "[" + name + "] "}
			defer lines.Close()
			w = lines
		}
		r := &logReader{store: store, name: name, flags: f, p: &logPrinter{
			out: bufio.NewWriter(w), timestamps: f.timestamps, terminal: show.IsTerminal(v.Stdout), since: f.after,
		}}
		r.note = func(text string) {
			notes.Lock()
			defer notes.Unlock()
			fmt.Fprintln(v.Stderr, "note: "+text)
		}
		r.absent = func() error { return v.NotStarted(ctx, name) }
		r.stalled = func(ctx context.Context) (string, error) { return v.stalled(ctx, name) }
		return r.print(ctx)
	}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		if !f.follow {
			errs[i] = one(n)
			continue
		}
		wg.Go(func() { errs[i] = one(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// logReader prints the logs of one sandbox.
type logReader struct {
	store *actual.Store
	name  string
	flags *logsFlags
	p     *logPrinter
	note  func(text string)
	// absent is the error for a name without logs.
	absent func() error
	// stalled says why a stopped sandbox is not started again, "" if it may be.
	stalled func(ctx context.Context) (string, error)
}

// logRun is a run of a sandbox of some name whose logs may be there.
type logRun struct {
	uid     string // of the sandbox on record
	attempt int64
	deleted *actual.Deleted // what it is a run of, if that is not on record any more
}

// runs are the runs of all sandboxes of the name, the last one first: two of each
// have logs.
func (r *logReader) runs() ([]logRun, error) {
	rec, quarantined, err := r.store.Get(r.name)
	if err != nil {
		return nil, err
	}
	if quarantined != nil {
		return nil, quarantinedError(quarantined)
	}
	var runs []logRun
	if rec != nil && !rec.Retired { // whose logs are those of a deleted one
		runs = append(runs, logRun{rec.UID, rec.Attempt, nil})
		if rec.Attempt > 1 {
			runs = append(runs, logRun{rec.UID, rec.Attempt - 1, nil})
		}
	}
	deleted, err := r.store.ListDeleted()
	if err != nil {
		return nil, err
	}
	for _, d := range deleted {
		if d.Name != r.name {
			continue
		}
		runs = append(runs, logRun{"", d.Attempt, d})
		if d.Attempt > 1 {
			runs = append(runs, logRun{"", d.Attempt - 1, d})
		}
	}
	if len(runs) == 0 {
		return nil, r.absent()
	}
	return runs, nil
}

// run is the run that is asked for.
func (r *logReader) run() (logRun, error) {
	runs, err := r.runs()
	if err != nil {
		return logRun{}, err
	}
	i := 0
	if r.flags.previous {
		i = 1
	}
	if i >= len(runs) {
		return logRun{}, fmt.Errorf("logs of %s: there is no run before the current one", r.name)
	}
	run := runs[i]
	if run.deleted != nil {
		which := "its last run"
		if run.attempt != run.deleted.Attempt {
			which = "the run before its last one"
		}
		who := "sandbox " + r.name
		if runs[0].deleted == nil {
			who = "an earlier " + who
		}
		r.note(fmt.Sprintf("%s was deleted %s ago; these are the logs of %s", who, show.Age(run.deleted.At, time.Now()), which))
	}
	return run, nil
}

func (r *logReader) open(run logRun) (*logs.Attempt, error) {
	if run.deleted != nil {
		return logs.OpenDeleted(r.store, run.deleted, run.attempt)
	}
	return logs.Open(r.store, r.name, run.attempt)
}

// openRun opens the logs of the run that is asked for.
func (r *logReader) openRun() (run logRun, logs *logs.Attempt, err error) {
	// Again, if it is deleted between the two steps.
	for range 2 {
		if run, err = r.run(); err != nil {
			return run, nil, err
		}
		if logs, err = r.open(run); !errors.Is(err, fs.ErrNotExist) {
			return run, logs, err
		}
	}
	return run, nil, err
}

func (r *logReader) print(ctx context.Context) error {
	run, logs, err := r.openRun()
	if errors.Is(err, fs.ErrNotExist) {
		if run.deleted != nil || r.flags.previous {
			return fmt.Errorf("logs of %s: none are kept of that run", r.name)
		}
		return fmt.Errorf("logs of %s: it has not run yet", r.name)
	}
	if err != nil {
		return err
	}
	fo := r.flags.open(logs)
	defer func() { fo.Close(); logs.Close() }()
	if err := fo.Next(r.p.keep(r.flags.tail)); err != nil {
		return fmt.Errorf("logs of %s: %w", r.name, err)
	}
	if err := r.p.flush(); err != nil || !r.flags.follow || r.flags.previous || run.deleted != nil {
		return err
	}
	for {
		next, err := r.follow(ctx, run, fo)
		if err != nil || next == run.attempt {
			return err
		}
		more, err := r.open(logRun{attempt: next})
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is just being created
		}
		if err != nil {
			return err
		}
		run.attempt = next
		fo.Close()
		logs.Close()
		logs, fo = more, r.flags.open(more)
	}
}

func (f *logsFlags) open(l *logs.Attempt) *sandboxlog.Follower {
	if f.sentry {
		return l.Sentry()
	}
	return l.App()
}

// maxJudge is the longest time for which a stopped sandbox is believed to be started again.
const maxJudge = 10 * time.Second

// follow prints what a run writes until the next has begun, whose attempt it
// returns. It returns the same attempt when no other is to be expected: the
// sandbox was deleted, also if another one has its name since, or is a job that
// has finished or will not be started again, or the caller has had enough.
func (r *logReader) follow(ctx context.Context, run logRun, fo *sandboxlog.Follower) (int64, error) {
	tick := time.NewTicker(world.WatchEvery)
	defer tick.Stop()
	var judged *actual.Record
	var pause time.Duration
	var due time.Time
	for {
		select {
		case <-ctx.Done():
			return run.attempt, nil
		case <-tick.C:
		}
		// Looked at first: what is written before its end is printed after.
		rec, quarantined, err := r.store.Get(r.name)
		if err != nil {
			return run.attempt, err
		}
		if err := fo.Next(r.p.print); err != nil {
			return run.attempt, fmt.Errorf("logs of %s: %w", r.name, err)
		}
		if err := r.p.out.Flush(); err != nil {
			return run.attempt, err
		}
		switch {
		case quarantined != nil: // whatever is wrong with its record, it may go on
		case rec == nil, rec.UID != run.uid, rec.Attempt == run.attempt && rec.Phase == actual.PhaseStopped && rec.App().Completed:
			return run.attempt, nil
		case rec.Attempt != run.attempt:
			return rec.Attempt, nil
		case rec.Phase == actual.PhaseStopped && (rec != judged || time.Now().After(due)):
			// It reads the manifests, so not at each look. But the daemon may have been at what
			// it was when the record was written, and manifests and policy change.
			if rec != judged {
				judged, pause = rec, world.WatchEvery
			}
			pause = min(2*pause, maxJudge)
			due = time.Now().Add(pause)
			if why, err := r.stalled(ctx); err != nil || why != "" {
				if why != "" {
					r.note(r.name + " has stopped, and is not started again: " + why)
				}
				return run.attempt, err
			}
		}
	}
}

// stalled says why nothing is done for a sandbox, "" if something is or may be. A
// manifest that is missing for now can come back.
func (v verbs) stalled(ctx context.Context, name string) (string, error) {
	w, err := v.Once(ctx)
	if err != nil {
		return "", err
	}
	s := w.Status(name)
	if s == nil {
		return "", nil
	}
	c := s.Condition(reconcile.CondStalled)
	if c.Status != reconcile.True || c.Reason == actual.ReasonSourceIncomplete {
		return "", nil
	}
	return c.Reason, nil
}

// completeLogs completes the names of sandboxes on record and of deleted ones whose
// logs are kept.
func (v verbs) completeLogs(cmd *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
	names, directive := v.CompleteMore(cmd, args, to)
	store, err := actual.OpenStoreReadOnly(v.State)
	if err != nil {
		return names, directive
	}
	defer store.Close()
	deleted, err := store.ListDeleted()
	if err != nil {
		return names, directive
	}
	for _, d := range deleted {
		if !slices.Contains(names, d.Name) && !slices.Contains(args, d.Name) {
			names = append(names, d.Name)
		}
	}
	return names, directive
}

func quarantinedError(h *actual.Quarantined) error {
	return fmt.Errorf("sandbox %s: %s: %s", h.Name, h.Reason, h.Message)
}
