// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/programs"
	"sandboxctl.dev/cmd/sandboxctl/show"
)

// programVersion is the version this program was built as.
var programVersion = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = "devel+" + s.Value[:min(12, len(s.Value))]
		}
	}
	if v == "" {
		v = "(devel)"
	}
	return v
})

func (a *app) versionCommand() *cobra.Command {
	var output string
	var beside programs.Flags
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of sandboxctl and of the programs beside it",
		Example: "  sandboxctl version -o json",
		Args:    exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch output {
			case "json":
				return show.JSON(a.stdout, versions(cmd.Context(), &beside))
			case "":
				// Before the others are asked: how soon this line is there is how soon
				// this program starts (bench).
				fmt.Fprintf(a.stdout, "sandboxctl %s (%s)\n", programVersion(), runtime.Version())
				sentry, gofer := beside.Check(cmd.Context())
				fmt.Fprintf(a.stdout, "sentry     %s\n", &sentry)
				fmt.Fprintf(a.stdout, "gofer      %s\n", &gofer)
				return nil
			}
			return exit.Usagef("-o: expected json, got %q", output)
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
}

func versions(ctx context.Context, beside *programs.Flags) versionInfo {
	sentry, gofer := beside.Check(ctx)
	v := versionInfo{Version: programVersion(), Go: runtime.Version(), GVisor: sentry.GVisor, Sentry: sentry.Path, Gofer: gofer.Path}
	if sentry.Err != nil {
		v.SentryError = sentry.Err.Error()
	}
	if gofer.Err != nil {
		v.GoferError = gofer.Err.Error()
	}
	return v
}
