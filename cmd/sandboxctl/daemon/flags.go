// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/programs"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/image"
)

// flags are those of the verb.
type flags struct {
	once            bool
	programs        programs.Flags
	registries      string
	sentryLog       string
	allowEmpty      bool
	allowMassDelete bool
	workers         int
	logSpace        string
	keepDeleted     time.Duration
	resync          time.Duration
	pollEvery       time.Duration
	clientSocket    string
	logFormat       string
	logLevel        string
}

// Command is the verb daemon of a program of some version.
func Command(h *world.Host, version string) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Converge sandboxes with the manifests, for ever or once",
		Long: `Converge sandboxes with the manifests, and keep them converged.

The daemon starts, restarts and stops sandboxes until what runs is what the
manifests directory says. It can be stopped, killed and upgraded at any time:
sandboxes keep running without it and the next daemon adopts them.

With --once it converges and ends: exit code 0 if everything is as the manifests
say, 1 if not (see ` + "`sandboxctl get`" + ` for why).`,
		Example: `  sandboxctl daemon
  sandboxctl daemon --once
  sandboxctl --manifests ./manifests --state /tmp/state daemon --log-format json`,
		Args: exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return converge(cmd.Context(), h, version, &f) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.once, "once", false, "converge, then end")
	f.programs.Register(fl)
	fl.StringVar(&f.registries, "registries", "", "how registries are spoken to (default: "+image.RegistriesPath+" if there is one)")
	fl.StringVar(&f.sentryLog, "sentry-log-level", "warning", "what sentries log: warning, info or debug")
	fl.BoolVar(&f.allowEmpty, "allow-empty", false, "believe a manifests directory that was replaced by an empty one")
	fl.BoolVar(&f.allowMassDelete, "allow-mass-delete", false, "remove any number of sandboxes without approval")
	fl.IntVar(&f.workers, "workers", 4, "operations at the same time, of each kind: starts after a failure, starts that somebody asked for, clean-up")
	fl.StringVar(&f.logSpace, "log-space", "", "how much the logs of all sandboxes may take together, such as 500Mi (default: a tenth of the disk, at most 4Gi)")
	fl.DurationVar(&f.keepDeleted, "keep-deleted-logs", time.Hour, "how long the logs of deleted sandboxes can be read (0: not at all); 64Mi and 100 sandboxes at most")
	fl.DurationVar(&f.resync, "resync", 30*time.Second, "look at everything at least this often")
	fl.DurationVar(&f.pollEvery, "poll", 10*time.Second, "how often to check that the manifests directory is still the same one (without inotify: what is in it)")
	fl.StringVar(&f.clientSocket, "client-socket", "", "where programs ask for sandboxes (none: nowhere; default: "+protocol.DefaultSocket+", or client.sock in another state directory)")
	fl.StringVar(&f.logFormat, "log-format", "text", "log on stderr as text or json")
	fl.StringVar(&f.logLevel, "log-level", "info", "log level: debug, info, warn or error")
	entry.CompleteValues(cmd, "sentry-log-level", "warning", "info", "debug")
	entry.CompleteValues(cmd, "log-format", "text", "json")
	entry.CompleteValues(cmd, "log-level", "debug", "info", "warn", "error")
	return cmd
}

func (f *flags) logger(out io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, exit.Usagef("--log-level: %v", err)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(seldom(slog.NewTextHandler(out, opts))), nil
	case "json":
		return slog.New(seldom(slog.NewJSONHandler(out, opts))), nil
	}
	return nil, exit.Usagef("--log-format: expected text or json, got %q", f.logFormat)
}

func (f *flags) check() (err error) {
	if f.registries != "" { // verbs look for it, wherever they are started
		if f.registries, err = filepath.Abs(f.registries); err != nil {
			return fmt.Errorf("--registries: %w", err)
		}
	}
	if f.clientSocket != "" && f.clientSocket != noSocket {
		if f.clientSocket, err = filepath.Abs(f.clientSocket); err != nil {
			return fmt.Errorf("--client-socket: %w", err)
		}
	}
	switch f.sentryLog {
	case "warning", "info", "debug":
	default:
		return exit.Usagef("--sentry-log-level: expected warning, info or debug, got %q", f.sentryLog)
	}
	if f.workers < 1 || f.resync < time.Second || f.pollEvery < 100*time.Millisecond {
		return exit.Usagef("expected --workers of at least 1, --resync of at least 1s and --poll of at least 100ms")
	}
	if f.keepDeleted < 0 {
		return exit.Usagef("--keep-deleted-logs: expected a duration such as 1h, or 0, got %s", f.keepDeleted)
	}
	return nil
}

// space is how much the logs may take together, 0 if nothing is said of it.
func (f *flags) space() (space scalar.Bytes, err error) {
	if f.logSpace == "" {
		return 0, nil
	}
	if err := space.UnmarshalJSON([]byte(strconv.Quote(f.logSpace))); err != nil {
		return 0, exit.Usagef("--log-space: %v", err)
	}
	return space, nil
}
