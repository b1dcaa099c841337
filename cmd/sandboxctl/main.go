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

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/guest"
)

// Exit codes. diff and exec have their own meanings; see their help.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitTimeout = 3 // of wait
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
	if isOCI(os.Args[0]) {
		args = append([]string{ociVerb}, args...)
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

// exitError carries an exit code. A nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is an error in how the program was called.
func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// run runs one command line and returns the exit code. It is the only place
// that prints errors, but for those of an OCI runtime.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := checkVerb(root, args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if err == nil {
		return exitOK
	}
	if cmd.Name() == ociVerb || cmd.HasParent() && cmd.Parent().Name() == ociVerb {
		return a.ociFailed(cmd, err)
	}
	code := exitFailure
	if e, ok := errors.AsType[*exitError](err); ok {
		code = e.code
		if e.err == nil {
			return code
		}
	}
	fmt.Fprintf(a.stderr, "sandboxctl: %s\n", cleanLines(err.Error()))
	if code == exitUsage {
		fmt.Fprintf(a.stderr, "See `%s --help`.\n", cmd.CommandPath())
	}
	return code
}
