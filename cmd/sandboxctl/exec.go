// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/wire"
)

type execFlags struct {
	interactive bool
	tty         bool
	user        string
	workdir     string
	env         []string
}

// Exit codes of exec for a command that did not start, as shells have them.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

func (a *app) execCommand() *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:                   "exec [-it] NAME -- COMMAND [ARG]...",
		DisableFlagsInUseLine: true,
		Short:                 "Run a command in a sandbox",
		Long: `Run a command in a running sandbox, as the application's user, in its directory
and with its environment unless told otherwise. The exit code is the command's;
126 and 127 mean that it could not be started or found, 128+N that signal N ended
it.`,
		Example: `  sandboxctl exec web -- cat /proc/version
  sandboxctl exec -it web -- sh
  sandboxctl exec --user 33:33 -e DEBUG=1 web -- ./check`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("expected NAME -- COMMAND [ARG]...")
			}
			return nil
		},
		ValidArgsFunction: a.completeNames,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.exec(cmd.Context(), args[0], args[1:], &f) },
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	fl.BoolVarP(&f.interactive, "stdin", "i", false, "pass standard input to the command")
	fl.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fl.StringVarP(&f.user, "user", "u", "", "UID[:GID] to run as")
	fl.StringVarP(&f.workdir, "workdir", "w", "", "directory to run in")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE to add to the environment (repeatable)")
	return cmd
}

func (a *app) exec(ctx context.Context, name string, argv []string, f *execFlags) error {
	if end := slices.Index(argv, "--"); end > 0 && a.allNames(argv[:end]) {
		return usagef("exec runs a command in one sandbox, got %d (%s %s); call it once for each", end+1, name, strings.Join(argv[:end], " "))
	}
	if argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		return usagef("expected a COMMAND after --")
	}
	if f.tty && !isTerminal(a.stdin) {
		return usagef("-t needs a terminal on standard input")
	}
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	c, rec, err := sentry.Connect(ctx, store, name)
	if err != nil {
		return err
	}
	defer c.Close()
	args, err := built.Exec(store, rec, argv)
	if err != nil {
		return err
	}
	if err := f.apply(&args); err != nil {
		return err
	}
	x := &execution{a: a, store: store, name: name, rec: rec, c: c, args: args, tty: f.tty, input: f.interactive}
	return x.run(ctx)
}

// allNames says whether there is a sandbox of each name: what is before a "--" may
// also be a command and its arguments.
func (a *app) allNames(names []string) bool {
	have, _ := a.completeMore(nil, nil, "")
	return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(have, n) })
}

// execution is one command in a sandbox that this program represents: it ends
// when the command does, and the command when it does.
type execution struct {
	a     *app
	store *actual.Store
	name  string
	rec   *actual.Record
	c     *sentry.Control
	args  wire.ExecArgs
	tty   bool
	// input passes standard input on.
	input bool
	// oci says that a client of runc's started this: errors are in the words that it
	// knows, and SIGHUP is a signal for the command like others. Without, SIGHUP ends
	// this program, and the command with it.
	oci bool
	// begun is called when the command runs, if it is set.
	begun func(pid int32) error
}

// run runs a command to its end and returns its exit code as an error.
func (x *execution) run(ctx context.Context) error {
	// Signals are for the command from here on, not for this program.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := giveUp(cancel)
	defer stop()
	var (
		status unix.WaitStatus
		err    error
	)
	if x.tty {
		status, err = x.onTerminal(ctx, cancel)
	} else {
		status, err = x.onPipes(ctx)
	}
	if err != nil {
		return x.failed(ctx, err)
	}
	return exitStatus(status)
}

