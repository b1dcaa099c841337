// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/reconcile"
)

func (a *app) killCommand() *cobra.Command {
	var (
		name string
		all  bool
	)
	cmd := &cobra.Command{
		Use:   "kill NAME",
		Short: "Send a signal to the application of a sandbox",
		Long: `Send a signal to the application of a sandbox. What follows is the restart
policy's: a sandbox that is to stay away is suspended or deleted instead.`,
		Example: `  sandboxctl kill web
  sandboxctl kill --signal HUP web`,
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			sig, err := parseSignal(name)
			if err != nil {
				return err
			}
			store, err := a.openStore()
			if err != nil {
				return err
			}
			defer store.Close()
			c, _, err := launcher.Connect(cmd.Context(), store, args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Signal(cmd.Context(), sig, all)
		},
	}
	cmd.Flags().StringVarP(&name, "signal", "s", "TERM", "signal by name or number")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "send it to every process of the sandbox")
	return cmd
}

func parseSignal(s string) (unix.Signal, error) {
	sig, err := desired.ParseSignal(s)
	if err != nil {
		return 0, usagef("--signal: %w; expected one such as TERM, SIGTERM, 15 or RTMIN+3", err)
	}
	return sig, nil
}

func (a *app) restartCommand() *cobra.Command {
	var (
		wait    bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "restart NAME...",
		Short: "Restart sandboxes",
		Long: `Ask the daemon to restart sandboxes: gracefully, and without the delay or limit
that earlier failures have earned them. A completed sandbox runs again.`,
		Example: `  sandboxctl restart web
  sandboxctl restart web --wait`,
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("expected a NAME")
			}
			w, err := a.once(cmd.Context())
			if err != nil {
				return err
			}
			tokens := map[string]string{}
			for _, n := range args {
				if w.status(n) == nil {
					return w.noSuch(n)
				}
			}
			for _, n := range args {
				if tokens[n], err = actual.NewUID(); err != nil {
					return err
				}
				if err := a.request(actual.Request{Kind: actual.RequestRestart, Name: n, Token: tokens[n]}); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "sandbox/%s restart requested\n", n)
				if st := w.status(n).Condition(reconcile.CondStalled); st.Status == reconcile.True && (st.Reason == reconcile.ReasonRecordHeld || st.Reason == desired.ReasonPolicyDenied) {
					// A restart does not help with these.
					fmt.Fprintf(a.stderr, "note: it waits: %s: %s\n", st.Reason, clean(st.Message))
				}
			}
			a.noteDaemon(w)
			if !wait {
				return nil
			}
			return a.waitFor(cmd.Context(), args, forToken(tokens), timeout)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the sandboxes run again")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}
