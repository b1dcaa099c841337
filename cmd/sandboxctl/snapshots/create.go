// SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/checkpoint"
	"sandboxctl.dev/launcher/snapshot"
)

func (v verbs) createCommand() *cobra.Command {
	var compress bool
	cmd := &cobra.Command{
		Use:   "create NAME SNAPSHOT",
		Short: "Make a snapshot of a running sandbox",
		Long: `Save the state of a running sandbox, all of its processes and memory, as a snapshot in the
state directory. The sandbox is paused meanwhile and resumes afterwards, also when that fails.
The snapshot is there when all of it is on the disk.

It is not compressed: a start from it takes about half the time, and four times the room.
The host policy says how much all snapshots may take together, and a tenth of the disk, at
most 1 GiB, stays free.

Anyone who begins from it has the memory of this sandbox, with every secret, and shares the
state of its random number generators with all others that do.`,
		Example: `  sandboxctl snapshot create web web-ready
  sandboxctl snapshot create --compress web web-ready`,
		Args: exit.Args("NAME", "SNAPSHOT"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return v.CompleteNames(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := v.Once(cmd.Context())
			if err != nil {
				return err
			}
			if w.Status(args[0]) == nil {
				return w.NoSuch(args[0])
			}
			begun := time.Now()
			e, err := v.create(cmd.Context(), args[0], args[1], compress)
			if err != nil {
				return fmt.Errorf("make snapshot %s of %s: %w", show.Clean(args[1]), args[0], err)
			}
			fmt.Fprintf(v.Stdout, "snapshot/%s made of sandbox/%s: %s in %s\n", e.Name, args[0], show.Bytes(e.Bytes), time.Since(begun).Round(time.Millisecond))
			return nil
		},
	}
	cmd.Flags().BoolVar(&compress, "compress", false, "compress the state")
	return cmd
}

func (v verbs) create(ctx context.Context, name, as string, compress bool) (*snapshot.Entry, error) {
	policy, err := v.HostPolicy()
	if err != nil {
		return nil, err
	}
	state, err := actual.OpenStore(v.State)
	if err != nil {
		return nil, err
	}
	defer func() { _ = state.Close() }() // all that was written is on the disk
	s, err := snapshot.Open(state.RootDir())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	from, err := checkpoint.Begin(ctx, state, name)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	from.Info.Compressed = compress
	return s.Create(ctx, as, from.Info, from, snapshot.Limits{Sum: int64(*policy.Snapshots.MaxSize)})
}
