// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/reconcile"
)

func (a *app) stopCommand() *cobra.Command {
	return a.suspendCommand(true, &cobra.Command{
		Use:   "stop NAME...",
		Short: "Stop sandboxes and keep their manifests (spec.suspend: true)",
		Long: `Stop sandboxes and keep them stopped: writes spec.suspend: true into their
manifests, and changes no other byte of them. The daemon stops them as their
stopSignal and terminationGracePeriod say. ` + "`start`" + ` is the opposite.`,
		Example: "  sandboxctl stop web\n  sandboxctl stop -l tier=back --wait",
	})
}

func (a *app) startCommand() *cobra.Command {
	return a.suspendCommand(false, &cobra.Command{
		Use:   "start NAME...",
		Short: "Start sandboxes that were stopped (spec.suspend: false)",
		Long: `Start sandboxes that are suspended: writes spec.suspend: false into their
manifests, and changes no other byte of them. One that has completed, or waits
for its next start, runs again with ` + "`restart`" + `.`,
		Example: "  sandboxctl start web --wait",
	})
}

func (a *app) suspendCommand(suspend bool, cmd *cobra.Command) *cobra.Command {
	var (
		sel     selection
		wait    bool
		timeout time.Duration
	)
	cmd.ValidArgsFunction = a.completeMore
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w, err := a.onceSettled(cmd.Context())
		if err != nil {
			return err
		}
		names, err := sel.names(w, args, false)
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := a.setSuspend(w, n, suspend); err != nil {
				return fmt.Errorf("%s %s: %w", cmd.Name(), n, err)
			}
		}
		a.noteNotRunning(w)
		if !wait {
			return nil
		}
		g := goal(forReady)
		if suspend {
			if g, err = parseGoal("phase=" + reconcile.PhaseSuspended); err != nil {
				return err
			}
		}
		return a.waitFor(cmd.Context(), names, g, timeout)
	}
	sel.add(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

// setSuspend changes the manifest of a sandbox, whichever file it is in.
func (a *app) setSuspend(w *world, name string, suspend bool) error {
	file, defined := desired.FileFor(w.in.Desired, name)
	if !defined {
		return fmt.Errorf("no manifest defines it (it is being removed, or its file is missing)")
	}
	dir, err := os.Open(path.Join(a.manifests, path.Dir(file)))
	if err != nil {
		return err
	}
	defer dir.Close()
	base := path.Base(file)
	old, err := readBelow(dir, base)
	if err != nil {
		return err
	}
	text, err := desired.WithSuspend(file, old, name, suspend)
	if err != nil {
		return err
	}
	what := "started"
	if suspend {
		what = "stopped"
	}
	if string(text) == string(old) {
		hint := ""
		if !suspend {
			hint = fmt.Sprintf(" (it is %s; `sandboxctl restart %s` runs it anew)", w.status(name).Phase, name)
		}
		fmt.Fprintf(a.stdout, "sandbox/%s unchanged%s\n", name, hint)
		return nil
	}
	if err := atomicfile.Write(dir, base, text, modeOf(dir, base)); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "sandbox/%s %s (spec.suspend: %t in %s)\n", name, what, suspend, file)
	return nil
}
