// SPDX-License-Identifier: Apache-2.0

package images

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/image"
)

func (v *Verbs) rmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm REFERENCE|DIGEST...",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove images",
		Long: `Remove images from the store. If an image has several references, only the given one is
removed; the image goes with the last one. An image that a sandbox uses, running or not,
is refused: the sandbox could not start again.`,
		Example: `  sandboxctl image rm docker.io/library/nginx:1.26
  sandboxctl image rm 3a1f5c`,
		Args:              some("REFERENCE or DIGEST"),
		ValidArgsFunction: v.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := v.open()
			if err != nil {
				return err
			}
			defer s.Close()
			return each(cmd.Context(), args, func(arg string) error { return v.remove(cmd, s.Store, arg) })
		},
	}
	return cmd
}

func (v *Verbs) remove(cmd *cobra.Command, s *image.Store, arg string) error {
	e, err := find(s, arg)
	if err != nil {
		return err
	}
	if ref, err := normalize(arg); err == nil && slices.Contains(e.Refs, ref) && len(e.Refs) > 1 {
		if err := s.Untag(ref); err != nil {
			return err
		}
		fmt.Fprintf(v.Stdout, "%s removed; its image has other references\n", show.Clean(ref))
		return nil
	}
	err = s.Remove(cmd.Context(), e.Digest, v.inUse)
	if errors.Is(err, image.ErrInUse) {
		users, uerr := v.users()
		if names := users[e.Digest]; uerr == nil && len(names) > 0 {
			return fmt.Errorf("%w, by %s; remove the sandboxes first, or give them another image", err, strings.Join(names, ", "))
		}
		return fmt.Errorf("%w: another program is fetching or starting it; try again", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(v.Stdout, "%s removed\n", e.Digest)
	return nil
}

func (v *Verbs) pruneCommand() *cobra.Command {
	var all, dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove the images that no sandbox uses",
		Long: `Remove the images that no sandbox uses, running or not, and the layers of pulls that
failed. Imported images are kept unless --all is given: they can't be fetched again.`,
		Example: `  sandboxctl image prune --dry-run
  sandboxctl image prune`,
		Args: exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := v.open()
			if err != nil {
				return err
			}
			defer s.Close()
			keep := func(e *image.Entry) bool { return !all && imported(e) }
			if dryRun {
				return v.wouldPrune(s.Store, keep)
			}
			removed, freed, err := s.Prune(cmd.Context(), keep, v.inUse)
			for _, digest := range removed {
				fmt.Fprintf(v.Stdout, "%s removed\n", digest)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(v.Stdout, "%d images removed, %s freed\n", len(removed), show.Bytes(freed))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "remove imported images too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell what would be removed")
	return cmd
}

// imported says whether an image can't be fetched again.
func imported(e *image.Entry) bool {
	return slices.ContainsFunc(e.Refs, func(r string) bool { return strings.HasPrefix(r, "local:") })
}

func (v *Verbs) wouldPrune(s *image.Store, keep func(*image.Entry) bool) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	used, err := v.inUse()
	if err != nil {
		return err
	}
	for _, e := range all {
		if !used[e.Digest] && !keep(&e) {
			fmt.Fprintf(v.Stdout, "%s would be removed %s\n", e.Digest, show.Clean(strings.Join(e.Refs, " ")))
		}
	}
	return nil
}
