// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/show"
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
				return exit.Usagef("expected NAME -- COMMAND [ARG]...")
			}
			return nil
		},
		ValidArgsFunction: a.CompleteNames,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.exec(cmd.Context(), args[0], args[1:], &f) },
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	f.register(fl)
	return cmd
}

func (f *execFlags) register(fl *pflag.FlagSet) {
	fl.BoolVarP(&f.interactive, "stdin", "i", false, "pass standard input to the command")
	fl.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fl.StringVarP(&f.user, "user", "u", "", "UID[:GID] to run as")
	fl.StringVarP(&f.workdir, "workdir", "w", "", "directory to run in")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE to add to the environment (repeatable)")
}

func (a *app) exec(ctx context.Context, name string, argv []string, f *execFlags) error {
	if end := slices.Index(argv, "--"); end > 0 && a.allNames(argv[:end]) {
		return exit.Usagef("exec runs a command in one sandbox, got %d (%s %s); call it once for each", end+1, name, strings.Join(argv[:end], " "))
	}
	if argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		return exit.Usagef("expected a COMMAND after --")
	}
	return a.execIn(ctx, &target{name: name}, argv, f)
}

// target is where a command runs.
type target struct {
	name string
	// seen is the run of the sandbox that is meant, nil if the one that runs is.
	seen *oneoff.Incarnation
	// began is called when the command runs, if it is set.
	began func(ctx context.Context, pid int32) error
}

// connect connects with the sandbox that is meant, and with no later one of its name.
func (a *app) connect(ctx context.Context, store *actual.Store, to *target) (*sentry.Control, *actual.Record, error) {
	control, rec, err := a.Connect(ctx, store, to.name)
	if err == nil && to.seen != nil && *to.seen != oneoff.IncarnationOf(rec) {
		return nil, nil, errors.Join(fmt.Errorf("sandbox %s was replaced or restarted meanwhile", to.name), control.Close())
	}
	return control, rec, err
}

// execIn runs a command in a sandbox, whatever its words are.
func (a *app) execIn(ctx context.Context, to *target, argv []string, f *execFlags) error {
	if f.tty && !show.IsTerminal(a.Stdin) {
		return exit.Usagef("-t needs a terminal on standard input")
	}
	store, err := a.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	control, rec, err := a.connect(ctx, store, to)
	if err != nil {
		return err
	}
	defer control.Close()
	control.Prepare(ctx)
	args, private, err := built.Exec(store, rec, argv)
	if err == nil && private {
		args.Envv, err = control.Environment(ctx)
	}
	if err != nil {
		return err
	}
	if err := f.apply(&args); err != nil {
		return err
	}
	args.StdioIsPty = f.tty
	c := &attach.Command{Store: store, Name: to.name, Record: rec, Control: control, Args: args, Began: to.began}
	return c.Run(ctx, a.streams(), f.interactive)
}

// allNames says whether there is a sandbox of each name: what is before a "--" may
// also be a command and its arguments.
func (a *app) allNames(names []string) bool {
	have, _ := a.CompleteMore(nil, nil, "")
	return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(have, n) })
}

func (f *execFlags) apply(args *wire.ExecArgs) error {
	if f.workdir != "" {
		args.WorkingDirectory = f.workdir
	}
	for _, e := range f.env {
		if strings.Index(e, "=") < 1 {
			return exit.Usagef("--env: expected NAME=VALUE, got %q", e)
		}
		args.Envv = append(args.Envv, e)
	}
	if f.user == "" {
		return nil
	}
	uid, gid, hasGID := strings.Cut(f.user, ":")
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return exit.Usagef("--user: expected UID[:GID] in numbers, got %q", f.user)
	}
	args.KUID, args.KGID, args.ExtraKGIDs = uint32(n), 0, nil
	if hasGID {
		if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
			return exit.Usagef("--user: expected UID[:GID] in numbers, got %q", f.user)
		}
		args.KGID = uint32(n)
	}
	if args.KUID != 0 {
		args.Capabilities.EffectiveCaps, args.Capabilities.PermittedCaps = 0, 0
	}
	return nil
}
