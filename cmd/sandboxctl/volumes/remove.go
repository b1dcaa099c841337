// SPDX-License-Identifier: Apache-2.0

package volumes

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
)

func (v verbs) rmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove named volumes, with all that is in them",
		Long: `Remove named volumes, with all that is in them. A volume that a manifest or a sandbox
names, running or not, or a Volume document, stays unless --force is given. A sandbox that
runs keeps the files it has open then; a new start makes a new, empty volume, and so does the
daemon for a document. What a sandbox writes meanwhile is removed too, up to a bound: then the
daemon removes the rest.`,
		Example:           "  sandboxctl volume rm data",
		Args:              some,
		ValidArgsFunction: v.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				if err := v.RemoveVolume(cmd.Context(), name, force); err != nil {
					errs = append(errs, fmt.Errorf("remove volume %s: %w", name, err))
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also what is in use")
	return cmd
}

// some refuses a verb without arguments.
func some(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &exit.Error{Code: exit.Usage, Err: errors.New("expected at least one NAME")}
	}
	return nil
}

func (v verbs) pruneCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove the named volumes that nobody uses",
		Long: `Remove the named volumes that no manifest and no sandbox names, with all that is in
them. Without --yes it only tells which these are.`,
		Example: `  sandboxctl volume prune
  sandboxctl volume prune --yes`,
		Args: exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := v.list(cmd)
			if err != nil {
				return err
			}
			var errs []error
			for i := range all {
				name := all[i].Name
				switch {
				case len(all[i].UsedBy) > 0 || all[i].Problem != "":
				case !yes:
					fmt.Fprintf(v.Stdout, "volume/%s would be removed (give --yes)\n", show.Clean(name))
				default:
					// Asked once more with the lock: somebody may use it by now.
					if err := v.RemoveVolume(cmd.Context(), name, false); err != nil && !errors.Is(err, world.ErrVolumeUsed) {
						errs = append(errs, fmt.Errorf("remove volume %s: %w", name, err))
					}
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "remove them")
	return cmd
}
