// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
)

func (a *app) eventsCommand() *cobra.Command {
	var (
		output, since string
		watch         bool
		sel           selection
	)
	cmd := &cobra.Command{
		Use:   "events [NAME]... | -l LABEL=VALUE",
		Short: "Show what happened",
		Long:  "Show what the daemon has done and what happened to it, oldest first, for all sandboxes or some.",
		Example: `  sandboxctl events
  sandboxctl events web db --since 1h
  sandboxctl events -w -o json`,
		ValidArgsFunction: a.completeMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return exit.Usagef("-o: expected json, got %q", output)
			}
			from, err := sinceTime(since, time.Now())
			if err != nil {
				return err
			}
			names, err := a.named(cmd.Context(), &sel, args, true)
			if err != nil {
				return err
			}
			store, err := a.openStore()
			if err != nil {
				return err
			}
			defer store.Close()
			r := store.ReadEvents()
			defer r.Close()
			each := func(e actual.Event) error {
				if (names != nil && !slices.Contains(names, e.Sandbox)) || e.At.Before(from) {
					return nil
				}
				if output == "json" {
					return show.JSONLine(a.stdout, e)
				}
				name := e.Sandbox
				if name == "" {
					name = "-"
				}
				_, err := fmt.Fprintf(a.stdout, "%s  %-7s  %-14s  %-16s  %s\n", e.At.Local().Format(time.RFC3339), e.Type, name, e.Reason, show.Clean(e.Message))
				return err
			}
			if err := r.Next(each); err != nil || !watch {
				return err
			}
			tick := time.NewTicker(watchEvery)
			defer tick.Stop()
			for {
				select {
				case <-cmd.Context().Done():
					return nil
				case <-tick.C:
				}
				if err := r.Next(each); err != nil {
					return err
				}
			}
		},
	}
	sel.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: one event a line")
	cmd.Flags().StringVar(&since, "since", "", "only events younger than this: 5m, 1d, or a time such as 2006-01-02T15:04")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "keep printing events as they happen")
	return cmd
}
