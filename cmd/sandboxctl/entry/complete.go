// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// CompleteOutputs completes -o of all verbs with the formats that its usage names.
func CompleteOutputs(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if f := cmd.Flags().Lookup("output"); f != nil {
			list, _, _ := strings.Cut(f.Usage, ":")
			formats := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
			CompleteValues(cmd, "output", slices.DeleteFunc(formats, func(s string) bool { return s == "or" })...)
		}
	}
}

// CompleteValues completes a flag with one of a few values.
func CompleteValues(cmd *cobra.Command, flag string, values ...string) {
	// It fails only if there is no such flag, which TestCompleteOutputs would show.
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	})
}
