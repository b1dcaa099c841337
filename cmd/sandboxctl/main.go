// SPDX-License-Identifier: Apache-2.0

// Command sandboxctl keeps gVisor sandboxes on this host converged with YAML
// manifests in a directory.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/guest"
)

func main() {
	if os.Args[0] == guest.Argv0 {
		os.Exit(guest.Main(context.Background(), os.Args))
	}
	ctx, stop := interruptible()
	defer stop()
	go func() {
		// A second signal is not waited for: the default action ends us.
		<-ctx.Done()
		stop()
	}()
	args := os.Args[1:]
	if ocicmd.IsRuntime(os.Args[0]) {
		args = append([]string{ocicmd.Verb}, args...)
	}
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(a.run(ctx, args))
}

// interruptible returns a context that SIGINT and SIGTERM end. Those that the
// caller of this program has it ignore stay ignored.
func interruptible() (context.Context, func()) {
	var signals []os.Signal
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	if len(signals) == 0 {
		return context.WithCancel(context.Background()) // NotifyContext would take none for all
	}
	return signal.NotifyContext(context.Background(), signals...)
}

// run runs one command line and returns the exit code. It is the only place
// that prints errors, but for those of an OCI runtime.
func (a *app) run(ctx context.Context, args []string) int {
	return a.execute(ctx, a.rootCommand(a.alone(args)...), args)
}

func (a *app) execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := checkVerb(root, args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if err == nil {
		return exit.OK
	}
	if cmd.Name() == ocicmd.Verb || cmd.HasParent() && cmd.Parent().Name() == ocicmd.Verb {
		return a.oci.Failed(cmd, err)
	}
	code := exit.Failure
	if e, ok := errors.AsType[*exit.Error](err); ok {
		code = e.Code
		if e.Err == nil {
			return code
		}
	}
	fmt.Fprintf(a.stderr, "sandboxctl: %s\n", show.CleanLines(err.Error()))
	if code == exit.Usage {
		fmt.Fprintf(a.stderr, "See `%s --help`.\n", cmd.CommandPath())
	}
	return code
}
