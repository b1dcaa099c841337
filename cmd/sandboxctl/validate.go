// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
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
			problems, sandboxes, err := a.validate(cmd, append(args, files...))
			if err != nil {
				return err
			}
			switch output {
			case "":
				if len(problems) > 0 {
					return problemsError(problems)
				}
				fmt.Fprintf(a.stdout, "%d sandboxes are valid\n", sandboxes)
				return nil
			case "json":
				if problems == nil {
					problems = []desired.Problem{}
				}
				if err := printJSON(a.stdout, problems); err != nil {
					return err
				}
				if len(problems) > 0 {
					return &exitError{code: exitFailure}
				}
				return nil
			}
			return usagef("-o: expected json, got %q", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory or - for standard input, as for apply (repeatable)")
	return cmd
}

func (a *app) validate(cmd *cobra.Command, args []string) ([]desired.Problem, int, error) {
	policy, err := a.hostPolicy()
	if err != nil {
		return nil, 0, err
	}
	if len(args) == 0 {
		opts := manifestdir.Options{Path: a.manifests, Once: true, Policy: func() (desired.Policy, error) { return policy, nil }}
		if opts.BootID, err = actual.BootID(); err != nil {
			return nil, 0, err
		}
		daemon, _ := a.readDaemon()
		// With what the daemon remembers: a directory that is not mounted looks like any
		// empty one.
		opts.Memory = a.memoryOf(daemon)
		snap, err := manifestdir.New(opts).Load(cmd.Context())
		if err != nil {
			return nil, 0, err
		}
		for _, w := range snap.Warnings {
			fmt.Fprintf(a.stderr, "warning: %s\n", clean(w.Error()))
		}
		if snap.Reason != "" && snap.Reason != desired.ReasonInvalidManifests {
			return nil, 0, fmt.Errorf("validate %s: %s", a.manifests, snap.Message)
		}
		return snap.Problems, len(snap.Entries), nil
	}
	var problems []desired.Problem
	n := 0
	for _, arg := range args {
		files, err := expand(arg)
		if err != nil {
			return nil, 0, err
		}
		for _, f := range files {
			data, err := a.readInput(cmd.Context(), f)
			if err != nil {
				return nil, 0, err
			}
			docs, ps := desired.Decoder{Policy: policy}.Decode(f.path, data)
			a.noteForeign(f.path, docs)
			problems = append(problems, ps...)
			for i := range docs {
				if docs[i].Foreign == "" {
					n++
				}
			}
		}
	}
	return problems, n, nil
}
