// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/manifestdir"
)

func (a *app) validateCommand() *cobra.Command {
	var (
		output string
		files  []string
	)
	cmd := &cobra.Command{
		Use:   "validate [FILE|DIR|-]...",
		Short: "Check manifests",
		Long: `Check manifests, by default those in the manifests directory, and print every
problem as file:line:column, also what the host policy does not allow. Nothing is
started. Exit code 1 if there is any.`,
		Example: `  sandboxctl validate web.yaml
  sandboxctl validate -o json manifests/`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return exit.Usagef("-o: expected json, got %q", output)
			}
			v, err := a.validate(cmd, append(args, files...))
			if err != nil {
				return err
			}
			if output == "json" {
				if err := show.JSON(a.stdout, v); err != nil {
					return err
				}
				if len(v.Problems) > 0 {
					return &exit.Error{Code: exit.Failure}
				}
				return nil
			}
			for _, w := range v.Warnings {
				fmt.Fprintf(a.stderr, "warning: %s\n", show.Clean(w.Error()))
			}
			if len(v.Problems) > 0 {
				return problemsError(v.Problems)
			}
			fmt.Fprintf(a.stdout, "%d sandboxes are valid\n", v.Sandboxes)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory or - for standard input, as for apply (repeatable)")
	return cmd
}

// validation is what is said of manifests.
type validation struct {
	Sandboxes int               `json:"sandboxes"`
	Problems  []desired.Problem `json:"problems"`
	Warnings  []desired.Warning `json:"warnings"`
}

func (a *app) validate(cmd *cobra.Command, args []string) (*validation, error) {
	policy, err := a.hostPolicy()
	if err != nil {
		return nil, err
	}
	v := &validation{Problems: []desired.Problem{}, Warnings: []desired.Warning{}}
	if len(args) == 0 {
		opts := manifestdir.Options{Path: a.manifests, Once: true, Policy: func() (desired.Policy, error) { return policy, nil }}
		if opts.BootID, err = actual.BootID(); err != nil {
			return nil, err
		}
		daemon, _ := a.readDaemon()
		// With what the daemon remembers: a directory that is not mounted looks like any
		// empty one.
		opts.Memory = a.memoryOf(daemon)
		snap, err := manifestdir.New(opts).Load(cmd.Context())
		if err != nil {
			return nil, err
		}
		if snap.Reason != "" && snap.Reason != desired.ReasonInvalidManifests {
			return nil, fmt.Errorf("validate %s: %s", a.manifests, snap.Message)
		}
		v.Sandboxes = len(snap.Entries)
		v.Problems, v.Warnings = append(v.Problems, snap.Problems...), append(v.Warnings, snap.Warnings...)
		return v, nil
	}
	for _, arg := range args {
		files, err := expand(arg)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			data, err := a.readInput(cmd.Context(), f)
			if err != nil {
				return nil, err
			}
			docs, ps := desired.Decoder{Policy: policy}.Decode(f.path, data)
			if w := desired.ForeignWarning(f.path, docs); w != nil {
				v.Warnings = append(v.Warnings, *w)
			}
			v.Problems = append(v.Problems, ps...)
			for i := range docs {
				if docs[i].Foreign == "" {
					v.Sandboxes++
				}
			}
		}
	}
	return v, nil
}
