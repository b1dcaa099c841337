// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/claims"
	"sandboxctl.dev/cmd/sandboxctl/cp"
	"sandboxctl.dev/cmd/sandboxctl/daemon"
	"sandboxctl.dev/cmd/sandboxctl/doctor"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/forward"
	"sandboxctl.dev/cmd/sandboxctl/history"
	"sandboxctl.dev/cmd/sandboxctl/manifests"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
	"sandboxctl.dev/cmd/sandboxctl/snapshots"
	"sandboxctl.dev/cmd/sandboxctl/volumes"
	"sandboxctl.dev/cmd/sandboxctl/world"
)

// app is one run of the program: what its verbs are for, as its global flags say.
type app struct {
	world.Host
	// oci are the verbs of the OCI runtime.
	oci *ocicmd.Verbs
}

func (a *app) streams() attach.Streams {
	return attach.Streams{In: a.Stdin, Out: a.Stdout, Err: a.Stderr}
}

// flags are those of every verb.
func (a *app) flags() entry.Flags {
	return entry.Flags{Manifests: &a.Manifests, State: &a.State, Policy: &a.Policy}
}

const rootLong = `sandboxctl keeps gVisor sandboxes on this host converged with YAML manifests in
a directory: drop a manifest there and a sandbox runs, edit it and the sandbox
is replaced, remove it and the sandbox goes away.

The daemon does the work; every other verb reads the same files and computes the
same plan, or talks to the sandbox itself, and needs no daemon, except for run.

Each flag can also be set by an environment variable: --manifests by
SANDBOXCTL_MANIFESTS, and so on.`

// alone is the verb of a command line if that is one which scripts call again and again,
// and nothing stands before it. To build all the others takes longer than a `get`.
func (a *app) alone(args []string) []*cobra.Command {
	if len(args) == 0 {
		return nil
	}
	switch args[0] {
	case "get", "ls", "list":
		return []*cobra.Command{a.getCommand()}
	case "exec":
		return []*cobra.Command{a.execCommand()}
	case "run":
		return []*cobra.Command{a.runCommand()}
	case "logs":
		return []*cobra.Command{history.LogsCommand(&a.Host)}
	case "ps":
		return []*cobra.Command{a.psCommand()}
	case "wait":
		return []*cobra.Command{await.Command(&a.Host)}
	case "version":
		return []*cobra.Command{a.versionCommand()}
	case "image":
		return []*cobra.Command{a.imageCommand()}
	}
	return nil
}

// rootCommand has the verbs given, or all.
func (a *app) rootCommand(verbs ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   "sandboxctl",
		Short: "Keep gVisor sandboxes converged with YAML manifests",
		Long:  rootLong,
		Example: `  sandboxctl daemon                       # converge /etc/sandboxctl/manifests, for ever
  sandboxctl apply -f web.yaml --wait     # put a manifest there and wait until it runs
  sandboxctl get                          # what runs
  sandboxctl exec -it web -- sh           # a shell in a sandbox
  sandboxctl run -i -- python3 - <code.py # one command in a sandbox of its own`,
		SilenceUsage:               true,
		SilenceErrors:              true,
		Args:                       exit.VerbArgs,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := entry.FromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if err := a.checkRoot(cmd, os.Geteuid()); err != nil {
				return err
			}
			return a.flags().Absolute()
		},
	}
	root.SetFlagErrorFunc(entry.FlagError)
	a.flags().Register(root)
	if len(verbs) > 0 {
		root.CompletionOptions.DisableDefaultCmd = true
		root.AddCommand(verbs...)
		return root
	}
	a.addAll(root)
	return root
}

// addAll adds all verbs, and what is about the program as a whole.
func (a *app) addAll(root *cobra.Command) {
	a.oci = ocicmd.New(a.streams(), entry.Version())
	root.Version = entry.Version()
	root.SetVersionTemplate("sandboxctl {{.Version}}\n")
	root.AddCommand(
		daemon.Command(&a.Host, entry.Version()), doctor.Command(&a.Host), await.Command(&a.Host),
		a.getCommand(), a.describeCommand(), a.planCommand(), a.approveCommand(), a.psCommand(), a.statsCommand(),
		a.execCommand(), a.runCommand(), a.killCommand(), a.restartCommand(), a.repairCommand(),
		a.oci.Command(), a.versionCommand(), a.imageCommand(), volumes.Command(&a.Host), forward.Command(&a.Host), cp.Command(&a.Host), claims.Command(&a.Host),
	)
	root.AddCommand(manifests.Commands(&a.Host)...)
	root.AddCommand(snapshots.Commands(&a.Host)...)
	root.AddCommand(history.Commands(&a.Host)...)
	root.AddCommand(a.pointers()...)
	entry.CompleteOutputs(root)
	a.CompleteSelectors(root)
	root.InitDefaultCompletionCmd()
	if cmd, _, err := root.Find([]string{"completion"}); err == nil {
		cmd.Example = `  source <(sandboxctl completion bash)
  sandboxctl completion bash >/etc/bash_completion.d/sandboxctl`
	}
}
