// SPDX-License-Identifier: Apache-2.0

package history

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
)

func (v verbs) eventsCommand() *cobra.Command {
	var (
		output, since string
		watch         bool
		sel           world.Selection
	)
	cmd := &cobra.Command{
		Use:   "events [NAME]... | -l LABEL=VALUE",
		Short: "Show what happened",
		Long:  "Show what the daemon has done and what happened to it, oldest first, for all sandboxes or some.",
		Example: `  sandboxctl events
  sandboxctl events web db --since 1h
  sandboxctl events -w -o json`,
		ValidArgsFunction: v.CompleteMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exit.Format(output, "json"); err != nil {
				return err
			}
			from, err := sinceTime(since, time.Now())
			if err != nil {
				return err
			}
			names, err := v.Named(cmd.Context(), &sel, args, true)
			if err != nil {
				return err
			}
			return v.events(cmd.Context(), watch, func(e actual.Event) error {
				if (names != nil && !slices.Contains(names, e.Sandbox)) || e.At.Before(from) {
					return nil
				}
				if output == "json" {
					return show.JSONLine(v.Stdout, e)
				}
				_, err := fmt.Fprintf(v.Stdout, "%s  %-7s  %-14s  %-16s  %s\n",
					e.At.Local().Format(time.RFC3339), e.Type, cmp.Or(e.Sandbox, "-"), e.Reason, show.Clean(e.Message))
				return err
			})
		},
	}
	sel.Add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: one event a line")
	cmd.Flags().StringVar(&since, "since", "", "only events younger than this: 5m, 1d, or a time such as 2006-01-02T15:04")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "keep printing events as they happen")
	return cmd
}

// events calls each with all events there are and, if somebody watches, with those that
// come.
func (v verbs) events(ctx context.Context, watch bool, each func(actual.Event) error) error {
	store, err := v.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	r := store.ReadEvents()
	defer r.Close()
	if err := r.Next(each); err != nil || !watch {
		return err
	}
	tick := time.NewTicker(world.WatchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := r.Next(each); err != nil {
			return err
		}
	}
}
