// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/reconcile"
)

func (a *app) repairCommand() *cobra.Command {
	var (
		end     bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "repair NAME",
		Short: "Repair a sandbox whose record is quarantined",
		Long: `Repair a sandbox whose record is damaged, missing or can't be read.

If its processes live and agree with the second copy of the record, the record is
restored from that copy and the sandbox keeps running. If none of them lives, what is
left is moved to damaged/, and the daemon starts the sandbox afresh if a manifest
wants it. Otherwise nothing is done, and the error says why. describe NAME tells
which it will be. With --end the processes are ended in any case.

What was damaged is kept below the state directory, in damaged/.`,
		Example: `  sandboxctl describe web
  sandboxctl repair web
  sandboxctl repair --end web`,
		Args:              exit.Args("NAME"),
		ValidArgsFunction: a.completeQuarantined,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := a.Once(cmd.Context())
			if err != nil {
				return err
			}
			s := w.Status(args[0])
			switch {
			case s == nil:
				return w.NoSuch(args[0])
			case s.Phase != reconcile.PhaseQuarantined:
				return errors.Join(fmt.Errorf("repair %s: its record is not quarantined (the sandbox is %s): there is nothing to repair", s.Name, s.Phase), a.setupTrouble(s.Name))
			}
			done, err := a.repair(cmd.Context(), s.Name, end, timeout)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Stdout, "sandbox/%s repaired: %s\n", s.Name, show.Clean(done))
			return nil
		},
	}
	cmd.Flags().BoolVar(&end, "end", false, "end its processes and start it afresh, even if the record could be restored")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the daemon")
	return cmd
}

// setupTrouble says why it can't be told how a sandbox was built, nil if it can. A
// repair does not help: only a restart writes that down again.
func (a *app) setupTrouble(name string) error {
	store, err := a.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	rec, _, err := store.Get(name)
	if err != nil || rec == nil {
		return err
	}
	return built.Check(store, rec)
}

// repair has the daemon repair a name, or does it itself if there is none: one
// of them holds the lock.
func (a *app) repair(ctx context.Context, name string, end bool, timeout time.Duration) (string, error) {
	store, err := a.OpenStore()
	if err != nil {
		return "", err
	}
	defer store.Close()
	switch err := store.Lock(); {
	case errors.Is(err, actual.ErrLocked):
		return a.askRepair(ctx, store, name, end, timeout)
	case err != nil:
		return "", err
	}
	// Hooks that the sandbox owes are run only if the policy allows them.
	daemon, _ := a.ReadDaemon()
	l, err := launcher.New(launcher.Options{Store: store, Policy: a.PolicyFile(daemon).Load})
	if err != nil {
		return "", err
	}
	journal, err := store.OpenJournal()
	if err != nil {
		return "", err
	}
	done, err := l.Repair(ctx, name, end)
	event := actual.Event{Type: actual.EventNormal, Sandbox: name, Reason: actual.EventRecordRepaired, Message: done}
	if err != nil {
		event.Type, event.Reason, event.Message = actual.EventWarning, actual.EventRecordRepairFailed, err.Error()
	}
	return done, errors.Join(err, journal.Append(event), journal.Close())
}

// askRepair leaves a request and waits for what comes of it, which is told in
// the events.
func (a *app) askRepair(ctx context.Context, store *actual.Store, name string, end bool, timeout time.Duration) (string, error) {
	token := actual.NewUID()
	events := store.ReadEvents()
	defer events.Close()
	if err := events.Next(func(actual.Event) error { return nil }); err != nil {
		return "", err
	}
	r := actual.Request{Kind: actual.RequestRepair, Name: name, Token: token, End: end}
	if err := store.PutRequest(r); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("repair %s: the daemon has not carried it out within %s", name, timeout))
	defer cancel()
	tick := time.NewTicker(world.WatchEvery)
	defer tick.Stop()
	for {
		var outcome *actual.Event
		err := events.Next(func(e actual.Event) error {
			if e.Sandbox == name && (e.Reason == actual.EventRecordRepaired || e.Reason == actual.EventRecordRepairFailed) {
				outcome = &e
			}
			return nil
		})
		switch {
		case err != nil:
			return "", err
		case outcome != nil && outcome.Reason == actual.EventRecordRepairFailed:
			return "", errors.New(outcome.Message)
		case outcome != nil:
			return strings.TrimPrefix(outcome.Message, actual.ReasonRepairRequested+": "), nil
		}
		select {
		case <-ctx.Done():
			// It must not be carried out when nobody reckons with it any more.
			return "", errors.Join(context.Cause(ctx), store.WithdrawRequest(r))
		case <-tick.C:
		}
	}
}

// completeQuarantined completes the names whose records are quarantined.
func (a *app) completeQuarantined(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.Complete(args, func(l *actual.Listing) []string {
		var names []string
		for i := range l.Quarantined {
			names = append(names, l.Quarantined[i].Name)
		}
		return names
	})
}
