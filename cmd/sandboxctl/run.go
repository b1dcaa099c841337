// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/claims"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/manifests"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/show"
)

// Exit codes of run beside those of exec: as timeout(1) and docker run have them.
const (
	exitTimedOut = 124
	exitOurs     = 125
)

const (
	// startTimeout is how long the sandbox may take to start: an image may have to be fetched.
	startTimeout = 10 * time.Minute
	// removalTimeout is how long run waits until the sandbox is gone.
	removalTimeout = 30 * time.Second
	// killTimeout is how long run tries to end the sandbox itself, before it leaves that to the
	// daemon.
	killTimeout = 5 * time.Second
)

type runFlags struct {
	execFlags
	oneoff.Options
	remove bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:                   "run [-it] [--image REF | --root DIR | --from POOL] -- COMMAND [ARG]...",
		DisableFlagsInUseLine: true,
		Short:                 "Run one command in a sandbox of its own",
		Long: `Run one command in a sandbox that is made for it and removed afterwards. The root is
a read-only view of the host's programs, an --image, or a --root directory. What the
command writes there is kept in memory and gone with the sandbox. There is no network
unless --network or --egress is given. Input (with -i), output, signals and the exit
code pass through as with exec, and so does a terminal (with -t).

The daemon must run: it makes the sandbox from a manifest that this verb writes, and
removes both when this process has ended, however it has.

Exit code: the command's; 128+N if signal N ended it; 126 and 127 if it could not be
started or found; 124 if --timeout was over; 125 if sandboxctl failed.`,
		Example: `  sandboxctl run -- uname -a
  sandboxctl run -i --timeout 10s --memory 256Mi --cpu 1 -- python3 - <script.py >result
  sandboxctl run -it --image docker.io/library/alpine:3 -- sh
  sandboxctl run --from python -- python3 -V
  sandboxctl run --egress example.org:443 -- curl https://example.org/`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return runError(exit.Usagef("expected -- COMMAND [ARG]..."))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runError(a.runOnce(cmd.Context(), args, &f))
		},
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return runError(entry.FlagError(cmd, err)) })
	f.register(fl)
	f.Register(fl)
	fl.BoolVar(&f.remove, "rm", true, "accepted for compatibility with docker; the sandbox is always removed")
	return cmd
}

// runError gives an error of this program an exit code that commands seldom have. One without a
// text is the exit code of the command.
func runError(err error) error {
	e, ok := errors.AsType[*exit.Error](err)
	if err == nil || ok && (e.Err == nil || !slices.Contains([]int{exit.Failure, exit.Usage, exit.Timeout}, e.Code)) {
		return err
	}
	return &exit.Error{Code: exitOurs, Err: err}
}

func (a *app) runOnce(ctx context.Context, argv []string, f *runFlags) error {
	switch {
	case f.tty && !show.IsTerminal(a.Stdin):
		return exit.Usagef("-t needs a terminal on standard input")
	case !f.remove:
		return exit.Usagef("--rm=false is not possible: the sandbox is always removed; for one that stays, apply a manifest")
	}
	text, caller, err := f.Manifest()
	if err != nil {
		return err
	}
	if err := oneoff.NeedDaemon(ctx, &a.Host); err != nil {
		return exit.Interrupted(ctx, err)
	}
	if f.From != "" {
		if err := claims.Check(ctx, &a.Host, text, true); err != nil {
			return err
		}
	}
	if err := manifests.Put(ctx, &a.Host, text); err != nil {
		return err
	}
	// Also after a signal that has ended ctx.
	defer a.removeRun(context.WithoutCancel(ctx), f.Name, caller)
	return a.runWithin(ctx, argv, f, caller)
}

// runWithin runs the command when its sandbox has started, within the time that it has.
func (a *app) runWithin(ctx context.Context, argv []string, f *runFlags, caller process.Identity) error {
	timedOut := &exit.Error{Code: exitTimedOut, Err: fmt.Errorf("timed out after %s", f.Timeout)}
	began, patience := time.Now(), startTimeout
	if f.Timeout > 0 {
		patience = min(patience, f.Timeout)
	}
	r := &oneoff.Run{Name: f.Name, Caller: caller}
	err := await.Until(ctx, &a.Host, []string{f.Name}, r.Ready, patience)
	if f.Timeout > 0 && time.Since(began) >= f.Timeout {
		return timedOut
	}
	if err != nil {
		return exit.Interrupted(ctx, err)
	}
	if f.Timeout > 0 {
		timer := time.AfterFunc(f.Timeout-time.Since(began), func() {
			r.Over.Store(true)
			a.endRun(context.WithoutCancel(ctx), r)
		})
		defer timer.Stop()
	}
	err = a.execIn(ctx, &target{name: f.Name, seen: &r.Seen, began: r.Began}, argv, &f.execFlags)
	if r.Over.Load() {
		return timedOut
	}
	return err
}

// endRun ends the command and what it has begun, whatever that does. What the command has written
// until then is passed on. If the sentry does not obey, the daemon ends it.
func (a *app) endRun(ctx context.Context, r *oneoff.Run) {
	err := a.killRun(ctx, r)
	removed, rerr := manifests.Remove(ctx, &a.Host, r.Name, r.Caller)
	if rerr != nil || err != nil && !removed {
		fmt.Fprintf(a.Stderr, "sandboxctl: the command is not stopped yet: %s\n", show.CleanLines(errors.Join(err, rerr).Error()))
	}
}

// killRun kills everything in the sandbox. Of one that may be somebody else's now, only the command.
func (a *app) killRun(ctx context.Context, r *oneoff.Run) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	w, lookErr := a.OnceUnjudged(ctx)
	store, err := a.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	control, _, err := a.connect(ctx, store, &target{name: r.Name, seen: &r.Seen})
	if err != nil {
		return err
	}
	defer control.Close()
	if lookErr == nil && oneoff.For(w.Entry(r.Name), r.Caller) {
		return control.App().Signal(ctx, unix.SIGKILL, true)
	}
	if pid := r.PID.Load(); pid != 0 {
		return control.App().SignalGroup(ctx, unix.SIGKILL, pid)
	}
	return nil
}

// removeRun removes the sandbox, and waits until it is gone. The exit code stays that of the
// command: the daemon removes later what can't be removed now.
func (a *app) removeRun(ctx context.Context, name string, caller process.Identity) {
	_, err := manifests.Remove(ctx, &a.Host, name, caller)
	if err == nil {
		quiet := a.Host // that it is being removed is no news
		quiet.Stderr = io.Discard
		err = await.Until(ctx, &quiet, []string{name}, oneoff.GoneOrTaken, removalTimeout)
	}
	if err != nil {
		fmt.Fprintf(a.Stderr, "sandboxctl: sandbox %s is not removed yet, the daemon will do that: %s\n", name, show.CleanLines(err.Error()))
	}
}
