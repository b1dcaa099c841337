// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
)

// Exit codes of diff, as kubectl's.
const (
	exitDiffers   = 1
	exitDiffError = 2
)

func (a *app) diffCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show what apply would change",
		Long: `Show how manifests differ from those in the manifests directory, with defaults
filled in on both sides. A warning tells of single files that are volumes and
were replaced on the host since the sandbox was started. Exit code 0: no difference, 1: differences, 2: error.`,
		Example: `  sandboxctl diff -f web.yaml`,
		Args:    onlyFiles,
		RunE: func(cmd *cobra.Command, _ []string) error {
			differs, err := a.diff(cmd.Context(), files)
			if err != nil {
				return &exit.Error{Code: exitDiffError, Err: err}
			}
			if differs {
				return &exit.Error{Code: exitDiffers}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory or - for standard input (repeatable)")
	return cmd
}

func (a *app) diff(ctx context.Context, files []string) (differs bool, err error) {
	policy, err := a.hostPolicy()
	if err != nil {
		return false, err
	}
	ms, err := a.readManifests(ctx, files, policy)
	if err != nil {
		return false, err
	}
	w, err := a.once(ctx)
	if err != nil {
		return false, err
	}
	for i := range ms {
		name := ms[i].name()
		var old []byte
		from := "(none)"
		if e := w.in.Desired.Lookup(name); e != nil {
			from = e.Source.File
			if old, err = canonicalYAML(e.Sandbox); err != nil {
				return false, err
			}
		}
		for _, f := range w.replacedFiles(name) {
			fmt.Fprintf(a.stderr, "warning: %s: %s\n", show.Clean(name), show.Clean(f))
		}
		now, err := canonicalYAML(ms[i].Sandbox)
		if err != nil {
			return false, err
		}
		if d := diff.Diff(name+" in "+show.Clean(from), old, name+" in "+show.Clean(ms[i].Position.File), now); len(d) > 0 {
			differs = true
			if _, err := a.stdout.Write(d); err != nil {
				return differs, err
			}
		}
	}
	return differs, nil
}

func canonicalYAML(sb *desired.Sandbox) ([]byte, error) {
	b, err := desired.Canonical(sb)
	if err != nil {
		return nil, err
	}
	y, err := yaml.JSONToYAML(b)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return y, nil
}
