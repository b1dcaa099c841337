// SPDX-License-Identifier: Apache-2.0

// Package laststart tells how the last start of a sandbox went: its phases, and which way it
// got its processes.
package laststart

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/logs"
	"sandboxctl.dev/reconcile"
)

// Of is how long the phases of the last start took, with the one that the log tells and not
// the record; nil if nothing is known of a start. A log that can't be read is for the verb
// logs to tell about.
func Of(state string, s *reconcile.Status) *actual.Start {
	if s.Start == nil || !s.Start.Done() {
		return s.Start
	}
	at, err := firstOutput(state, s)
	// A gofer that was taken over can write any time.
	if err != nil || at.After(time.Now()) {
		return s.Start
	}
	return s.Start.Add(actual.StartFirstOutput, at.Sub(s.Start.BeganAt.Add(s.Start.Took())))
}

// firstOutput is when the last run of a sandbox wrote its first line.
func firstOutput(state string, s *reconcile.Status) (at time.Time, err error) {
	store, err := actual.OpenStoreReadOnly(state)
	if err != nil {
		return at, err
	}
	defer store.Close()
	l, err := logs.Open(store, s.Name, s.Attempt)
	if err != nil {
		return at, err
	}
	defer l.Close()
	return l.FirstOutput()
}

// Print prints the way and the phases of the last start.
func Print(out io.Writer, s *reconcile.Status, start *actual.Start) error {
	if start == nil {
		return nil
	}
	fmt.Fprintf(out, "\nLast start (%s):\n", startText(s, start))
	if start.Way != "" {
		fmt.Fprintf(out, "  way: %s\n", wayText(start))
	}
	rows := make([][]string, len(start.Phases))
	for i, p := range start.Phases {
		name := p.Phase
		if name == actual.StartFirstOutput {
			name = "first output"
		}
		rows[i] = []string{"  " + show.Clean(name), millisecondsText(p.Milliseconds)}
	}
	return show.Table(out, []string{"  PHASE", "TOOK"}, rows)
}

// wayText says where the processes of a start came from.
func wayText(start *actual.Start) string {
	text := start.Way
	switch {
	case start.Way == actual.WayWarm:
		text = "processes that had waited for a sandbox, with a booted kernel"
	case start.Way == actual.WayWaiting && start.Why != "":
		text = "processes that had waited for a sandbox, without a kernel"
	case start.Way == actual.WayWaiting:
		text = "processes that had waited for a sandbox"
	}
	if start.Why != "" {
		text += ", as " + start.Why
	}
	return show.Clean(text)
}

// startText says how long a start took, and how it ended if not with an application
// that was started.
func startText(s *reconcile.Status, start *actual.Start) string {
	took := millisecondsText(start.Milliseconds)
	switch {
	case start.Done():
		return took
	case start.Failed && len(start.Phases) > 0:
		return took + "; it got no further than " + show.Clean(start.Phases[len(start.Phases)-1].Phase)
	case !s.StartedAt.IsZero():
		return took + " until the daemon ended; another one finished it, and how long the rest took is not known"
	case s.Phase == reconcile.PhaseCreating:
		return took + " so far"
	}
	return took + " until the daemon ended"
}

func millisecondsText(ms float64) string { return strconv.FormatFloat(ms, 'f', 1, 64) + " ms" }
