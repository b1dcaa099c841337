// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/oci"
)

// command is a verb of one container. do carries it out.
func (v *Verbs) command(use, short, long, example string, do func(ctx context.Context, r *oci.Runtime, id string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: "  sandboxctl oci " + example, Args: exit.Args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.with(func(r *oci.Runtime) error { return do(cmd.Context(), r, args[0]) })
		},
	}
}

func (v *Verbs) stateCommand() *cobra.Command {
	return v.command("state ID", "Print the state of a container",
		"Print the state of a container as the OCI runtime specification defines it, as JSON.", "state web",
		func(_ context.Context, r *oci.Runtime, id string) error {
			s, err := r.State(id)
			if err != nil {
				return err
			}
			return show.JSON(v.streams.Out, s)
		})
}

func (v *Verbs) listCommand() *cobra.Command {
	var (
		format string
		quiet  bool
	)
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List containers",
		Long:    "List the containers of --root.",
		Example: "  sandboxctl oci list --format json",
		Args:    exit.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return v.with(func(r *oci.Runtime) error {
				list, err := r.List()
				if err != nil {
					return err
				}
				switch {
				case quiet:
					for _, s := range list {
						fmt.Fprintln(v.streams.Out, s.ID)
					}
					return nil
				case format == "json":
					return show.JSONLine(v.streams.Out, list)
				case format != "table":
					return exit.Usagef("--format: expected table or json, got %q", format)
				}
				rows := make([][]string, len(list))
				for i, s := range list {
					rows[i] = []string{s.ID, strconv.Itoa(s.Pid), string(s.Status), show.Clean(s.Bundle), s.Created.Format(time.RFC3339), s.Owner}
				}
				return show.Table(v.streams.Out, []string{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}, rows)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "table", "table or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "ids only")
	return cmd
}

func (v *Verbs) killCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "kill ID [SIGNAL]",
		Short:   "Send a signal to the application of a container",
		Long:    "Send a signal (TERM if none is given; a name or a number) to the application of a container.",
		Example: "  sandboxctl oci kill web KILL",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return exit.Usagef("expected ID [SIGNAL], got %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			sig := unix.SIGTERM
			if len(args) == 2 {
				var err error
				// 0 asks whether there is anything to signal.
				if args[1] == "0" {
					sig = 0
				} else if sig, err = scalar.ParseSignal(args[1]); err != nil {
					return exit.Usagef("unknown signal %q", args[1])
				}
			}
			return v.with(func(r *oci.Runtime) error { return r.Kill(cmd.Context(), args[0], sig, all) })
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "send it to every process of the container; it is no error if there is none")
	return cmd
}

func (v *Verbs) deleteCommand() *cobra.Command {
	var force bool
	cmd := v.command("delete ID", "Delete a container",
		"Delete a container that has stopped; with --force one that has been created or runs, which is killed. It is proven dead before anything of it is removed.",
		"delete --force web",
		func(ctx context.Context, r *oci.Runtime, id string) error { return r.Delete(ctx, id, force) })
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it if it has not stopped")
	return cmd
}

func (v *Verbs) waitCommand() *cobra.Command {
	return v.command("wait ID", "Wait for the end of a container",
		"Wait until a container ends and print the exit code of its application (128+N if signal N ended it). Any program may have started the container.",
		"wait web",
		func(ctx context.Context, r *oci.Runtime, id string) error {
			code, err := r.Wait(ctx, id)
			if err == nil {
				fmt.Fprintln(v.streams.Out, code)
			}
			return err
		})
}

func (v *Verbs) pauseCommand() *cobra.Command {
	return v.command("pause ID", "Pause a container", "Pause all processes of a container, until `resume`.", "pause web",
		func(ctx context.Context, r *oci.Runtime, id string) error { return r.Pause(ctx, id) })
}

func (v *Verbs) resumeCommand() *cobra.Command {
	return v.command("resume ID", "Resume a paused container", "Resume all processes of a paused container.", "resume web",
		func(ctx context.Context, r *oci.Runtime, id string) error { return r.Resume(ctx, id) })
}

func (v *Verbs) psCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "ps ID",
		Short:   "List the processes of a container",
		Long:    "List the processes of a container with their numbers in the sandbox; none of them is a process of the host. With --format json: the numbers only, as runc prints them.",
		Example: "  sandboxctl oci ps --format json web",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exit.Usagef("expected ID")
			}
			return nil // runc passes what follows to ps
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.with(func(r *oci.Runtime) error {
				ps, err := r.Processes(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				switch format {
				case "json":
					pids := make([]int32, len(ps))
					for i, p := range ps {
						pids[i] = p.PID
					}
					return show.JSONLine(v.streams.Out, pids)
				case "table":
					return show.Processes(v.streams.Out, ps)
				}
				return exit.Usagef("--format: expected table or json, got %q", format)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "table", "table or json")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (v *Verbs) eventsCommand() *cobra.Command {
	var (
		stats    bool
		interval time.Duration
	)
	cmd := v.command("events ID", "Print what a container uses",
		"Print what a container uses every --interval as a line of JSON, until it ends; with --stats once.", "events --stats web",
		func(ctx context.Context, r *oci.Runtime, id string) error {
			return r.Events(ctx, id, stats, interval, func(e any) error { return show.JSONLine(v.streams.Out, e) })
		})
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if interval <= 0 {
			return exit.Usagef("--interval: expected more than 0, got %s", interval)
		}
		return nil
	}
	cmd.Flags().BoolVar(&stats, "stats", false, "print once and end")
	cmd.Flags().DurationVar(&interval, "interval", 5*time.Second, "time between two lines")
	return cmd
}

func (v *Verbs) specCommand() *cobra.Command {
	var bundle string
	cmd := &cobra.Command{
		Use:     "spec",
		Short:   "Write an example config.json",
		Long:    "Write an example config.json into the bundle: a shell in the directory rootfs. A file that is there is not overwritten.",
		Example: "  sandboxctl oci spec --bundle /srv/bundle",
		Args:    exit.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := json.MarshalIndent(oci.ExampleSpec(), "", "  ")
			if err != nil {
				return fmt.Errorf("encode config.json: %w", err)
			}
			path := filepath.Join(bundle, "config.json")
			w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return fmt.Errorf("write config.json: %w", err)
			}
			if _, err = w.Write(append(b, '\n')); err == nil {
				err = w.Close()
			}
			if err != nil {
				return fmt.Errorf("write config.json: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&bundle, "bundle", "b", ".", "directory to write it to")
	return cmd
}

func (v *Verbs) featuresCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "features",
		Short:   "Print what this runtime can do",
		Long:    "Print what this runtime can do in the form of the OCI runtime specification, as JSON.",
		Example: "  sandboxctl oci features",
		Args:    exit.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return show.JSON(v.streams.Out, oci.Features()) },
	}
}

// IsRuntime says whether this program was called by the name that makes it an OCI
// runtime.
func IsRuntime(argv0 string) bool { return strings.TrimSuffix(filepath.Base(argv0), ".exe") == Name }
