// SPDX-License-Identifier: Apache-2.0

// Command sandboxctl keeps gVisor sandboxes on this host converged with YAML
// manifests in a directory.
package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/launcher/guest"
)

func main() {
	if os.Args[0] == guest.Argv0 {
		os.Exit(guest.Main(context.Background(), os.Args))
	}
	ctx, stop := entry.Interruptible()
	defer stop()
	args := os.Args[1:]
	if ocicmd.IsRuntime(os.Args[0]) {
		args = append([]string{ocicmd.Verb}, args...)
	}
	a := &app{Host: world.Host{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}}
	os.Exit(a.run(ctx, args))
}

// run runs one command line and returns the exit code. It is the only place
// that prints errors, but for those of an OCI runtime.
func (a *app) run(ctx context.Context, args []string) int {
	return a.execute(ctx, a.rootCommand(a.alone(args)...), args)
}

func (a *app) execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	cmd, err := entry.CheckVerb(root, args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if err == nil {
		return exit.OK
	}
	if cmd.Name() == ocicmd.Verb || cmd.HasParent() && cmd.Parent().Name() == ocicmd.Verb {
		return a.oci.Failed(cmd, err)
	}
	return entry.Failed(a.Stderr, cmd, err)
}
