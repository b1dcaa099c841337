// SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/checkpoint"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/snapshot"
)

func (v verbs) checkpointCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint NAME DIR",
		Short: "Save the state of a running sandbox",
		Long: `Save the state of a running sandbox, all of its processes and memory, in a
directory, which is made if it is not there and must not hold a checkpoint. The
sandbox is paused meanwhile and resumes afterwards. Files of the host that it
uses (root.dir, hostPath volumes) are not in it.

The state holds every secret that the sandbox holds: keep the directory private.`,
		Example: `  sandboxctl checkpoint web /var/backups/web-1
  sandboxctl restore web /var/backups/web-1`,
		Args:              exit.Args("NAME", "DIR"),
		ValidArgsFunction: v.CompleteNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := v.Once(cmd.Context())
			if err != nil {
				return err
			}
			if w.Status(args[0]) == nil {
				return w.NoSuch(args[0])
			}
			store, err := actual.OpenStoreReadOnly(v.State)
			if err != nil {
				return err
			}
			defer store.Close()
			begun := time.Now()
			info, err := checkpoint.Take(cmd.Context(), store, args[0], args[1], true)
			if err != nil {
				return err
			}
			fmt.Fprintf(v.Stdout, "sandbox/%s checkpointed to %s: %s in %s\n", args[0], show.Clean(args[1]), show.Bytes(info.StateBytes), time.Since(begun).Round(time.Millisecond))
			return nil
		},
	}
}

func (v verbs) restoreCommand() *cobra.Command {
	var (
		wait, dryRun   bool
		timeout        time.Duration
		sentry, stored string
	)
	cmd := &cobra.Command{
		Use:   "restore NAME [DIR]",
		Short: "Restart a sandbox from a checkpoint or snapshot",
		Long: `Ask the daemon to restart a sandbox from a checkpoint, or with --snapshot from a
snapshot, instead of afresh: it stops gracefully if it runs, and resumes where the
checkpoint was taken. Whether that can work is checked first: the manifest, the
version of gVisor and the features of the processor must be those of the
checkpoint. With --dry-run nothing else is done.

Later restarts are fresh ones. A restore that fails counts as a failed start; a
fresh one follows after the backoff.`,
		Example: `  sandboxctl restore web /var/backups/web-1 --wait
  sandboxctl restore web --snapshot web-ready --dry-run`,
		Args: func(_ *cobra.Command, args []string) error {
			if stored != "" && len(args) == 1 || stored == "" && len(args) == 2 {
				return nil
			}
			return exit.Usagef("expected NAME and DIR, or NAME and --snapshot, got %d arguments", len(args))
		},
		ValidArgsFunction: v.CompleteNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			dir, err := v.find(args[1:], stored)
			if err != nil {
				return fmt.Errorf("restore %s: %w", name, err)
			}
			w, err := v.Once(cmd.Context())
			if err != nil {
				return err
			}
			e := w.In.Desired.Lookup(name)
			if e == nil {
				return w.NoSuch(name)
			}
			if e.Sandbox.Spec.Suspend {
				return fmt.Errorf("restore %s: its manifest suspends it; set spec.suspend to false first", name)
			}
			path, err := companion.Find(companion.SentryName, sentry)
			if err != nil {
				return err
			}
			if err := v.checkRestorable(cmd.Context(), w, e, dir, path); err != nil {
				return fmt.Errorf("restore %s: %w", name, err)
			}
			if dryRun {
				fmt.Fprintf(v.Stdout, "sandbox/%s can be restored from %s\n", name, show.Clean(dir))
				return nil
			}
			token := actual.NewUID()
			if err := v.request(w, name, token, dir); err != nil || !wait {
				return err
			}
			return await.Until(cmd.Context(), v.Host, []string{name}, await.Restored(token), timeout)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&wait, "wait", false, "wait until the sandbox runs again; an error if it was started afresh instead")
	fl.DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	fl.BoolVar(&dryRun, "dry-run", false, "only say whether it could be restored")
	fl.StringVar(&stored, "snapshot", "", "the name of the snapshot to restore, instead of DIR")
	fl.StringVar(&sentry, "sentry", "", "sentry binary of the daemon (default: sandboxctl-sentry beside this program)")
	return cmd
}

// request asks the daemon for a restore.
func (v verbs) request(w *world.World, name, token, dir string) error {
	if err := v.Request(actual.Request{Kind: actual.RequestRestart, Name: name, Token: token, Checkpoint: dir}); err != nil {
		return err
	}
	fmt.Fprintf(v.Stdout, "sandbox/%s restore requested\n", name)
	v.NoteDaemon(w)
	return nil
}

// find is the directory of the checkpoint that the arguments or the name of a snapshot mean.
func (v verbs) find(args []string, stored string) (string, error) {
	if stored == "" {
		return filepath.Abs(args[0])
	}
	s, err := v.open(stored)
	if err != nil {
		return "", err
	}
	defer s.Close()
	img, err := s.Load(stored)
	if err != nil {
		return "", err
	}
	img.Close()
	return filepath.Join(v.StatePath(), snapshot.Directory, stored), nil
}

// checkRestorable says why a sandbox can't be restored from a directory, nil if it can.
func (v verbs) checkRestorable(ctx context.Context, w *world.World, e *desired.Entry, dir, sentryPath string) error {
	policy, err := v.HostPolicy()
	if err != nil {
		return err
	}
	root, err := v.RootImage(w, e)
	if err != nil {
		return err
	}
	defer root.Close()
	return checkpoint.CheckManifest(ctx, e.Sandbox, policy, root.Setup(), dir, sentryPath)
}
