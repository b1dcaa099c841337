// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/programs"
	"sandboxctl.dev/cmd/sandboxctl/show"
)

func (a *app) versionCommand() *cobra.Command {
	var output string
	var beside programs.Flags
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of sandboxctl and of the programs beside it",
		Example: "  sandboxctl version -o json",
		Args:    exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := exit.Format(output, "json"); err != nil {
				return err
			}
			if output == "json" {
				return show.JSON(a.Stdout, versions(cmd.Context(), &beside))
			}
			// Before the others are asked: how soon this line is there is how soon this
			// program starts (bench).
			fmt.Fprintf(a.Stdout, "sandboxctl %s (%s)\n", entry.Version(), runtime.Version())
			sentry, gofer, image := beside.Check(cmd.Context())
			fmt.Fprintf(a.Stdout, "sentry     %s\n", &sentry)
			fmt.Fprintf(a.Stdout, "gofer      %s\n", &gofer)
			fmt.Fprintf(a.Stdout, "image      %s\n", &image)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	beside.Register(cmd.Flags())
	return cmd
}

// versionInfo is what `version -o json` prints.
type versionInfo struct {
	Version     string `json:"version"`
	Go          string `json:"go"`
	GVisor      string `json:"gvisor,omitempty"`
	Sentry      string `json:"sentry,omitempty"`
	SentryError string `json:"sentryError,omitempty"`
	Gofer       string `json:"gofer,omitempty"`
	GoferError  string `json:"goferError,omitempty"`
	Image       string `json:"image,omitempty"`
	ImageError  string `json:"imageError,omitempty"`
}

func versions(ctx context.Context, beside *programs.Flags) versionInfo {
	sentry, gofer, image := beside.Check(ctx)
	v := versionInfo{Version: entry.Version(), Go: runtime.Version(), GVisor: sentry.GVisor, Sentry: sentry.Path, Gofer: gofer.Path, Image: image.Path}
	if sentry.Err != nil {
		v.SentryError = sentry.Err.Error()
	}
	if gofer.Err != nil {
		v.GoferError = gofer.Err.Error()
	}
	if image.Err != nil {
		v.ImageError = image.Err.Error()
	}
	return v
}
