// SPDX-License-Identifier: Apache-2.0

package images

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sandboxctl.dev/launcher/image"
)

func (v *Verbs) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [REFERENCE|DIGEST...]",
		Short: "Find images that are damaged",
		Long: `Read images, all of them if none is named, and compare them with the checksums that were
written with them. A damaged image is marked: the next start that needs it fetches it
again. One that was imported has to be imported again.`,
		Example: `  sandboxctl image verify
  sandboxctl image verify docker.io/library/nginx:1.27`,
		ValidArgsFunction: v.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := v.open()
			if err != nil {
				return err
			}
			defer s.Close()
			if len(args) == 0 {
				all, err := s.List()
				if err != nil {
					return err
				}
				for _, e := range all {
					args = append(args, e.Digest)
				}
			}
			return each(cmd.Context(), args, func(arg string) error {
				e, err := find(s.Store, arg)
				if err != nil {
					return err
				}
				switch err := s.Verify(cmd.Context(), e.Digest); {
				case errors.Is(err, image.ErrInUse):
					fmt.Fprintf(v.Stdout, "%s is being fetched or removed\n", e.Digest)
				case errors.Is(err, image.ErrNoChecksum):
					fmt.Fprintf(v.Stdout, "%s has no checksum: an earlier version has fetched it\n", e.Digest)
				case err != nil:
					return fmt.Errorf("%s: %w", e.Digest, err)
				default:
					fmt.Fprintf(v.Stdout, "%s is as it was written\n", e.Digest)
				}
				return nil
			})
		},
	}
}
