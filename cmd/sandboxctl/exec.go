// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/console"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher"
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
	c, rec, err := launcher.Connect(ctx, store, name)
	if err != nil {
		return err
	}
	defer c.Close()
	args, err := launcher.ExecArgs(rec, argv)
	if err != nil {
		return err
	}
	if err := f.apply(&args); err != nil {
		return err
	}
	return a.execute(ctx, store, name, c, args, f.tty, f.interactive, func(int32) error { return nil })
}

// execute runs a command to its end and returns its exit code as an error. It
// calls begun when the command runs.
func (a *app) execute(ctx context.Context, store *actual.Store, name string, c *launcher.Control, args wire.ExecArgs, tty, interactive bool, begun func(pid int32) error) error {
	// Signals are for the command from here on, not for this program.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer a.giveUp(cancel)()
	forward := func(ctx context.Context, pid int32) (stop func(), err error) {
		if err := begun(pid); err != nil {
			return nil, err
		}
		return a.forwardSignals(ctx, store, name, pid, tty), nil
	}
	var (
		status unix.WaitStatus
		err    error
	)
	if tty {
		status, err = a.execTTY(ctx, store, name, c, args, forward)
	} else {
		status, err = a.execPlain(ctx, c, args, interactive, forward)
	}
	if err != nil {
		return execError(args.Argv[0], err)
	}
	return exitStatus(status)
}

// impatience is how many INT or TERM in a row end this program and not only the
// command: a sentry that does not answer must not keep its caller.
const impatience = 3

// giveUp cancels when somebody has had enough.
func (a *app) giveUp(cancel context.CancelCauseFunc) (stop func()) {
	ch := make(chan os.Signal, 2*impatience)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM)
	go func() {
		n := 0
		for range ch {
			if n++; n == impatience {
				cancel(fmt.Errorf("interrupted %d times; the command may still run", n))
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
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

// execError gives a command that could not be started the exit code a shell
// would.
func execError(command string, err error) error {
	var remote *launcher.RemoteError
	if !errors.As(err, &remote) {
		return err
	}
	code := exitCannotRun
	if strings.Contains(remote.Message, "no such file or directory") || strings.Contains(remote.Message, "not found") {
		code = exitNotFound
	}
	return &exitError{code: code, err: fmt.Errorf("exec %s: %s", command, clean(remote.Message))}
}

// execPlain runs a command on our own streams.
func (a *app) execPlain(ctx context.Context, c *launcher.Control, args wire.ExecArgs, interactive bool, forward func(context.Context, int32) (func(), error)) (status unix.WaitStatus, err error) {
	var r relay
	defer func() { err = errors.Join(err, r.abort()) }()
	var in *os.File
	if interactive {
		in, err = r.input(a.stdin)
	} else {
		in, err = r.open(os.DevNull)
	}
	if err != nil {
		return 0, err
	}
	out, err := r.output(a.stdout)
	if err != nil {
		return 0, err
	}
	errs, err := r.output(a.stderr)
	if err != nil {
		return 0, err
	}
	pid, err := c.Execute(ctx, args, in, out, errs)
	if err != nil {
		return 0, err
	}
	stop, err := forward(ctx, pid)
	if err != nil {
		return 0, err
	}
	defer stop()
	if err := r.started(); err != nil {
		return 0, err
	}
	if status, err = c.WaitPID(ctx, pid); err != nil {
		return 0, err
	}
	return status, r.finish()
}

// execTTY runs a command on a terminal of its own, connected to ours.
func (a *app) execTTY(ctx context.Context, store *actual.Store, name string, c *launcher.Control, args wire.ExecArgs, forward func(context.Context, int32) (func(), error)) (status unix.WaitStatus, err error) {
	args.StdioIsPty = true
	if os.Getenv("TERM") != "" {
		args.Envv = append(args.Envv, "TERM="+os.Getenv("TERM"))
	}
	in, ok := a.stdin.(*os.File)
	if !ok {
		return 0, errors.New("standard input is not a file")
	}
	ours, err := console.ConsoleFromFile(in)
	if err != nil {
		return 0, fmt.Errorf("open terminal: %w", err)
	}
	pty, path, err := console.NewPty()
	if err != nil {
		return 0, fmt.Errorf("create terminal: %w", err)
	}
	defer pty.Close()
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, fmt.Errorf("open terminal: %w", err)
	}
	if err := matchTerminal(pty, ours); err != nil {
		return 0, errors.Join(err, tty.Close())
	}
	pid, err := c.Execute(ctx, args, tty, tty, tty)
	// The sandbox has it now: when it closes it, ours reads the end.
	if err = errors.Join(err, tty.Close()); err != nil {
		return 0, err
	}
	stop, err := forward(ctx, pid)
	if err != nil {
		return 0, err
	}
	defer stop()
	if err := ours.SetRaw(); err != nil {
		return 0, fmt.Errorf("set terminal raw: %w", err)
	}
	defer func() {
		if rerr := ours.Reset(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("reset terminal: %w", rerr))
		}
	}()
	defer a.resize(ours, pty)()

	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(a.stdout, pty) // ends with an error when the sandbox closes it
	}()
	keys := &keyboard{pty: pty, signal: func(sig unix.Signal) { a.signalForeground(ctx, store, name, pid, sig) }}
	go func() { _, _ = io.Copy(keys, in) }() // ends with this program
	status, err = c.WaitPID(ctx, pid)
	select {
	case <-shown:
	case <-time.After(lastOutput):
	}
	return status, err
}

