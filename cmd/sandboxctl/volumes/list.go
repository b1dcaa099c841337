// SPDX-License-Identifier: Apache-2.0

package volumes

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/projquota"
	"sandboxctl.dev/launcher/volume"
)

// listed is a volume as it is shown.
type listed struct {
	volume.Entry
	// UsedBy are the sandboxes whose manifests or records name it.
	UsedBy []string `json:"usedBy,omitempty"`
	// Path is where its files are on the host, Usage how much there is.
	Path  string        `json:"path,omitempty"`
	Usage *volume.Usage `json:"usage,omitempty"`
	// Quota is what the file system counts, with the size, where it has project quotas.
	Quota *projquota.Usage `json:"quota,omitempty"`
}

func (v verbs) lsCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List named volumes",
		Long:    "List the named volumes, and the sandboxes whose manifests or records name them.",
		Example: `  sandboxctl volume ls
  sandboxctl volume ls -o json`,
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
				rows = append(rows, []string{show.Clean(all[i].Name), age, sizeText(&all[i]), show.Clean(used)})
			}
			return show.Table(v.Stdout, []string{"NAME", "AGE", "SIZE", "USED BY"}, rows)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

// sizeText is how much a volume holds, as far as the file system knows, and may hold.
func sizeText(l *listed) string {
	switch {
	case l.Quota == nil:
		return ""
	case l.Quota.Size == 0:
		return scalar.Bytes(l.Quota.Bytes).String()
	}
	return fmt.Sprintf("%s/%s", scalar.Bytes(l.Quota.Bytes), scalar.Bytes(l.Quota.Size))
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
	users, unknown, err := v.VolumeUsers(cmd.Context())
	if err != nil {
		return nil, err
	}
	if unknown != nil {
		fmt.Fprintf(v.Stderr, "warning: not all sandboxes are known: %s\n", show.Clean(unknown.Error()))
	}
	for _, e := range all {
		out = append(out, listed{Entry: e, UsedBy: users[e.Name], Quota: s.Quota(&e.Meta)})
	}
	return out, nil
}

func (v verbs) inspectCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show what is known about a named volume",
		Long: `Show what is known about a named volume: when and for which sandbox it was made, who
uses it, where its files are on the host, and how much there is. All of it is looked at,
which takes a while for many files.`,
		Example:           "  sandboxctl volume inspect data",
		Args:              exit.Args("NAME"),
		ValidArgsFunction: v.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exit.Format(output, "json", "yaml"); err != nil {
				return err
			}
			s, err := v.open(args[0])
			if err != nil {
				return err
			}
			defer s.Close()
			e, err := s.Look(args[0])
			if err != nil {
				return fmt.Errorf("volume %s: %w", args[0], err)
			}
			users, unknown, err := v.VolumeUsers(cmd.Context())
			if err != nil {
				return err
			}
			if unknown != nil {
				fmt.Fprintf(v.Stderr, "warning: not all sandboxes are known: %s\n", show.Clean(unknown.Error()))
			}
			l := listed{Entry: *e, UsedBy: users[e.Name], Path: filepath.Join(v.StatePath(), volume.Directory, e.Name, volume.DataDir)}
			if e.Problem == "" {
				u, err := s.Usage(cmd.Context(), e.Name)
				if err != nil {
					return fmt.Errorf("volume %s: %w", e.Name, err)
				}
				l.Usage, l.Quota = &u, s.Quota(&e.Meta)
			}
			if output == "json" {
				return show.JSON(v.Stdout, l)
			}
			return show.YAML(v.Stdout, l)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "yaml or json: yaml if nothing is given")
	return cmd
}
