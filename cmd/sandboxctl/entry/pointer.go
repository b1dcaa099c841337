// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
)

// Pointer is a verb of other tools that people type. It is in no list, and says which
// way it is done here.
func Pointer(verb, advice string) *cobra.Command {
	return &cobra.Command{
		Use: verb, Hidden: true, Short: "Not a verb here: " + advice, Long: "Not a verb here: " + advice + ".",
		Example: "  sandboxctl help", DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error { return exit.Usagef("there is no %q: %s", verb, advice) },
	}
}

// FlagError is the error of a flag in users' words: the library's are those of Go.
func FlagError(cmd *cobra.Command, err error) error {
	msg := err.Error()
	if what, why, found := strings.Cut(msg, " flag: "); found {
		switch {
		case strings.HasPrefix(why, "strconv.ParseBool"):
			err = errors.New(what + " flag: expected true or false")
		case strings.HasPrefix(why, "strconv."):
			err = errors.New(what + " flag: expected a number")
		case strings.HasPrefix(why, "time:"):
			err = errors.New(what + " flag: expected a duration such as 30s or 5m")
		}
	}
	if strings.HasPrefix(msg, "unknown shorthand flag") && cmd.Flags().Lookup("signal") != nil {
		err = errors.New(msg + "; a signal is given as -s TERM or -s 9")
	}
	return &exit.Error{Code: exit.Usage, Err: err}
}
