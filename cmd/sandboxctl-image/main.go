// SPDX-License-Identifier: Apache-2.0

// Command sandboxctl-image pulls, imports and manages images. `sandboxctl image` executes
// it with its own arguments, and the daemon starts it for each pull.
//
// It is a program of its own so that neither the daemon, which is root and has all state,
// parses what strangers have written, nor a verb starts later for a client of registries.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl-image/images"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/puller"
	"sandboxctl.dev/launcher/wire"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	// What only sandboxctl says.
	if len(args) > 0 {
		switch args[0] {
		case "version":
			fmt.Println(wire.Handshake(wire.ImageName, wire.ImageProtocol, entry.Version()))
			return exit.OK
		case image.PullVerb:
			return pullForDaemon(args[1:], puller.Options{UserAgent: userAgent()})
		case "registries":
			return registries(args[1:])
		}
	}
	ctx, stop := entry.Interruptible()
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	cmd, err := entry.CheckVerb(root, args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if err != nil {
		return entry.Failed(os.Stderr, cmd, err)
	}
	return exit.OK
}

// userAgent is how the program calls itself to registries.
func userAgent() string { return "sandboxctl/" + entry.Version() }

// rootCommand has the global flags of sandboxctl, whose arguments these are.
func rootCommand() *cobra.Command {
	v := &images.Verbs{Stdout: os.Stdout, Stderr: os.Stderr, UserAgent: userAgent()}
	var manifests, policy string
	flags := entry.Flags{Manifests: &manifests, State: &v.State, Policy: &policy}
	root := &cobra.Command{
		Use:           "sandboxctl",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          exit.VerbArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := entry.FromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if needsRoot(cmd) && os.Geteuid() != 0 && flags.Default() {
				return entry.NotRoot(cmd.Name(), os.Geteuid())
			}
			return flags.Absolute()
		},
	}
	root.SetFlagErrorFunc(entry.FlagError)
	flags.Register(root)
	root.AddCommand(v.Command())
	return root
}

// needsRoot says whether a verb is one of image.
func needsRoot(cmd *cobra.Command) bool { return cmd.HasParent() && cmd.Parent().Name() == "image" }

// registries checks a file that says how registries are spoken to, for doctor.
func registries(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "expected the path of one file")
		return exit.Usage
	}
	hosts, err := puller.LoadRegistries(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exit.Failure
	}
	fmt.Println(len(hosts))
	return exit.OK
}
