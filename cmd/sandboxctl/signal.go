// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/snapshots"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/reconcile"
)

func (a *app) killCommand() *cobra.Command {
	var (
		name string
		all  bool
		sel  world.Selection
	)
	cmd := &cobra.Command{
		Use:   "kill NAME...",
		Short: "Send a signal to the application of sandboxes",
		Long: `Send a signal to the application of sandboxes. What happens next depends on
restartPolicy. To keep a sandbox stopped, ` + "`stop` or `delete`" + ` it.`,
		Example: `  sandboxctl kill web
  sandboxctl kill --signal HUP web api`,
		ValidArgsFunction: a.CompleteMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			sig, err := parseSignal(name)
			if err != nil {
				return err
			}
			return a.EachRunning(cmd.Context(), &sel, args, func(c *sentry.Control, _ string) error {
				return c.App().Signal(cmd.Context(), sig, all)
			})
		},
	}
	sel.Add(cmd)
	cmd.Flags().StringVarP(&name, "signal", "s", "TERM", "signal by name or number")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "send it to every process of the sandbox")
	entry.CompleteValues(cmd, "signal", "TERM", "HUP", "INT", "QUIT", "USR1", "USR2", "KILL", "STOP", "CONT")
	return cmd
}

func parseSignal(s string) (unix.Signal, error) {
	sig, err := scalar.ParseSignal(s)
	if err != nil {
		return 0, exit.Usagef("--signal: %w; expected one such as TERM, SIGTERM, 15 or RTMIN+3", err)
	}
	return sig, nil
}

func (a *app) restartCommand() *cobra.Command {
	var (
		sel     world.Selection
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
		ValidArgsFunction: a.CompleteMore,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := a.Once(cmd.Context())
			if err != nil {
				return err
			}
			if args, err = sel.Names(w, args, false); err != nil {
				return err
			}
			tokens := map[string]string{}
			for _, n := range args {
				tokens[n] = actual.NewUID()
				if err := a.Request(actual.Request{Kind: actual.RequestRestart, Name: n, Token: tokens[n]}); err != nil {
					return err
				}
				fmt.Fprintf(a.Stdout, "sandbox/%s restart requested\n", n)
				if note := cmp.Or(restartNote(w, n), snapshots.Note(cmd.Context(), &a.Host, w, n)); note != "" {
					fmt.Fprintf(a.Stderr, "note: %s\n", show.Clean(note))
				}
			}
			a.NoteDaemon(w)
			if !wait {
				return nil
			}
			return await.Until(cmd.Context(), &a.Host, args, await.Restarted(tokens), timeout)
		},
	}
	sel.Add(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the sandboxes run again")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

// restartNote says what becomes of a restart that does not do what was meant, "" if it does.
func restartNote(w *world.World, name string) string {
	s := w.Status(name)
	if st := s.Condition(reconcile.CondStalled); st.Status == reconcile.True && (st.Reason == actual.ReasonRecordQuarantined || st.Reason == desired.ReasonPolicyDenied) {
		return "it waits: " + st.Reason + ": " + st.Message
	}
	if err := await.Suspended(w, name); err != nil {
		return "it waits: " + err.Error()
	}
	valid := s.Condition(reconcile.CondManifestValid)
	switch {
	case valid == nil || valid.Status != reconcile.False:
		return ""
	case w.Entry(name) == nil:
		return "it starts when its manifest is valid: " + valid.Message
	}
	return "it restarts with its last valid manifest, and not with what the file says now: " + valid.Message
}
