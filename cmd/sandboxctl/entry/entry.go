// SPDX-License-Identifier: Apache-2.0

// Package entry is what the programs with verbs have in common: the global flags, signals,
// and how the error of a verb is printed.
package entry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
)

// Where the manifests and the state of a host are.
const (
	DefaultManifests = "/etc/sandboxctl/manifests"
	DefaultState     = "/var/lib/sandboxctl"
)

// Flags are those of every verb. The paths are those that were given.
type Flags struct {
	Manifests, State, Policy *string
}

// Register adds the flags to the command above all verbs.
func (f Flags) Register(root *cobra.Command) {
	root.PersistentFlags().StringVar(f.Manifests, "manifests", DefaultManifests, "directory of manifests")
	root.PersistentFlags().StringVar(f.State, "state", DefaultState, "directory of state")
	root.PersistentFlags().StringVar(f.Policy, "policy", "", "host policy: what manifests may ask for (default: the daemon's, /etc/sandboxctl/policy.yaml if there is one)")
}

// Default says whether the directories are those of the host.
func (f Flags) Default() bool { return *f.Manifests == DefaultManifests && *f.State == DefaultState }

// NotRoot says that a verb means the sandboxes of the host, and its caller is not root.
func NotRoot(verb string, euid int) error {
	return fmt.Errorf("the sandboxes of this host are root's, and you are not root (uid %d): try `sudo sandboxctl %s`, or name directories of your own with --manifests and --state",
		euid, verb)
}

// Absolute makes the paths what they are for every process, wherever
// it was started: the daemon's record of them is compared with ours.
func (f Flags) Absolute() error {
	for _, d := range []struct {
		flag string
		path *string
	}{{"manifests", f.Manifests}, {"state", f.State}, {"policy", f.Policy}} {
		if *d.path == "" && d.flag == "policy" {
			continue
		}
		if *d.path == "" {
			return exit.Usagef("--%s (SANDBOXCTL_%s) is empty; expected a directory", d.flag, strings.ToUpper(d.flag))
		}
		abs, err := filepath.Abs(*d.path)
		if err != nil {
			return fmt.Errorf("find directory %s: %w", *d.path, err)
		}
		*d.path = abs
	}
	return nil
}

// FromEnvironment sets every flag that was not given from its variable.
func FromEnvironment(flags *pflag.FlagSet) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "SANDBOXCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v, ok := os.LookupEnv(name)
		if !ok || f.Changed || err != nil || f.Name == "help" {
			return
		}
		if serr := f.Value.Set(v); serr != nil {
			err = exit.Usagef("%s: %v", name, serr)
		}
	})
	return err
}

// Interruptible returns a context that SIGINT and SIGTERM end. Those that the
// caller of this program has it ignore stay ignored. A second signal is not waited
// for: the default action ends the program. The cause is an exit.Signal.
func Interruptible() (context.Context, func()) {
	var signals []os.Signal
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	if len(signals) == 0 {
		return context.WithCancel(context.Background()) // NotifyContext would take none for all
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	came := make(chan os.Signal, 1)
	signal.Notify(came, signals...)
	go func() {
		select {
		case s := <-came:
			cancel(exit.Signal(s.(unix.Signal)))
		case <-ctx.Done():
		}
		signal.Stop(came)
	}()
	return ctx, func() { cancel(nil) }
}

// Failed prints the error of a verb, and returns the exit code.
func Failed(stderr io.Writer, cmd *cobra.Command, err error) int {
	code := exit.Failure
	if e, ok := errors.AsType[*exit.Error](err); ok {
		code = e.Code
		if e.Err == nil {
			return code
		}
	}
	fmt.Fprintf(stderr, "sandboxctl: %s\n", show.CleanLines(err.Error()))
	if code == exit.Usage {
		fmt.Fprintf(stderr, "See `%s --help`.\n", cmd.CommandPath())
	}
	return code
}

// Version is the version this program was built as.
var Version = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = "devel+" + s.Value[:min(12, len(s.Value))]
		}
	}
	if v == "" {
		v = "(devel)"
	}
	return v
})
