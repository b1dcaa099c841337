// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/sentry"
)

func (a *app) psCommand() *cobra.Command {
	var (
		sel    world.Selection
		output string
	)
	cmd := &cobra.Command{
		Use:   "ps NAME...",
		Short: "List the processes in sandboxes",
		Long: `List the processes in sandboxes, with their numbers there. None of them is a process
of the host. STATE is R (runs), S (sleeps), D (sleeps, can't be interrupted),
T (stopped), t (traced) or Z (zombie: it has ended, and its parent has not waited for it).`,
		Example:           "  sandboxctl ps web\n  sandboxctl ps -l tier=back",
		ValidArgsFunction: a.CompleteMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exit.Format(output, "json"); err != nil {
				return err
			}
			shown := 0
			return a.EachRunning(cmd.Context(), &sel, args, func(c *sentry.Control, name string) error {
				ps, err := c.App().ProcessTable(cmd.Context())
				if err != nil {
					return fmt.Errorf("ps of %s: %w", name, err)
				}
				if output == "json" {
					return show.JSON(a.Stdout, ps)
				}
				if len(args) != 1 {
					if shown++; shown > 1 {
						fmt.Fprintln(a.Stdout)
					}
					fmt.Fprintf(a.Stdout, "sandbox/%s\n", name)
				}
				return show.Processes(a.Stdout, ps)
			})
		},
	}
	sel.Add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

// usage is what one sandbox uses.
type usage struct {
	Name string `json:"name"`
	// Host is what the host accounts to it, sentry and gofer included; -1 is
	// not known. Guest is what its processes use, as the sentry counts.
	Host cgroup.Stats `json:"host"`
	// The limits in force on the host; 0 is none.
	MemoryLimit int64  `json:"memoryLimitBytes"`
	PIDsLimit   int64  `json:"pidsLimit"`
	GuestMemory uint64 `json:"guestMemoryBytes"`
	GuestCPU    uint64 `json:"guestCPUNanos"`
	GuestPIDs   uint64 `json:"guestPIDs"`
	// Network is null if the sandbox is on no network of mode bridge.
	Network *traffic `json:"network"`
}

func (a *app) statsCommand() *cobra.Command {
	var (
		sel    world.Selection
		output string
	)
	cmd := &cobra.Command{
		Use:     "stats [NAME...]",
		Aliases: []string{"top"},
		Short:   "Show what sandboxes use",
		Long: `Show what running sandboxes use of processor and memory: what their processes
use, as gVisor counts it, and what the host accounts to them with sentry and
gofer, where it has the cgroup controllers. The limits in force, of
spec.resources or by default of the host policy, are in -o json.

Of sandboxes on networks (network.mode bridge) it shows what they have received
and sent, and how many packets rules have refused, of both directions; each
direction is in -o json. The kernel of the host counts, from the time that the
sandbox was started, and also while no daemon runs.`,
		Example:           "  sandboxctl stats\n  sandboxctl stats web -o json",
		ValidArgsFunction: a.CompleteMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exit.Format(output, "json"); err != nil {
				return err
			}
			names, err := a.Named(cmd.Context(), &sel, args, true)
			if err != nil {
				return err
			}
			us, err := a.usages(cmd, names)
			if err != nil {
				return err
			}
			if output == "json" {
				return show.JSON(a.Stdout, us)
			}
			rows := make([][]string, len(us))
			for i, u := range us {
				rows[i] = []string{
					u.Name, cpuText(int64(u.GuestCPU)), show.Bytes(int64(u.GuestMemory)), strconv.FormatUint(u.GuestPIDs, 10),
					cpuText(u.Host.CPUNanos), show.Bytes(u.Host.MemoryBytes), countText(u.Host.PIDs),
				}
				rows[i] = append(rows[i], u.Network.columns()...)
			}
			return show.Table(a.Stdout, []string{"NAME", "CPU", "MEMORY", "PIDS", "HOST CPU", "HOST MEMORY", "HOST PIDS", "RECEIVED", "PACKETS", "SENT", "PACKETS", "REFUSED"}, rows)
		},
	}
	sel.Add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

// usages returns those of the names, or with nil those of all that run.
func (a *app) usages(cmd *cobra.Command, names []string) ([]usage, error) {
	store, err := a.OpenStore()
	if err != nil {
		return nil, err
	}
	defer store.Close()
	out, network := []usage{}, countersOf(store)
	if names != nil {
		for _, n := range names {
			u, err := a.usage(cmd, store, n, network, a.Connect)
			if err != nil {
				return nil, err
			}
			out = append(out, *u)
		}
		return out, nil
	}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, rec := range list.Records {
		u, err := a.usage(cmd, store, rec.Name, network, sentry.Connect) // why one does not run is nothing to say
		if errors.Is(err, sentry.ErrNotRunning) {
			continue
		}
		if err != nil {
			fmt.Fprintf(a.Stderr, "warning: %s\n", show.Clean(err.Error()))
			continue
		}
		out = append(out, *u)
	}
	return out, nil
}

func (a *app) usage(cmd *cobra.Command, store *actual.Store, name string, network *counters, connect func(context.Context, *actual.Store, string) (*sentry.Control, *actual.Record, error)) (*usage, error) {
	c, rec, err := connect(cmd.Context(), store, name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	e, err := c.App().Stats(cmd.Context())
	if err != nil {
		return nil, fmt.Errorf("stats of %s: %w", name, err)
	}
	u := &usage{
		Name: name, GuestMemory: e.Event.Data.Memory.Usage.Usage, GuestCPU: e.ContainerUsage[name], GuestPIDs: e.Event.Data.Pids.Current,
		Host: cgroup.Stats{MemoryBytes: -1, CPUNanos: -1, PIDs: -1},
	}
	host, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	group, err := host.Open(rec.Cgroups)
	if err != nil {
		return nil, err
	}
	defer group.Close()
	u.Host = group.Stats()
	u.MemoryLimit, u.PIDsLimit = group.Limits()
	if u.Network, err = network.of(rec); err != nil {
		fmt.Fprintf(a.Stderr, "warning: %s\n", show.Clean(err.Error()))
	}
	return u, nil
}

func cpuText(ns int64) string {
	if ns < 0 {
		return ""
	}
	return fmt.Sprintf("%.2fs", float64(ns)/1e9)
}

func countText(n int64) string {
	if n < 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}
