// SPDX-License-Identifier: Apache-2.0

package images

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/image"
)

// listed is an image as it is shown.
type listed struct {
	image.Entry
	// UsedBy are the sandboxes whose records name it.
	UsedBy []string `json:"usedBy,omitempty"`
}

func (v *Verbs) lsCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List images",
		Long:    "List the images in the store, and the sandboxes that use them.",
		Example: `  sandboxctl image ls
  sandboxctl image ls -o json`,
		Args:              exit.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if err := exit.Format(output, "json"); err != nil {
				return err
			}
			all, err := v.list()
			if err != nil {
				return err
			}
			if output == "json" {
				return show.JSON(v.Stdout, all)
			}
			return v.table(all)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

func (v *Verbs) list() ([]listed, error) {
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
	users, err := v.users()
	if users == nil {
		return nil, err
	}
	if err != nil {
		fmt.Fprintf(v.Stderr, "warning: %s\n", show.Clean(err.Error()))
	}
	for _, e := range all {
		out = append(out, listed{e, users[e.Digest]})
	}
	return out, nil
}

func (v *Verbs) table(all []listed) error {
	var rows [][]string
	now := time.Now()
	for _, e := range all {
		refs := e.Refs
		if len(refs) == 0 {
			refs = []string{""}
		}
		used := strings.Join(e.UsedBy, ",")
		if e.Problem != "" {
			used = e.Problem
		}
		for _, ref := range refs {
			rows = append(rows, []string{show.Clean(ref), short(e.Digest), show.Age(e.Pulled, now), show.Bytes(e.Bytes), show.Clean(used)})
		}
	}
	return show.Table(v.Stdout, []string{"REFERENCE", "DIGEST", "PULLED", "SIZE", "USED BY"}, rows)
}

// short is the part of a digest that tells images apart.
func short(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(len(hex), 12)]
}

func (v *Verbs) inspectCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "inspect REFERENCE|DIGEST",
		Short: "Show what is known about an image",
		Long: `Show what is known about an image: its digest, configuration and layers, what gVisor
can't serve of it, and the sandboxes that use it. The beginning of a digest is enough.`,
		Example: `  sandboxctl image inspect docker.io/library/nginx:1.27
  sandboxctl image inspect 3a1f5c -o json`,
		Args:              exit.Args("REFERENCE or DIGEST"),
		ValidArgsFunction: v.complete,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := exit.Format(output, "json", "yaml"); err != nil {
				return err
			}
			s, err := v.look()
			if err == nil && s == nil {
				err = fmt.Errorf("%w: %s", image.ErrNotFound, args[0])
			}
			if err != nil {
				return err
			}
			defer s.Close()
			e, err := find(s, args[0])
			if err != nil {
				return err
			}
			users, err := v.users()
			if users == nil {
				return err
			}
			l := listed{*e, users[e.Digest]}
			if output == "json" {
				return show.JSON(v.Stdout, l)
			}
			return show.YAML(v.Stdout, l)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "yaml or json: yaml if nothing is given")
	return cmd
}
