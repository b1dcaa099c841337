// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"github.com/containerd/console"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/oci"
)

func (a *app) ociRunCommand(f *ociFlags) *cobra.Command {
	c := &createFlags{}
	cmd := &cobra.Command{
		Use:   "run ID",
		Short: "Create and start a container, and wait for its end",
		Long: `Create and start a container, pass signals on to it, end with its exit code and
delete it; with --detach: create and start it.`,
		Example: `  sandboxctl oci run --bundle /srv/bundle web
  sandboxctl oci run --detach --bundle /srv/bundle web`,
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(f, func(r *oci.Runtime) error { return a.ociRun(cmd.Context(), r, c, args[0]) })
		},
	}
	c.add(cmd)
	c.addRun(cmd)
	return cmd
}

// addRun adds the flags of those that start what they create.
func (c *createFlags) addRun(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.detach, "detach", "d", false, "do not wait for its end")
	cmd.Flags().BoolVar(&c.keep, "keep", false, "do not delete it afterwards")
	takenBools(cmd.Flags(), "no-subreaper")
}

func (a *app) ociRun(ctx context.Context, r *oci.Runtime, c *createFlags, id string) (err error) {
	req, err := a.createRequest(id, c)
	if err != nil {
		return err
	}
	start := func() error { return r.Start(ctx, id) }
	if c.image != "" {
		if err := r.CheckRestore(ctx, req.Bundle, c.image); err != nil {
			return err
		}
		start = func() error { return r.Restore(ctx, id, c.image) }
	}
	var master *os.File
	relayed, err := newRelay()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relayed.abort()) }()
	if !c.detach && c.console == "" {
		if isTerminal(a.stdin) {
			// Before there is a process that could look at it.
			req.Terminal = func(m *os.File) error { master = m; return a.matchOurs(m) }
		}
	}
	if !c.detach {
		// Not before it is known that there is no terminal: who reads ours would take
		// from it what is typed for the container.
		req.Streams = func() ([3]*os.File, error) { return relayed.streams(a) }
	}
	// Before the container exists: a signal from here on is for it.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	ctx = context.WithoutCancel(ctx)
	if err := r.Create(ctx, req); err != nil {
		return err
	}
	if err := relayed.started(); err != nil {
		return errors.Join(err, r.Delete(ctx, id, true))
	}
	if err := start(); err != nil {
		return errors.Join(err, r.Delete(ctx, id, true))
	}
	if c.detach {
		return nil
	}
	code, err := a.attend(ctx, r, id, master, signals, relayed.broken)
	err = errors.Join(err, relayed.finish())
	if !c.keep {
		err = errors.Join(err, r.Delete(ctx, id, true))
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return &exitError{code: code}
	}
	return nil
}

// terminals are ours and that of a container.
func terminals(in, master *os.File) (ours, pty console.Console, err error) {
	if ours, err = console.ConsoleFromFile(in); err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	if pty, err = console.ConsoleFromFile(master); err != nil {
		return nil, nil, fmt.Errorf("open terminal of the container: %w", err)
	}
	return ours, pty, nil
}

// matchOurs is matchTerminal with standard input.
func (a *app) matchOurs(master *os.File) error {
	in, ok := a.stdin.(*os.File)
	if !ok {
		return errors.New("standard input is not a file")
	}
	ours, pty, err := terminals(in, master)
	if err != nil {
		return err
	}
	return matchTerminal(pty, ours)
}

// attend waits for the end of a container, with its terminal connected to ours
// and our signals passed on.
func (a *app) attend(ctx context.Context, r *oci.Runtime, id string, master *os.File, signals <-chan os.Signal, broken <-chan chan struct{}) (code int, err error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				if kerr := r.Kill(ctx, id, s.(unix.Signal), false); kerr != nil && !errors.Is(kerr, oci.ErrNotRunning) {
					fmt.Fprintf(a.stderr, "sandboxctl: signal not passed on: %s\n", clean(kerr.Error()))
				}
			case told := <-broken:
				// gVisor sends none for what is a pipe of the host. An application that is
				// over needs none.
				_ = r.Kill(ctx, id, unix.SIGPIPE, false)
				close(told)
			}
		}
	}()
	if master == nil {
		return r.Wait(ctx, id)
	}
	defer master.Close()
	in, ok := a.stdin.(*os.File)
	if !ok {
		return 0, errors.New("standard input is not a file")
	}
	ours, pty, err := terminals(in, master)
	if err != nil {
		return 0, err
	}
	if err := ours.SetRaw(); err != nil {
		return 0, fmt.Errorf("set terminal raw: %w", err)
	}
	defer func() {
		if rerr := ours.Reset(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("reset terminal: %w", rerr))
		}
	}()
	defer a.resize(ours, pty)()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(a.stdout, master) }) // ends with an error when the container closes it
	go func() { _, _ = io.Copy(master, in) }()         // ends with this program
	code, err = r.Wait(ctx, id)
	wg.Wait()
	return code, err
}
