// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/programs"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/oci"
)

// Name is the name under which this program is an OCI runtime at once, for
// clients that can name a program and no arguments.
const Name = "sandboxctl-oci"

// DefaultRoot is where the OCI runtime keeps its state. Hooks in it run as
// root, so no sandbox may have it.
const DefaultRoot = "/run/sandboxctl-oci"

// Verb is the verb above those of the OCI runtime.
const Verb = "oci"

// Flags are the flags before an OCI verb, runc's.
type Flags struct {
	Root, Log, LogFormat string
	Programs             programs.Flags
	Debug                bool
}

// Verbs are the verbs of the OCI runtime, on the streams of this program.
type Verbs struct {
	streams attach.Streams
	version string
	flags   Flags
}

// New returns the verbs. The version is that of this program.
func New(streams attach.Streams, version string) *Verbs {
	return &Verbs{streams: streams, version: version}
}

const long = `Be an OCI runtime: create, start and delete the containers of OCI bundles, with
runc's verbs, flags, exit codes and log. The same launcher as the daemon's runs
them, each in a gVisor sandbox; no daemon and no manifest is involved, and these
containers are not among those that ` + "`sandboxctl get`" + ` shows.

For podman and containerd, which name a program and no arguments, link this
program as ` + Name + `: under that name it is the runtime.`

// Command is the verb above them.
func (v *Verbs) Command() *cobra.Command {
	f := &v.flags
	cmd := &cobra.Command{
		Use:     Verb,
		Version: v.version,
		Short:   "Be an OCI runtime for podman, containerd and others",
		Long:    long,
		Example: `  sandboxctl oci run --bundle /srv/bundle web
  ln -s sandboxctl /usr/local/bin/` + Name + `
  podman --runtime /usr/local/bin/` + Name + ` run --rm -it debian bash`,
		Args:                       exit.VerbArgs,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	// Clients look for these words.
	cmd.SetVersionTemplate(fmt.Sprintf("%s version {{.Version}}\nspec: %s\ngo: %s\n", Name, specs.Version, runtime.Version()))
	fl := cmd.PersistentFlags()
	fl.StringVar(&f.Root, "root", DefaultRoot, "directory of the containers' state")
	fl.StringVar(&f.Log, "log", "", "append errors to this file as well")
	fl.StringVar(&f.LogFormat, "log-format", "text", "of --log: text or json")
	f.Programs.Register(fl)
	fl.BoolVar(&f.Debug, "debug", false, "have the sentry log more")
	fl.Bool("systemd-cgroup", false, compatible+"cgroups are made without systemd")
	takenStrings(fl, "criu", "rootless")
	cmd.AddCommand(
		v.createCommand(), v.startCommand(), v.runCommand(), v.stateCommand(), v.listCommand(),
		v.killCommand(), v.deleteCommand(), v.waitCommand(), v.pauseCommand(), v.resumeCommand(),
		v.execCommand(), v.psCommand(), v.eventsCommand(), v.specCommand(), v.featuresCommand(),
		v.updateCommand(), v.checkpointCommand(), v.restoreCommand(), v.copyStreamsCommand(), v.attendCommand(),
	)
	return cmd
}

// What help says of flags that runc has and that do nothing here.
const (
	compatible = "accepted for compatibility with runc; "
	ignored    = compatible + "ignored"
)

// takenStrings are flags of runc's for what a sandbox does not have.
func takenStrings(fl *pflag.FlagSet, names ...string) {
	for _, n := range names {
		fl.String(n, "", ignored)
	}
}

func takenBools(fl *pflag.FlagSet, names ...string) {
	for _, n := range names {
		fl.Bool(n, false, ignored)
	}
}

// with runs fn on the containers of --root.
func (v *Verbs) with(fn func(*oci.Runtime) error) error {
	f := &v.flags
	if f.LogFormat != "text" && f.LogFormat != "json" {
		return exit.Usagef("--log-format: expected text or json, got %q", f.LogFormat)
	}
	r, err := openRuntime(f, v.streams.Err)
	if err != nil {
		return err
	}
	return errors.Join(fn(r), r.Close())
}

func openRuntime(f *Flags, warnings io.Writer) (*oci.Runtime, error) {
	if err := gofer.CanRun(); err != nil {
		return nil, err
	}
	sentry, goferPath, err := f.Programs.Find()
	if err != nil {
		return nil, err
	}
	level := "warning"
	if f.Debug {
		level = "debug"
	}
	return oci.Open(oci.Options{
		Root: f.Root, SentryPath: sentry, GoferPath: goferPath, SentryLogLevel: level,
		Warn: func(format string, args ...any) {
			fmt.Fprintf(warnings, "sandboxctl: warning: %s\n", show.Clean(fmt.Sprintf(format, args...)))
		},
	})
}
