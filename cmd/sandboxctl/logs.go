// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/gofer/sandboxlog"
	"sandboxctl.dev/launcher"
)

type logsFlags struct {
	follow     bool
	previous   bool
	sentry     bool
	timestamps bool
	tail       int
	since      string
}

func (a *app) logsCommand() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print what a sandbox has written",
		Long: `Print what the application of a sandbox has written to its standard output and
error: of its current run, or of the one before with --previous. The log does not
pass through the daemon and survives it.`,
		Example: `  sandboxctl logs web
  sandboxctl logs -f --tail 10 web
  sandboxctl logs --since 1d --timestamps web
  sandboxctl logs --previous web`,
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeNames,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.logs(cmd.Context(), args[0], &f) },
	}
	fl := cmd.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on with what is written, also after a restart")
	fl.BoolVarP(&f.previous, "previous", "p", false, "the run before the current one")
	fl.BoolVar(&f.sentry, "sentry", false, "what gVisor's sentry has to say, instead of the application")
	fl.BoolVar(&f.timestamps, "timestamps", false, "print the time of each line")
	fl.IntVar(&f.tail, "tail", -1, "only the last N lines (-1: all)")
	fl.StringVar(&f.since, "since", "", "only lines younger than this: 5m, 1d, or a time such as 2006-01-02T15:04")
	return cmd
}

func (a *app) logs(ctx context.Context, name string, f *logsFlags) error {
	since, err := sinceTime(f.since, time.Now())
	if err != nil {
		return err
	}
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	rec, err := loadRecord(store, name)
	if err != nil {
		return err
	}
	attempt := rec.Attempt
	if f.previous {
		attempt--
		if attempt < 1 {
			return fmt.Errorf("logs of %s: there is no run before the current one", name)
		}
	}
	logs, err := launcher.OpenLogs(store, name, attempt)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("logs of %s: it has not run yet", name)
	}
	if err != nil {
		return err
	}
	p := &logPrinter{out: bufio.NewWriter(a.stdout), timestamps: f.timestamps, terminal: isTerminal(a.stdout), since: since}
	fo := f.open(logs)
	defer func() { fo.Close(); logs.Close() }()
	if err := fo.Next(p.keep(f.tail)); err != nil {
		return fmt.Errorf("logs of %s: %w", name, err)
	}
	if err := p.flush(); err != nil || !f.follow || f.previous {
		return err
	}
	for {
		next, err := a.followLogs(ctx, store, name, attempt, fo, p)
		if err != nil || next == attempt {
			return err
		}
		more, err := launcher.OpenLogs(store, name, next)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is just being created
		}
		if err != nil {
			return err
		}
		attempt = next
		fo.Close()
		logs.Close()
		logs, fo = more, f.open(more)
	}
}

func (f *logsFlags) open(l *launcher.Logs) *sandboxlog.Follower {
	if f.sentry {
		return l.Sentry()
	}
	return l.App()
}

// followLogs prints what a run writes until the next has begun, whose attempt it
// returns. It returns the same attempt when no other is to be expected: the
// sandbox was removed, or is a job that has finished, or the caller has had
// enough.
func (a *app) followLogs(ctx context.Context, store *actual.Store, name string, attempt int64, fo *sandboxlog.Follower, p *logPrinter) (int64, error) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return attempt, nil
		case <-tick.C:
		}
		// Looked at first: what is written before its end is printed after.
		rec, _, err := store.Get(name)
		if err != nil {
			return attempt, err
		}
		if err := fo.Next(p.print); err != nil {
			return attempt, fmt.Errorf("logs of %s: %w", name, err)
		}
		if err := p.out.Flush(); err != nil {
			return attempt, err
		}
		switch {
		case rec == nil, rec.Attempt == attempt && rec.Phase == actual.PhaseStopped && rec.Completed:
			return attempt, nil
		case rec.Attempt != attempt:
			return rec.Attempt, nil
		}
	}
}

// loadRecord returns the record of a name for a verb that needs one.
func loadRecord(store *actual.Store, name string) (*actual.Record, error) {
	rec, held, err := store.Get(name)
	switch {
	case err != nil:
		return nil, err
	case held != nil:
		return nil, fmt.Errorf("sandbox %s: %s: %s", name, held.Reason, held.Message)
	case rec == nil:
		return nil, fmt.Errorf("no sandbox %q; see `sandboxctl get`", name)
	}
	return rec, nil
}

// logPrinter prints entries, the last few or all.
type logPrinter struct {
	out        *bufio.Writer
	timestamps bool
	terminal   bool
	since      time.Time
	ring       []sandboxlog.Entry
	held       int  // whole lines in ring
	partial    bool // the line is not at its end
	stream     sandboxlog.Stream
	coloured   bool // something in the line may be in force beyond it
}

// keep returns a function that holds back all but the last tail lines until
// flush; a negative tail prints at once.
func (p *logPrinter) keep(tail int) func(sandboxlog.Entry) error {
	if tail < 0 {
		return p.print
	}
	return func(e sandboxlog.Entry) error {
		if tail == 0 || e.At.Before(p.since) {
			return nil
		}
		e.Text = append([]byte(nil), e.Text...)
		p.ring = append(p.ring, e)
		lines := p.held + 1 // with the one that e ends or is in
		if e.Full {
			p.held++
		}
		if lines > tail {
			// The oldest line, with all of its parts.
			first := slices.IndexFunc(p.ring, func(e sandboxlog.Entry) bool { return e.Full })
			p.ring = p.ring[first+1:]
			p.held--
		}
		return nil
	}
}

func (p *logPrinter) flush() error {
	for _, e := range p.ring {
		if err := p.print(e); err != nil {
			return err
		}
	}
	p.ring, p.held = nil, 0
	p.plain()
	return p.out.Flush()
}

func (p *logPrinter) print(e sandboxlog.Entry) error {
	if e.At.Before(p.since) {
		return nil
	}
	if p.partial && e.Stream != p.stream {
		// The other stream's unfinished line is not this one's beginning.
		p.plain()
		p.out.WriteByte('\n')
		p.partial = false
	}
	p.stream = e.Stream
	if p.timestamps && !p.partial {
		p.out.WriteString(e.At.Format(sandboxlog.TimeFormat))
		p.out.WriteByte(' ')
	}
	if p.terminal {
		text := cleanLine(string(e.Text))
		p.coloured = p.coloured || strings.Contains(text, "\x1b[")
		p.out.WriteString(text)
	} else {
		p.out.Write(e.Text)
	}
	p.partial = !e.Full
	if !e.Full {
		return nil
	}
	p.plain()
	return p.out.WriteByte('\n')
}

// plain ends the colours of a line: one that conceals must not conceal what
// comes after it.
func (p *logPrinter) plain() {
	if p.coloured {
		p.out.WriteString("\x1b[0m")
		p.coloured = false
	}
}
