// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/launcher/oci"
	"sandboxctl.dev/launcher/pair"
)

// createFlags are those of create and run.
type createFlags struct {
	bundle, pidFile, console string
	// image is the checkpoint to restore, "" to start afresh.
	image        string
	detach, keep bool
	preserve     int
}

func (c *createFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&c.bundle, "bundle", "b", ".", "directory with config.json")
	fl.StringVar(&c.pidFile, "pid-file", "", "write the pid of the container there")
	fl.StringVar(&c.console, "console-socket", "", "send the terminal to this unix socket")
	addPreserve(fl, &c.preserve)
	// There is nothing to turn off here.
	takenBools(fl, "no-pivot", "no-new-keyring")
}

// request is what a container is created with, but for its streams.
func (c *createFlags) request() (oci.Create, error) {
	more, err := preserved(3, c.preserve)
	if err != nil {
		return oci.Create{}, err
	}
	if err := pair.PrepareProcess(); err != nil {
		return oci.Create{}, err
	}
	return oci.Create{Preserved: more, ConsoleSocket: c.console, PIDFile: c.pidFile}, nil
}

func (c *createFlags) bundlePath() (string, error) {
	path, err := filepath.Abs(c.bundle)
	if err != nil {
		return "", fmt.Errorf("find bundle: %w", err)
	}
	return path, nil
}

// prepare claims an id for the container of the bundle.
func (c *createFlags) prepare(r *oci.Runtime, id string) (*oci.Prepared, error) {
	bundle, err := c.bundlePath()
	if err != nil {
		return nil, err
	}
	return r.Prepare(id, bundle)
}

// createAlone creates a container that this program does not wait for.
func (v *Verbs) createAlone(ctx context.Context, r *oci.Runtime, c *createFlags, id string) (err error) {
	req, err := c.request()
	if err != nil {
		return err
	}
	p, err := c.prepare(r, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Release()) }()
	if !p.Terminal() && c.console == "" {
		if req.Streams, err = v.streams.Left(Verb); err != nil {
			return err
		}
	}
	return p.Create(ctx, req)
}

func (v *Verbs) createCommand() *cobra.Command {
	c := &createFlags{}
	cmd := v.command("create ID", "Create a container",
		`Create the container of a bundle: its sandbox and its gofer. `+"`start`"+` starts its
application. Its streams are connected with those of this command.`,
		"create --bundle /srv/bundle --pid-file /run/web.pid web",
		func(ctx context.Context, r *oci.Runtime, id string) error { return v.createAlone(ctx, r, c, id) })
	c.add(cmd)
	return cmd
}

func (v *Verbs) startCommand() *cobra.Command {
	return v.command("start ID", "Start the application of a created container",
		"Start the application of a created container, and then run all poststart hooks of its bundle. A hook that fails is a warning.", "start web",
		func(ctx context.Context, r *oci.Runtime, id string) error { return r.Start(ctx, id) })
}

// copyStreamsCommand is what attach leaves behind of a create.
func (v *Verbs) copyStreamsCommand() *cobra.Command {
	return &cobra.Command{
		Use: attach.CopyVerb + " [0] [1] [2]", Hidden: true, Args: cobra.MaximumNArgs(3),
		Short:   "Copy the streams of a container (not for people)",
		Long:    "Copy the streams of a container. `create` leaves this process behind where its own streams must not be the container's.",
		Example: "  sandboxctl oci create --bundle /srv/bundle web >log",
		RunE:    func(_ *cobra.Command, args []string) error { return v.streams.Copy(args) },
	}
}
