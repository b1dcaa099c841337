// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
	"sandboxctl.dev/desired/hostpolicy"
)

// app is one run of the program: its streams and what its global flags say.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	manifests string
	state     string
	policy    string // "" if not given
	// oci are the verbs of the OCI runtime.
	oci *ocicmd.Verbs
}

func (a *app) streams() attach.Streams {
	return attach.Streams{In: a.stdin, Out: a.stdout, Err: a.stderr}
}

const rootLong = `sandboxctl keeps gVisor sandboxes on this host converged with YAML manifests in
a directory: drop a manifest there and a sandbox runs, edit it and the sandbox
is replaced, remove it and the sandbox goes away.

The daemon does the work; every other verb reads the same files and computes the
same plan, or talks to the sandbox itself, and needs no daemon.

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
	case "logs":
		return []*cobra.Command{a.logsCommand()}
	case "ps":
		return []*cobra.Command{a.psCommand()}
	case "wait":
		return []*cobra.Command{a.waitCommand()}
	case "version":
		return []*cobra.Command{a.versionCommand()}
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
  sandboxctl exec -it web -- sh           # a shell in a sandbox`,
		SilenceUsage:               true,
		SilenceErrors:              true,
		Args:                       exit.VerbArgs,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if err := a.checkRoot(cmd, os.Geteuid()); err != nil {
				return err
			}
			return a.absolute()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exit.Error{Code: exit.Usage, Err: err} })
	root.PersistentFlags().StringVar(&a.manifests, "manifests", defaultManifests, "directory of manifests")
	root.PersistentFlags().StringVar(&a.state, "state", defaultState, "directory of state")
	root.PersistentFlags().StringVar(&a.policy, "policy", "", "host policy: what manifests may ask for (default: the daemon's, "+hostpolicy.DefaultPath+" if there is one)")
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
	a.oci = ocicmd.New(a.streams(), programVersion())
	root.Version = programVersion()
	root.SetVersionTemplate("sandboxctl {{.Version}}\n")
	root.AddCommand(
		a.daemonCommand(), a.applyCommand(), a.deleteCommand(), a.diffCommand(), a.planCommand(), a.approveCommand(),
		a.validateCommand(), a.getCommand(), a.describeCommand(), a.logsCommand(), a.execCommand(), a.psCommand(),
		a.statsCommand(), a.eventsCommand(), a.killCommand(), a.restartCommand(), a.waitCommand(), a.doctorCommand(),
		a.checkpointCommand(), a.restoreCommand(), a.repairCommand(),
		a.stopCommand(), a.startCommand(), a.editCommand(),
		a.oci.Command(), a.versionCommand(),
	)
	root.AddCommand(a.pointers()...)
	completeOutputs(root)
	a.completeSelectors(root)
	root.InitDefaultCompletionCmd()
	if cmd, _, err := root.Find([]string{"completion"}); err == nil {
		cmd.Example = `  source <(sandboxctl completion bash)
  sandboxctl completion bash >/etc/bash_completion.d/sandboxctl`
	}
}

// absolute makes the paths what they are for every process, wherever
// it was started: the daemon's record of them is compared with ours.
func (a *app) absolute() error {
	for _, d := range []struct {
		flag string
		path *string
	}{{"manifests", &a.manifests}, {"state", &a.state}, {"policy", &a.policy}} {
		if *d.path == "" && d.flag == "policy" {
			continue
		}
		if *d.path == "" {
			return exit.Usagef("--%s (SANDBOXCTL_%s) is empty; expected a directory", d.flag, strings.ToUpper(d.flag))
		}
		abs, err := filepath.Abs(*d.path)
		if err != nil {
			return fmt.Errorf("find directory %s: %w", *d.path, err)
		}
		*d.path = abs
	}
	return nil
}

// Where the manifests and the state of a host are.
const (
	defaultManifests = "/etc/sandboxctl/manifests"
	defaultState     = "/var/lib/sandboxctl"
)

// fromEnvironment sets every flag that was not given from its variable.
func fromEnvironment(flags *pflag.FlagSet) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "SANDBOXCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v, ok := os.LookupEnv(name)
		if !ok || f.Changed || err != nil || f.Name == "help" {
			return
		}
		if serr := f.Value.Set(v); serr != nil {
			err = exit.Usagef("%s: %v", name, serr)
		}
	})
	return err
}

// onlyFiles is exit.NoArgs of a verb whose files are named by -f.
func onlyFiles(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && !cmd.Flags().Changed("filename") {
		return exit.Usagef("unexpected argument %q; did you mean -f %s?", args[0], args[0])
	}
	return exit.NoArgs(cmd, args)
}

// checkOutput checks what -o was given; nothing stands for the table.
func checkOutput(output string, formats ...string) error {
	if output == "" || slices.Contains(formats, output) {
		return nil
	}
	list := strings.Join(formats[:len(formats)-1], ", ")
	if list != "" {
		list += " or "
	}
	return exit.Usagef("-o: expected %s, got %q", list+formats[len(formats)-1], output)
}
