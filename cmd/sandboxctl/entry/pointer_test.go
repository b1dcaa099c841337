// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
)

// No error of a flag speaks of Go's packages, and each says what was expected.
func TestFlagError(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--tail all":     `invalid argument "all" for "-n, --tail" flag: expected a number`,
		"-n 1.5":         `invalid argument "1.5" for "-n, --tail" flag: expected a number`,
		"--tail=":        `invalid argument "" for "-n, --tail" flag: expected a number`,
		"--wait=maybe":   `invalid argument "maybe" for "--wait" flag: expected true or false`,
		"--timeout 5":    `invalid argument "5" for "--timeout" flag: expected a duration such as 30s or 5m`,
		"--timeout soon": `invalid argument "soon" for "--timeout" flag: expected a duration such as 30s or 5m`,
		"-9":             "unknown shorthand flag: '9' in -9; a signal is given as -s TERM or -s 9",
		"--nosuch":       "unknown flag: --nosuch",
	} {
		cmd := &cobra.Command{Use: "kill", SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return nil }}
		cmd.Flags().IntP("tail", "n", 0, "")
		cmd.Flags().Bool("wait", false, "")
		cmd.Flags().Duration("timeout", time.Second, "")
		cmd.Flags().StringP("signal", "s", "", "")
		cmd.SetFlagErrorFunc(FlagError)
		cmd.SetOut(io.Discard)
		cmd.SetArgs(strings.Fields(args))
		err := cmd.Execute()
		var e *exit.Error
		if !errors.As(err, &e) || e.Code != exit.Usage || err.Error() != want {
			t.Errorf("%s: %v, expected %s", args, err, want)
		}
	}
}
