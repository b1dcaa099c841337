// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/reconcile"
)

func (a *app) killCommand() *cobra.Command {
	var (
		name string
		all  bool
		sel  selection
	)
	cmd := &cobra.Command{
		Use:   "kill NAME...",
		Short: "Send a signal to the application of sandboxes",
		Long: `Send a signal to the application of sandboxes. What happens next depends on
restartPolicy. To keep a sandbox stopped, ` + "`stop` or `delete`" + ` it.`,
		Example: `  sandboxctl kill web
  sandboxctl kill --signal HUP web api`,
		ValidArgsFunction: a.completeMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			sig, err := parseSignal(name)
			if err != nil {
				return err
			}
			return a.eachRunning(cmd.Context(), &sel, args, func(c *sentry.Control, _ string) error {
				return c.App().Signal(cmd.Context(), sig, all)
			})
		},
	}
	sel.add(cmd)
	cmd.Flags().StringVarP(&name, "signal", "s", "TERM", "signal by name or number")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "send it to every process of the sandbox")
	completeValues(cmd, "signal", "TERM", "HUP", "INT", "QUIT", "USR1", "USR2", "KILL", "STOP", "CONT")
	return cmd
}

func parseSignal(s string) (unix.Signal, error) {
	sig, err := desired.ParseSignal(s)
	if err != nil {
		return 0, exit.Usagef("--signal: %w; expected one such as TERM, SIGTERM, 15 or RTMIN+3", err)
	}
	return sig, nil
}

func (a *app) restartCommand() *cobra.Command {
	var (
		sel     selection
		wait    bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "restart NAME...",
		Short: "Restart sandboxes",
		Long: `Ask the daemon to restart sandboxes gracefully, ignoring the current back-off and
limit. A completed sandbox runs again.`,
		Example: `  sandboxctl restart web
  sandboxctl restart web --wait`,
		ValidArgsFunction: a.completeMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := a.once(cmd.Context())
			if err != nil {
				return err
			}
			if args, err = sel.names(w, args, false); err != nil {
				return err
			}
			tokens := map[string]string{}
			for _, n := range args {
				tokens[n] = actual.NewUID()
				if err := a.request(actual.Request{Kind: actual.RequestRestart, Name: n, Token: tokens[n]}); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "sandbox/%s restart requested\n", n)
				if st := w.status(n).Condition(reconcile.CondStalled); st.Status == reconcile.True && (st.Reason == actual.ReasonRecordQuarantined || st.Reason == desired.ReasonPolicyDenied) {
					// A restart does not help with these.
					fmt.Fprintf(a.stderr, "note: it waits: %s: %s\n", st.Reason, show.Clean(st.Message))
				}
			}
			a.noteDaemon(w)
			if !wait {
				return nil
			}
			return a.waitFor(cmd.Context(), args, forToken(tokens), timeout)
		},
	}
	sel.add(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the sandboxes run again")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}
