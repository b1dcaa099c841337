// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/oci"
	"sandboxctl.dev/launcher/pair"
)

// ociName is the name under which this program is an OCI runtime at once, for
// clients that can name a program and no arguments.
const ociName = "sandboxctl-oci"

// defaultRuntimeRoot is where the OCI runtime keeps its state. Hooks in it run as
// root, so no sandbox may have it.
const defaultRuntimeRoot = "/run/sandboxctl-oci"

// ociVerb is the verb above those of the OCI runtime.
const ociVerb = "oci"

// ociFlags are the flags before an OCI verb, runc's.
type ociFlags struct {
	root, log, logFormat string
	programs             programFlags
	debug                bool
}

const ociLong = `Be an OCI runtime: create, start and delete the containers of OCI bundles, with
runc's verbs, flags, exit codes and log. The same launcher as the daemon's runs
them, each in a gVisor sandbox; no daemon and no manifest is involved, and these
containers are not among those that ` + "`sandboxctl get`" + ` shows.

For podman and containerd, which name a program and no arguments, link this
program as ` + ociName + `: under that name it is the runtime.`

func (a *app) ociCommand() *cobra.Command {
	f := &ociFlags{}
	a.runtime = f
	cmd := &cobra.Command{
		Use:     ociVerb,
		Version: programVersion(),
		Short:   "Be an OCI runtime for podman, containerd and others",
		Long:    ociLong,
		Example: `  sandboxctl oci run --bundle /srv/bundle web
  ln -s sandboxctl /usr/local/bin/` + ociName + `
  podman --runtime /usr/local/bin/` + ociName + ` run --rm -it debian bash`,
		Args:                       verbArgs,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	// Clients look for these words.
	cmd.SetVersionTemplate(fmt.Sprintf("%s version {{.Version}}\nspec: %s\ngo: %s\n", ociName, specs.Version, runtime.Version()))
	fl := cmd.PersistentFlags()
	fl.StringVar(&f.root, "root", defaultRuntimeRoot, "directory of the containers' state")
	fl.StringVar(&f.log, "log", "", "append errors to this file as well")
	fl.StringVar(&f.logFormat, "log-format", "text", "of --log: text or json")
	f.programs.register(fl)
	fl.BoolVar(&f.debug, "debug", false, "have the sentry log more")
	fl.Bool("systemd-cgroup", false, "accepted for compatibility with runc; cgroups are made without systemd")
	takenStrings(fl, "criu", "rootless")
	cmd.AddCommand(
		a.ociCreateCommand(f), a.ociStartCommand(f), a.ociRunCommand(f), a.ociStateCommand(f), a.ociListCommand(f),
		a.ociKillCommand(f), a.ociDeleteCommand(f), a.ociWaitCommand(f), a.ociPauseCommand(f), a.ociResumeCommand(f),
		a.ociExecCommand(f), a.ociPsCommand(f), a.ociEventsCommand(f), a.ociSpecCommand(f), a.ociFeaturesCommand(f),
		a.ociUpdateCommand(f), a.ociCheckpointCommand(f), a.ociRestoreCommand(f), a.copyStreamsCommand(),
	)
	return cmd
}

// takenStrings are flags of runc's for what a sandbox does not have.
func takenStrings(fl *pflag.FlagSet, names ...string) {
	for _, n := range names {
		fl.String(n, "", "accepted for compatibility with runc; ignored")
	}
}

func takenBools(fl *pflag.FlagSet, names ...string) {
	for _, n := range names {
		fl.Bool(n, false, "accepted for compatibility with runc; ignored")
	}
}

// with runs fn on the containers of --root.
func (a *app) with(f *ociFlags, fn func(*oci.Runtime) error) error {
	if f.logFormat != "text" && f.logFormat != "json" {
		return usagef("--log-format: expected text or json, got %q", f.logFormat)
	}
	r, err := a.openRuntime(f)
	if err != nil {
		return err
	}
	return errors.Join(fn(r), r.Close())
}

// exitExec is the exit code of runc's exec if it is not that of the command.
const exitExec = 255

// ociFailed tells of an error as runc does: clients read it from --log, in the
// format they want, and know no exit code but 1, and 255 of exec.
func (a *app) ociFailed(cmd *cobra.Command, err error) int {
	e, coded := errors.AsType[*exitError](err)
	if coded && e.err == nil {
		return e.code
	}
	f := a.runtime
	if f.log == "" && f.logFormat == "json" {
		if werr := f.writeError(a.stderr, err); werr != nil {
			fmt.Fprintf(a.stderr, "sandboxctl: %s\n", cleanLines(err.Error()))
		}
	} else {
		fmt.Fprintf(a.stderr, "sandboxctl: %s\n", cleanLines(err.Error()))
		if coded && e.code == exitUsage {
			fmt.Fprintf(a.stderr, "See `%s --help`.\n", cmd.CommandPath())
		}
	}
	if lerr := f.logError(err); lerr != nil {
		fmt.Fprintf(a.stderr, "sandboxctl: %v\n", lerr)
	}
	if cmd.Name() == "exec" {
		return exitExec
	}
	return exitFailure
}

func (a *app) openRuntime(f *ociFlags) (*oci.Runtime, error) {
	if err := gofer.CanRun(); err != nil {
		return nil, err
	}
	sentry, goferPath, err := f.programs.find()
	if err != nil {
		return nil, err
	}
	level := "warning"
	if f.debug {
		level = "debug"
	}
	return oci.Open(oci.Options{
		Root: f.root, SentryPath: sentry, GoferPath: goferPath, SentryLogLevel: level,
		Warn: func(format string, args ...any) {
			fmt.Fprintf(a.stderr, "sandboxctl: warning: %s\n", clean(fmt.Sprintf(format, args...)))
		},
	})
}

// logError appends an error to --log.
func (f *ociFlags) logError(cause error) error {
	if f.log == "" {
		return nil
	}
	w, err := os.OpenFile(f.log, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	if err = errors.Join(f.writeError(w, cause), w.Close()); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// writeError writes an error in the form that clients of runc parse.
func (f *ociFlags) writeError(w io.Writer, cause error) error {
	entry := struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Time  string `json:"time"`
	}{"error", cause.Error(), time.Now().Format(time.RFC3339)}
	if f.logFormat == "json" {
		return json.NewEncoder(w).Encode(entry)
	}
	_, err := fmt.Fprintf(w, "time=%q level=%s msg=%q\n", entry.Time, entry.Level, entry.Msg)
	return err
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
	// There is nothing to turn off here.
	takenBools(fl, "no-pivot", "no-new-keyring")
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
	more, err := preserved(c.preserve)
	if err != nil {
		return oci.Create{}, err
	}
	if err := pair.PrepareProcess(); err != nil {
		return oci.Create{}, err
	}
	return oci.Create{Preserved: more, ID: id, Bundle: bundle, Streams: a.leftStreams, ConsoleSocket: c.console, PIDFile: c.pidFile}, nil
}

func (a *app) ociCreateCommand(f *ociFlags) *cobra.Command {
	c := &createFlags{}
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Create a container",
		Long: `Create the container of a bundle: its sandbox and its gofer run, its application
does not, until ` + "`start`" + `. Its streams lead to those of this command.`,
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
