// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/oci"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
)

// execFlags are the flags of `oci exec`. A detached command gets them encoded, so each
// flag is a field here.
type execFlags struct {
	Process, PIDFile, Console, Cwd, User  string
	Env, Caps                             []string
	Groups                                []uint
	Detach, TTY, NoNewPrivs, IgnorePaused bool
	Preserve                              int
}

func (v *Verbs) execCommand() *cobra.Command { return v.execWith(&execFlags{}) }

func (v *Verbs) execWith(e *execFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec ID COMMAND [ARG...]",
		Short: "Run one more process in a container",
		Long: `Run one more process in a container, described by --process or by COMMAND and the
other flags. No process of the host is that process: with --detach another one is
left behind, which ends with its exit code and whose pid is in --pid-file.`,
		Example: `  sandboxctl oci exec web ls /
  sandboxctl oci exec --detach --process p.json --pid-file p.pid web`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || (len(args) == 1 && e.Process == "") {
				return exit.Usagef("expected ID COMMAND [ARG...], or ID with --process")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return v.with(func(r *oci.Runtime) error { return v.exec(cmd.Context(), r, e, args[0], args[1:]) })
		},
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	fl.StringVarP(&e.Process, "process", "p", "", "file with the process as JSON")
	fl.StringVar(&e.PIDFile, "pid-file", "", "write the pid of the waiting process there")
	fl.StringVar(&e.Console, "console-socket", "", "send the terminal to this unix socket")
	fl.StringVar(&e.Cwd, "cwd", "", "directory to run in")
	fl.StringVarP(&e.User, "user", "u", "", "UID[:GID] to run as")
	fl.StringArrayVarP(&e.Env, "env", "e", nil, "NAME=VALUE to add to the environment (repeatable)")
	fl.StringArrayVarP(&e.Caps, "cap", "c", nil, "capability to add (repeatable)")
	fl.BoolVarP(&e.Detach, "detach", "d", false, "do not wait for its end")
	fl.BoolVarP(&e.TTY, "tty", "t", false, "give it a terminal")
	fl.UintSliceVarP(&e.Groups, "additional-gids", "g", nil, "one more group of its user (repeatable)")
	fl.BoolVar(&e.NoNewPrivs, "no-new-privs", false, "keep it from gaining privileges (PR_SET_NO_NEW_PRIVS)")
	fl.BoolVar(&e.IgnorePaused, "ignore-paused", false, "wait for the end of a pause instead of failing")
	takenStrings(fl, "process-label", "apparmor") // the host's, and nothing of it is there
	addPreserve(fl, &e.Preserve)
	return cmd
}

func (v *Verbs) exec(ctx context.Context, r *oci.Runtime, e *execFlags, id string, argv []string) error {
	p, err := e.describe(r, id, argv)
	if err != nil {
		return err
	}
	more, err := preserved(3, e.Preserve)
	if err != nil {
		return err
	}
	if e.Detach {
		return v.detach(&handOver{Flags: v.flags, Exec: *e, ID: id, Process: process{p}}, more)
	}
	c, err := e.command(ctx, r, id, p)
	if err != nil {
		return err
	}
	defer c.Control.Close()
	c.Control.Preserve(more)
	switch {
	case e.Console != "":
		return exit.Usagef("--console-socket needs --detach")
	case p.Terminal && !show.IsTerminal(v.streams.In):
		return exit.Usagef("-t needs a terminal on standard input, or --console-socket")
	}
	return c.Run(ctx, v.streams, true)
}

// command is the process of an exec, ready to be started.
func (e *execFlags) command(ctx context.Context, r *oci.Runtime, id string, p *specs.Process) (*attach.Command, error) {
	c, args, err := r.Exec(ctx, id, p, e.IgnorePaused)
	if err != nil {
		return nil, err
	}
	rec, _, err := r.Store().Get(id)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &attach.Command{
		Store: r.Store(), Name: id, Record: rec, Control: c, Args: args, OCI: true,
		Began: func(ctx context.Context, pid int32) error { return e.began(ctx, c, pid) },
	}, nil
}

// describe makes the process out of --process, or of the container's own and
// the other flags.
func (e *execFlags) describe(r *oci.Runtime, id string, argv []string) (*specs.Process, error) {
	if e.Process != "" {
		p, err := oci.ReadProcess(e.Process)
		if err != nil {
			return nil, err
		}
		if len(p.Args) == 0 {
			return nil, fmt.Errorf("read %s: args: expected a command", e.Process)
		}
		p.Terminal = p.Terminal || e.TTY
		return p, nil
	}
	own, err := r.Process(id)
	if err != nil {
		return nil, err
	}
	p := *own
	p.Args, p.Terminal, p.NoNewPrivileges = argv, e.TTY, p.NoNewPrivileges || e.NoNewPrivs
	p.Env = append(slices.Clone(p.Env), e.Env...)
	if e.Cwd != "" {
		p.Cwd = e.Cwd
	}
	if err := e.addCaps(&p); err != nil {
		return nil, err
	}
	if err := e.addUser(&p); err != nil {
		return nil, err
	}
	return &p, nil
}

// addUser changes what is given of the user and keeps the rest.
func (e *execFlags) addUser(p *specs.Process) error {
	p.User.AdditionalGids = slices.Clone(p.User.AdditionalGids)
	for _, g := range e.Groups {
		if g > math.MaxUint32 {
			return exit.Usagef("--additional-gids: expected the number of a group, got %d", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	if e.User == "" {
		return nil
	}
	uid, gid, hasGID := strings.Cut(e.User, ":")
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return exit.Usagef("--user: expected UID[:GID] in numbers, got %q", e.User)
	}
	p.User.UID = uint32(n)
	if hasGID {
		if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
			return exit.Usagef("--user: expected UID[:GID] in numbers, got %q", e.User)
		}
		p.User.GID = uint32(n)
	}
	return nil
}

// began writes the pid file: this process ends as the command does. A command
// that nobody could find is ended.
func (e *execFlags) began(ctx context.Context, c *sentry.Control, pid int32) error {
	if e.PIDFile == "" {
		return nil
	}
	err := oci.WritePIDFile(e.PIDFile, os.Getpid())
	if err != nil {
		err = errors.Join(err, c.App().SignalPID(ctx, unix.SIGKILL, pid))
	}
	return err
}

func (e *execFlags) addCaps(p *specs.Process) error {
	if len(e.Caps) == 0 {
		return nil
	}
	var c specs.LinuxCapabilities
	if p.Capabilities != nil {
		c = *p.Capabilities
	}
	for _, n := range e.Caps {
		n = strings.ToUpper(n)
		if !slices.Contains(setup.CapabilityNames(), n) {
			return exit.Usagef("--cap: expected a capability such as CAP_NET_ADMIN, got %q", n)
		}
		// Ambient, and inheritable for that: a command that is not root's keeps it.
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
			*set = append(slices.Clone(*set), n)
		}
	}
	p.Capabilities = &c
	return nil
}