// matchTerminal makes a terminal what goes with ours: of its size, and with ends of
// lines as they are, as ours turns them into those of a terminal also when it is raw.
func matchTerminal(pty, ours console.Console) error {
	if err := pty.ResizeFrom(ours); err != nil {
		return fmt.Errorf("set size of terminal: %w", err)
	}
	if err := console.ClearONLCR(pty.Fd()); err != nil {
		return fmt.Errorf("set up terminal: %w", err)
	}
	return nil
}

// lastOutput is how long the rest of a command's output is waited for. What it
// left in the background may keep its terminal open for ever.
const lastOutput = 500 * time.Millisecond

// keyboard passes what is typed to the terminal of a command. The kernel would
// turn keys such as Ctrl-C into signals for the processes that have it as their
// terminal, but those are not its own: they are in the sandbox. So this does,
// under the same conditions.
type keyboard struct {
	pty    console.Console
	signal func(unix.Signal)
}

func (k *keyboard) Write(b []byte) (int, error) {
	n, err := k.pty.Write(b)
	// Those of the command: an editor turns them off.
	t, terr := unix.IoctlGetTermios(int(k.pty.Fd()), unix.TCGETS)
	if terr != nil || t.Lflag&unix.ISIG == 0 {
		return n, err
	}
	for _, c := range b[:n] {
		switch c {
		case t.Cc[unix.VINTR]:
			k.signal(unix.SIGINT)
		case t.Cc[unix.VQUIT]:
			k.signal(unix.SIGQUIT)
		case t.Cc[unix.VSUSP]:
			k.signal(unix.SIGTSTP)
		}
	}
	return n, err
}

// signalForeground signals what a command has in the foreground of its
// terminal, over a connection of its own: the other one waits for the command.
func (a *app) signalForeground(ctx context.Context, store *actual.Store, name string, pid int32, sig unix.Signal) {
	c, _, err := launcher.Connect(ctx, store, name)
	if err != nil {
		return // it is over
	}
	_, _ = c.SignalForeground(ctx, sig, pid), c.Close() // the command may have ended meanwhile
}

// resize keeps the size of the command's terminal that of ours.
func (a *app) resize(ours, pty console.Console) (stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGWINCH)
	go func() {
		for range ch {
			_ = pty.ResizeFrom(ours) // the next change has another chance
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
}

// forwardSignals passes the signals this program gets to the command. With a
// terminal only a change of its size is a signal; keys are input.
func (a *app) forwardSignals(ctx context.Context, store *actual.Store, name string, pid int32, tty bool) (stop func()) {
	ch := make(chan os.Signal, 8)
	if tty {
		signal.Notify(ch, unix.SIGWINCH)
	} else {
		signal.Notify(ch, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	}
	go func() {
		for s := range ch {
			// A connection of its own: the other one waits for the command.
			c, _, err := launcher.Connect(ctx, store, name)
			if err != nil {
				return // it is over
			}
			if tty {
				err = c.SignalForeground(ctx, s.(unix.Signal), pid)
			} else {
				err = c.SignalPID(ctx, s.(unix.Signal), pid)
			}
			_, _ = err, c.Close() // the command may have ended meanwhile
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
}
