// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"slices"

	"github.com/spf13/cobra"
)

// CheckVerb refuses a verb that does not exist although help is asked for: the
// library would print the help of what is above it and call that a success, which
// scripts that look whether a verb is there believe.
func CheckVerb(root *cobra.Command, args []string) (*cobra.Command, error) {
	root.InitDefaultHelpCmd()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return root, nil // it is told when the command runs
	}
	if cmd.Name() == "help" && cmd.Parent() == root {
		cmd, rest, _ = root.Find(rest)
	} else if !slices.ContainsFunc(rest, isHelp) {
		return cmd, nil
	}
	rest = slices.DeleteFunc(slices.Clone(rest), isHelp)
	if !cmd.HasSubCommands() || cmd.ParseFlags(rest) != nil {
		return cmd, nil
	}
	return cmd, cmd.ValidateArgs(cmd.Flags().Args())
}

func isHelp(arg string) bool { return arg == "-h" || arg == "--help" }
