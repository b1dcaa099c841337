// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/oci"
)

func (v *Verbs) runCommand() *cobra.Command {
	c := &createFlags{}
	cmd := v.command("run ID", "Create and start a container, and wait for its end",
		`Create and start a container, pass signals on to it, end with its exit code and
delete it; with --detach: create and start it.`,
		`run --bundle /srv/bundle web
  sandboxctl oci run --detach --bundle /srv/bundle web`,
		func(ctx context.Context, r *oci.Runtime, id string) error { return v.run(ctx, r, c, id) })
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

func (v *Verbs) run(ctx context.Context, r *oci.Runtime, c *createFlags, id string) error {
	if c.image != "" {
		bundle, err := c.bundlePath()
		if err != nil {
			return err
		}
		if err := r.CheckRestore(ctx, bundle, c.image); err != nil {
			return err
		}
	}
	if c.detach {
		if err := v.createAlone(ctx, r, c, id); err != nil {
			return err
		}
		return c.start(ctx, r, id)
	}
	return v.runAttached(ctx, r, c, id)
}

// start starts a container that was created, from the checkpoint if there is one, or
// deletes it.
func (c *createFlags) start(ctx context.Context, r *oci.Runtime, id string) error {
	var err error
	if c.image != "" {
		err = r.Restore(ctx, id, c.image)
	} else {
		err = r.Start(ctx, id)
	}
	if err != nil {
		return errors.Join(err, r.Delete(context.WithoutCancel(ctx), id, true))
	}
	return nil
}

// runAttached runs a container on our streams, or on a terminal that is connected with
// ours, to its end.
func (v *Verbs) runAttached(ctx context.Context, r *oci.Runtime, c *createFlags, id string) (err error) {
	// Before the container exists: a signal from here on is for it.
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}
	ctx, s, err := attach.Open(ctx, v.streams, attach.Options{Signals: signals})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := v.createAttached(ctx, r, s, c, id); err != nil {
		return err
	}
	// Not only in Run: poststart hooks come before, and may wait for an application that
	// has more to write than a pipe holds.
	if err := s.Started(); err != nil {
		return errors.Join(err, r.Delete(ctx, id, true))
	}
	if err := c.start(ctx, r, id); err != nil {
		return err
	}
	x := &container{r: r, id: id, keep: c.keep, failed: func(err error) {
		fmt.Fprintf(v.streams.Err, "sandboxctl: signal not passed on: %s\n", show.Clean(err.Error()))
	}}
	code, err := s.Run(ctx, x)
	switch {
	case err == nil:
		return exit.Code(code)
	case c.keep:
		return err
	}
	return errors.Join(err, r.Delete(ctx, id, true))
}

func (v *Verbs) createAttached(ctx context.Context, r *oci.Runtime, s *attach.Session, c *createFlags, id string) (err error) {
	req, err := c.request()
	if err != nil {
		return err
	}
	p, err := c.prepare(r, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Release()) }()
	switch {
	case !p.Terminal():
		// Only now: who reads our terminal would take from it what is typed for the
		// container.
		req.Streams, err = s.Pipes(true)
	case c.console == "" && show.IsTerminal(v.streams.In):
		req.Streams, err = s.Terminal()
	}
	if err != nil {
		return err
	}
	return p.Create(ctx, req)
}

// container is the application of a container, for a session.
type container struct {
	r      *oci.Runtime
	id     string
	keep   bool
	failed func(error) // to signal it
}

// Signal implements attach.Process. One that comes when the application has ended, or
// while the container is deleted, is no failure.
func (c *container) Signal(ctx context.Context, sig unix.Signal) {
	err := c.r.Kill(ctx, c.id, sig, false)
	if err != nil && !errors.Is(err, oci.ErrNotRunning) && !errors.Is(err, oci.ErrNotExist) && sig != unix.SIGPIPE {
		c.failed(err)
	}
}

// HangUp implements attach.Process: the application decides what follows.
func (c *container) HangUp(ctx context.Context) error {
	c.Signal(ctx, unix.SIGHUP)
	return nil
}

// Wait implements attach.Process. The container is deleted before its last output is
// copied, which may wait for a reader: a signal may end this program then.
func (c *container) Wait(ctx context.Context) (int, error) {
	code, err := c.r.Wait(ctx, c.id)
	if err == nil && !c.keep {
		err = c.r.Delete(ctx, c.id, true)
	}
	return code, err
}
