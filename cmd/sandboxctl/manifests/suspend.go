// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/suspension"
	"sandboxctl.dev/reconcile"
)

func (v verbs) stopCommand() *cobra.Command {
	return v.suspendCommand(true, &cobra.Command{
		Use:   "stop NAME...",
		Short: "Stop sandboxes and keep their manifests (spec.suspend: true)",
		Long: `Stop sandboxes and keep them stopped: writes spec.suspend: true into their
manifests, and changes no other byte of them. The daemon stops them as their
stopSignal and terminationGracePeriod say. ` + "`start`" + ` is the opposite.`,
		Example: "  sandboxctl stop web\n  sandboxctl stop -l tier=back --wait",
	})
}

func (v verbs) startCommand() *cobra.Command {
	return v.suspendCommand(false, &cobra.Command{
		Use:   "start NAME...",
		Short: "Start sandboxes that were stopped (spec.suspend: false)",
		Long: `Start sandboxes that are suspended: writes spec.suspend: false into their
manifests, and changes no other byte of them. One that has completed, or waits
for its next start, runs again with ` + "`restart`" + `.`,
		Example: "  sandboxctl start web --wait",
	})
}

func (v verbs) suspendCommand(suspend bool, cmd *cobra.Command) *cobra.Command {
	var (
		sel     world.Selection
		wait    bool
		timeout time.Duration
	)
	cmd.ValidArgsFunction = v.CompleteMore
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w, err := v.OnceSettled(cmd.Context())
		if err != nil {
			return err
		}
		names, err := sel.Names(w, args, false)
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := v.setSuspend(w, n, suspend); err != nil {
				return fmt.Errorf("%s %s: %w", cmd.Name(), n, err)
			}
		}
		v.NoteNotRunning(w)
		if !wait {
			return nil
		}
		g := await.Goal(await.Ready)
		if suspend {
			if g, err = await.Parse("phase=" + reconcile.PhaseSuspended); err != nil {
				return err
			}
		}
		return await.Until(cmd.Context(), v.Host, names, g, timeout)
	}
	sel.Add(cmd)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return cmd
}

// setSuspend changes the manifest of a sandbox, whichever file it is in.
func (v verbs) setSuspend(w *world.World, name string, suspend bool) error {
	file, defined := desired.FileFor(w.In.Desired, name)
	if !defined {
		return fmt.Errorf("no manifest defines it (it is being removed, or its file is missing)")
	}
	dir, base, old, err := v.openFile(file)
	if err != nil {
		return err
	}
	defer dir.Close()
	text, err := suspension.Set(file, old, name, suspend)
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
			hint = fmt.Sprintf(" (it is %s; `sandboxctl restart %s` runs it anew)", w.Status(name).Phase, name)
		}
		fmt.Fprintf(v.Stdout, "sandbox/%s unchanged%s\n", name, hint)
		return nil
	}
	if err := atomicfile.Write(dir, base, text, modeOf(dir, base)); err != nil {
		return err
	}
	fmt.Fprintf(v.Stdout, "sandbox/%s %s (spec.suspend: %t in %s)\n", name, what, suspend, file)
	return nil
}
