// SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/snapshot"
)

// listed is a snapshot as it is shown.
type listed struct {
	snapshot.Entry
	// UsedBy are the sandboxes and pools whose manifests name it.
	UsedBy []string `json:"usedBy,omitempty"`
}

func (v verbs) lsCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List snapshots",
		Long:    "List the snapshots, how large they are, and the sandboxes and pools whose manifests name them.",
		Example: `  sandboxctl snapshot ls
  sandboxctl snapshot ls -o json`,
		Args:              exit.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := exit.Format(output, "json"); err != nil {
				return err
			}
			all, err := v.list(cmd)
			if err != nil {
				return err
			}
			if output == "json" {
				return show.JSON(v.Stdout, all)
			}
			now := time.Now()
			var rows [][]string
			for i := range all {
				age, used := show.Age(all[i].Created, now), strings.Join(all[i].UsedBy, ",")
				if all[i].Problem != "" {
					age, used = "", all[i].Problem
				}
				rows = append(rows, []string{show.Clean(all[i].Name), age, show.Bytes(all[i].Bytes), show.Clean(all[i].Sandbox), show.Clean(used)})
			}
			return show.Table(v.Stdout, []string{"NAME", "AGE", "SIZE", "MADE OF", "USED BY"}, rows)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

func (v verbs) list(cmd *cobra.Command) ([]listed, error) {
	out := []listed{}
	s, err := v.look()
	if s == nil || err != nil {
		return out, err
	}
	defer s.Close()
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	users, unknown, err := v.users(cmd.Context())
	if err != nil {
		return nil, err
	}
	if unknown != nil {
		fmt.Fprintf(v.Stderr, "warning: %s\n", show.Clean(unknown.Error()))
	}
	for _, e := range all {
		out = append(out, listed{e, users[e.Name]})
	}
	return out, nil
}

func (v verbs) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [SNAPSHOT...]",
		Short: "Compare snapshots with their checksums",
		Long: `Read snapshots, or all of them, and compare them with the checksums that were written down
when they were made. Nothing is changed. A damaged one is an error; a sandbox that names it
is started afresh.`,
		Example: `  sandboxctl snapshot verify
  sandboxctl snapshot verify web-ready`,
		ValidArgsFunction: v.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := v.look()
			if err != nil {
				return err
			}
			if s == nil {
				if len(args) > 0 {
					return fmt.Errorf("%w: %s", snapshot.ErrNotFound, show.Clean(args[0]))
				}
				return nil
			}
			defer s.Close()
			if len(args) == 0 {
				all, err := s.List()
				if err != nil {
					return err
				}
				for _, e := range all {
					args = append(args, e.Name)
				}
			}
			var errs []error
			for _, name := range args {
				if err := s.Verify(cmd.Context(), name); err != nil {
					errs = append(errs, fmt.Errorf("snapshot %s: %w", show.Clean(name), err))
					continue
				}
				fmt.Fprintf(v.Stdout, "snapshot/%s is as it was made\n", name)
			}
			return errors.Join(errs...)
		},
	}
}

func (v verbs) rmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm SNAPSHOT...",
		Short: "Remove snapshots",
		Long: `Remove snapshots. One that a manifest names stays unless --force is given: sandboxes that name
it are started afresh then. What runs and began from it is not touched.`,
		Example: "  sandboxctl snapshot rm web-ready",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exit.Usagef("expected at least one SNAPSHOT")
			}
			return nil
		},
		ValidArgsFunction: v.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				if err := v.remove(cmd, name, force); err != nil {
					errs = append(errs, fmt.Errorf("remove snapshot %s: %w", show.Clean(name), err))
					continue
				}
				fmt.Fprintf(v.Stdout, "snapshot/%s removed\n", name)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also what manifests name")
	return cmd
}

// errUsed says that a snapshot is kept.
var errUsed = errors.New("it is in use")

func (v verbs) remove(cmd *cobra.Command, name string, force bool) error {
	s, err := v.open(name)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Remove(name, func() error {
		if force {
			return nil
		}
		users, unknown, err := v.users(cmd.Context())
		switch {
		case err != nil:
			return err
		case len(users[name]) > 0:
			return fmt.Errorf("%w by %s; change their manifests first, or give --force", errUsed, strings.Join(users[name], ", "))
		case unknown != nil:
			return fmt.Errorf("whether it is in use is not known: %w; give --force to remove it all the same", unknown)
		}
		return nil
	})
}