// onPipes runs a command on our own streams.
func (x *execution) onPipes(ctx context.Context) (status unix.WaitStatus, err error) {
	r, err := newRelay()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.abort()) }()
	var in *os.File
	if x.input {
		in, err = r.input(x.a.stdin)
	} else {
		in, err = r.empty()
	}
	if err != nil {
		return 0, err
	}
	out, errs, err := r.outputs(x.a.stdout, x.a.stderr)
	if err != nil {
		return 0, err
	}
	// Before there is a command: a signal from here on is for it.
	signals := x.listen()
	pid, err := x.c.Execute(ctx, x.args, in, out, errs)
	if err != nil {
		return 0, err
	}
	if err := x.start(pid); err != nil {
		return 0, err
	}
	stop := x.forwardSignals(ctx, pid, signals, r.broken)
	defer stop()
	if err := r.started(); err != nil {
		return 0, err
	}
	if status, err = x.c.WaitPID(ctx, pid); err != nil {
		return 0, err
	}
	stop()
	// Nobody is left to pass them on to: they end this program, also where it can't
	// write what the command has written.
	signal.Reset(listenedTo...)
	return status, r.finish()
}

func (x *execution) start(pid int32) error {
	if x.begun == nil {
		return nil
	}
	return x.begun(pid)
}

// exitStatus is the error that makes this program end as a command did.
func exitStatus(status unix.WaitStatus) error {
	if status.Signaled() {
		return &exitError{code: 128 + int(status.Signal())}
	}
	if code := status.ExitStatus(); code != 0 {
		return &exitError{code: code}
	}
	return nil
}

func (f *execFlags) apply(args *wire.ExecArgs) error {
	if f.workdir != "" {
		args.WorkingDirectory = f.workdir
	}
	for _, e := range f.env {
		if strings.Index(e, "=") < 1 {
			return usagef("--env: expected NAME=VALUE, got %q", e)
		}
		args.Envv = append(args.Envv, e)
	}
	if f.user == "" {
		return nil
	}
	uid, gid, hasGID := strings.Cut(f.user, ":")
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return usagef("--user: expected UID[:GID] in numbers, got %q", f.user)
	}
	args.KUID, args.KGID, args.ExtraKGIDs = uint32(n), 0, nil
	if hasGID {
		if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
			return usagef("--user: expected UID[:GID] in numbers, got %q", f.user)
		}
		args.KGID = uint32(n)
	}
	if args.KUID != 0 {
		args.Capabilities.EffectiveCaps, args.Capabilities.PermittedCaps = 0, 0
	}
	return nil
}

// failed words why a command could not be started, or what became of it, and gives
// the exit code a shell would.
func (x *execution) failed(ctx context.Context, err error) error {
	if errors.Is(err, sentry.ErrClosed) {
		return x.ended(ctx)
	}
	if !x.oci {
		err = x.c.ExplainCommand(ctx, err)
	}
	return execError(x.args.Argv[0], err)
}

// ended words why the sandbox ended under a command: as its status does.
func (x *execution) ended(ctx context.Context) error {
	var exit *actual.Exit
	if x.rec != nil {
		exit = launcher.Fate(ctx, x.store, x.rec)
	}
	switch {
	case exit == nil:
		return fmt.Errorf("the sandbox ended while the command was running; see `sandboxctl describe %s`", x.name)
	case exit.Reason == actual.ReasonOOMKilled:
		// A command that the kernel kills has this exit code too.
		return &exitError{code: exit.Code, err: fmt.Errorf("out of memory, the sandbox ended while the command was running (%s): %s", exit.Reason, exit.Message)}
	}
	why := exit.Reason
	if exit.Message != "" {
		why += ": " + clean(exit.Message)
	}
	return fmt.Errorf("the sandbox ended while the command was running: %s", why)
}

// execError gives an error the exit code of a command that can't be run.
func execError(command string, err error) error {
	if e, ok := errors.AsType[*sentry.CommandError](err); ok {
		code := exitCannotRun
		if e.NotFound {
			code = exitNotFound
		}
		return &exitError{code: code, err: e}
	}
	var remote *sentry.RemoteError
	if !errors.As(err, &remote) {
		return err
	}
	code := exitCannotRun
	if remote.NotFound() {
		code = exitNotFound
	}
	return &exitError{code: code, err: fmt.Errorf("exec %s: %s", command, clean(remote.Message))}
}
