// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/oci"
)

// ociName is the name under which this program is an OCI runtime at once, for
// clients that can name a program and no arguments.
const ociName = "sandboxctl-oci"

// ociFlags are the flags before an OCI verb, runc's.
type ociFlags struct {
	root, log, logFormat, sentry string
	debug, systemd               bool
}

const ociLong = `Be an OCI runtime: create, start and delete the containers of OCI bundles, with
runc's verbs, flags, exit codes and log. The same launcher as the daemon's runs
them, each in a gVisor sandbox; no daemon and no manifest is involved, and these
containers are not among those that ` + "`sandboxctl get`" + ` shows.

For podman and containerd, which name a program and no arguments, link this
program as ` + ociName + `: under that name it is the runtime.`

func (a *app) ociCommand() *cobra.Command {
	f := &ociFlags{}
	cmd := &cobra.Command{
		Use:   "oci",
		Short: "Be an OCI runtime for podman, containerd and others",
		Long:  ociLong,
		Example: `  sandboxctl oci run --bundle /srv/bundle web
  ln -s sandboxctl /usr/local/bin/` + ociName + `
  podman --runtime /usr/local/bin/` + ociName + ` run --rm -it debian bash`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	fl := cmd.PersistentFlags()
	fl.StringVar(&f.root, "root", "/run/sandboxctl-oci", "directory of the containers' state")
	fl.StringVar(&f.log, "log", "", "append errors to this file as well")
	fl.StringVar(&f.logFormat, "log-format", "text", "of --log: text or json")
	fl.StringVar(&f.sentry, "sentry", "", "sentry binary (default: sandboxctl-sentry beside this program)")
	fl.BoolVar(&f.debug, "debug", false, "have the sentry log more")
	fl.BoolVar(&f.systemd, "systemd-cgroup", false, "taken for runc's sake; cgroups are made without systemd")
	cmd.AddCommand(
		a.ociCreateCommand(f), a.ociStartCommand(f), a.ociRunCommand(f), a.ociStateCommand(f), a.ociListCommand(f),
		a.ociKillCommand(f), a.ociDeleteCommand(f), a.ociWaitCommand(f), a.ociPauseCommand(f), a.ociResumeCommand(f),
		a.ociExecCommand(f), a.ociPsCommand(f), a.ociEventsCommand(f), a.ociSpecCommand(f), a.ociFeaturesCommand(f),
		a.ociUpdateCommand(f), a.ociCheckpointCommand(f), a.ociRestoreCommand(f),
	)
	return cmd
}

// with runs fn on the containers of --root, and puts its error into the log
// that the client reads.
func (a *app) with(f *ociFlags, fn func(*oci.Runtime) error) error {
	err := func() error {
		r, err := a.openRuntime(f)
		if err != nil {
			return err
		}
		return errors.Join(fn(r), r.Close())
	}()
	if ee, coded := errors.AsType[*exitError](err); err != nil && (!coded || ee.err != nil) {
		if lerr := f.logError(err); lerr != nil {
			fmt.Fprintf(a.stderr, "sandboxctl: %v\n", lerr)
		}
	}
	return err
}

func (a *app) openRuntime(f *ociFlags) (*oci.Runtime, error) {
	if err := gofer.CanRun(); err != nil {
		return nil, err
	}
	sentry, err := launcher.FindSentry(f.sentry)
	if err != nil {
		return nil, err
	}
	level := "warning"
	if f.debug {
		level = "debug"
	}
	return oci.Open(oci.Options{
		Root: f.root, SentryPath: sentry, SentryLogLevel: level,
		Warn: func(format string, args ...any) {
			fmt.Fprintf(a.stderr, "sandboxctl: warning: %s\n", clean(fmt.Sprintf(format, args...)))
		},
	})
}

// logError appends an error to --log in the form that clients of runc parse.
func (f *ociFlags) logError(cause error) error {
	if f.log == "" {
		return nil
	}
	w, err := os.OpenFile(f.log, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	entry := struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Time  string `json:"time"`
	}{"error", cause.Error(), time.Now().Format(time.RFC3339)}
	if f.logFormat == "json" {
		err = json.NewEncoder(w).Encode(entry)
	} else {
		_, err = fmt.Fprintf(w, "time=%q level=%s msg=%q\n", entry.Time, entry.Level, entry.Msg)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

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
	// Taken for runc's sake: there is nothing to turn off here.
	fl.Bool("no-pivot", false, "taken for runc's sake")
	fl.Bool("no-new-keyring", false, "taken for runc's sake")
}

func (a *app) streams() ([3]*os.File, error) {
	var out [3]*os.File
	for i, s := range []any{a.stdin, a.stdout, a.stderr} {
		f, ok := s.(*os.File)
		if !ok {
			return out, fmt.Errorf("stream %d is not a file", i)
		}
		out[i] = f
	}
	return out, nil
}

func (a *app) createRequest(id string, c *createFlags) (oci.Create, error) {
	bundle, err := filepath.Abs(c.bundle)
	if err != nil {
		return oci.Create{}, fmt.Errorf("find bundle: %w", err)
	}
	streams, err := a.streams()
	if err != nil {
		return oci.Create{}, err
	}
	more, err := preserved(c.preserve)
	if err != nil {
		return oci.Create{}, err
	}
	if err := launcher.PrepareProcess(); err != nil {
		return oci.Create{}, err
	}
	return oci.Create{Preserved: more, ID: id, Bundle: bundle, Streams: streams, ConsoleSocket: c.console, PIDFile: c.pidFile}, nil
}

func (a *app) ociCreateCommand(f *ociFlags) *cobra.Command {
	c := &createFlags{}
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Create a container",
		Long: `Create the container of a bundle: its sandbox and its gofer run, its application
does not, until ` + "`start`" + `. The streams of this command become the application's.`,
		Example: `  sandboxctl oci create --bundle /srv/bundle --pid-file /run/web.pid web`,
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(f, func(r *oci.Runtime) error {
				req, err := a.createRequest(args[0], c)
				if err != nil {
					return err
				}
				return r.Create(cmd.Context(), req)
			})
		},
	}
	c.add(cmd)
	return cmd
}

func (a *app) ociStartCommand(f *ociFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "start ID",
		Short:   "Start the application of a created container",
		Long:    "Start the application of a created container. The poststart hooks of its bundle run afterwards, all of them; that one fails is a warning.",
		Example: "  sandboxctl oci start web",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(f, func(r *oci.Runtime) error { return r.Start(cmd.Context(), args[0]) })
		},
	}
}
