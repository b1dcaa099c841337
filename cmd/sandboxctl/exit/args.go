// SPDX-License-Identifier: Apache-2.0

package exit

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Args is cobra.ExactArgs with our exit code and words.
func Args(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return Usagef("expected %s, got %d arguments", strings.Join(names, " "), len(args))
		}
		return nil
	}
}

// NoArgs refuses every argument.
func NoArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("unexpected argument %q", args[0])
	}
	return nil
}

// VerbArgs refuses what stands in the place of a verb and is none.
func VerbArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return Usagef("unknown verb %q; did you mean %q?", args[0], like[0])
	}
	return Usagef("unknown verb %q", args[0])
}

// Format checks what -o was given; nothing stands for the table.
func Format(output string, formats ...string) error {
	if output == "" || slices.Contains(formats, output) {
		return nil
	}
	list := strings.Join(formats[:len(formats)-1], ", ")
	if list != "" {
		list += " or "
	}
	return Usagef("-o: expected %s, got %q", list+formats[len(formats)-1], output)
}
