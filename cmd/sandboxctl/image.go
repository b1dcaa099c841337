// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/companion"
)

// imageCommand is the verb image: it becomes the program that has its verbs, with the
// same arguments, environment and streams. This program would start later with what that
// links, for every verb.
func (a *app) imageCommand() *cobra.Command {
	become := func(cmd *cobra.Command) error {
		path, err := companion.Find(companion.ImageName, "")
		if err == nil {
			_, err = companion.Check(cmd.Context(), companion.ImageName, path)
		}
		if err != nil {
			return err
		}
		err = unix.Exec(path, append([]string{companion.ImageName}, os.Args[1:]...), os.Environ())
		return fmt.Errorf("execute %s: %w", path, err)
	}
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Fetch, list and remove images",
		Example: `  sandboxctl image pull docker.io/library/nginx:1.27
  sandboxctl image ls`,
		DisableFlagParsing: true,
		// The flags, also those before the verb, are for the other program to read.
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE:              func(cmd *cobra.Command, _ []string) error { return become(cmd) },
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			_ = become(cmd) // there is nobody to tell
			return nil, cobra.ShellCompDirectiveError
		},
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		if err := become(cmd); err != nil {
			fmt.Fprintf(a.Stderr, "sandboxctl: %v\n", err)
		}
	})
	return cmd
}
