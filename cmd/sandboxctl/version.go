// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"sandboxctl.dev/launcher"
)

// programVersion is the version this program was built as.
func programVersion() string {
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
}

func (a *app) versionCommand() *cobra.Command {
	var output, sentry string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print versions",
		Example: "  sandboxctl version -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				GVisor  string `json:"gvisor,omitempty"`
				Sentry  string `json:"sentry,omitempty"`
				Error   string `json:"sentryError,omitempty"`
			}{Version: programVersion(), Go: runtime.Version()}
			path, err := launcher.FindSentry(sentry)
			if err == nil {
				v.Sentry = path
				v.GVisor, err = launcher.CheckSentry(cmd.Context(), path)
			}
			if err != nil {
				v.Error = err.Error()
			}
			switch output {
			case "json":
				return printJSON(a.stdout, v)
			case "":
				fmt.Fprintf(a.stdout, "sandboxctl %s (%s)\n", v.Version, v.Go)
				if v.Error != "" {
					fmt.Fprintf(a.stdout, "sentry     not usable: %s\n", v.Error)
					return nil
				}
				fmt.Fprintf(a.stdout, "sentry     gVisor %s, %s\n", v.GVisor, v.Sentry)
				return nil
			}
			return usagef("-o: expected json, got %q", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	cmd.Flags().StringVar(&sentry, "sentry", "", "sentry binary (default: sandboxctl-sentry beside this program)")
	return cmd
}
