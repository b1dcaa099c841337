// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/oci"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// ociExec are the flags of `oci exec`.
type ociExec struct {
	process, pidFile, console, cwd, user string
	env, caps                            []string
	groups                               []uint
	size                                 *specs.Box // of its terminal, if it is given
	detach, tty, noNewPrivs, paused      bool
	started, preserve                    int
}

func (a *app) ociExecCommand(f *ociFlags) *cobra.Command {
	e := &ociExec{}
	cmd := &cobra.Command{
		Use:   "exec ID COMMAND [ARG...]",
		Short: "Run one more process in a container",
		Long: `Run one more process in a container, described by --process or by COMMAND and the
other flags. With --detach a process of the host waits for it in its place, ends
with its exit code, and is the one that --pid-file names; without, this one is.`,
		Example: `  sandboxctl oci exec web ls /
  sandboxctl oci exec --detach --process p.json --pid-file p.pid web`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || (len(args) == 1 && e.process == "") {
				return usagef("expected ID COMMAND [ARG...], or ID with --process")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(f, func(r *oci.Runtime) error { return a.ociExec(cmd.Context(), f, r, e, args[0], args[1:]) })
		},
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	fl.StringVarP(&e.process, "process", "p", "", "file with the process as JSON")
	fl.StringVar(&e.pidFile, "pid-file", "", "write the pid of the waiting process there")
	fl.StringVar(&e.console, "console-socket", "", "send the terminal to this unix socket")
	fl.StringVar(&e.cwd, "cwd", "", "directory to run in")
	fl.StringVarP(&e.user, "user", "u", "", "UID[:GID] to run as")
	fl.StringArrayVarP(&e.env, "env", "e", nil, "NAME=VALUE to add to the environment (repeatable)")
	fl.StringArrayVarP(&e.caps, "cap", "c", nil, "capability to add (repeatable)")
	fl.BoolVarP(&e.detach, "detach", "d", false, "do not wait for its end")
	fl.BoolVarP(&e.tty, "tty", "t", false, "give it a terminal")
	fl.UintSliceVarP(&e.groups, "additional-gids", "g", nil, "one more group of its user (repeatable)")
	fl.BoolVar(&e.noNewPrivs, "no-new-privs", false, "it can gain no privileges")
	fl.BoolVar(&e.paused, "ignore-paused", false, "have it wait for the end of a pause, not fail")
	takenStrings(fl, "process-label", "apparmor") // the host's, and nothing of it is there
	addPreserve(fl, &e.preserve)
	// How the detached process tells that it has started its command.
	fl.IntVar(&e.started, "started-fd", -1, "")
	cmd.Flag("started-fd").Hidden = true
	return cmd
}

func (a *app) ociExec(ctx context.Context, f *ociFlags, r *oci.Runtime, e *ociExec, id string, argv []string) error {
	p, err := e.describe(r, id, argv)
	if err != nil {
		return err
	}
	e.size = p.ConsoleSize
	more, err := preserved(e.preserve)
	if err != nil {
		return err
	}
	if e.detach {
		return a.detachExec(f, e, id, argv, p, more)
	}
	c, args, err := r.Exec(ctx, id, p, e.paused)
	if err != nil {
		return err
	}
	defer c.Close()
	c.Preserve(more)
	switch {
	case e.started >= 0:
		return a.execDetached(ctx, r, id, e, c, args)
	case e.console != "":
		return usagef("--console-socket needs --detach")
	case p.Terminal && !isTerminal(a.stdin):
		return usagef("-t needs a terminal on standard input, or --console-socket")
	}
	rec, _, err := r.Store().Get(id)
	if err != nil {
		return err
	}
	x := &execution{
		a: a, store: r.Store(), name: id, rec: rec, c: c, args: args, tty: p.Terminal, input: true, oci: true,
		begun: func(pid int32) error { return e.begun(ctx, c, pid) },
	}
	return x.run(ctx)
}

// describe makes the process out of --process, or of the container's own and
// the other flags.
func (e *ociExec) describe(r *oci.Runtime, id string, argv []string) (*specs.Process, error) {
	if e.process != "" {
		p, err := oci.ReadProcess(e.process)
		if err != nil {
			return nil, err
		}
		if len(p.Args) == 0 {
			return nil, fmt.Errorf("read %s: args: expected a command", e.process)
		}
		p.Terminal = p.Terminal || e.tty
		return p, nil
	}
	own, err := r.Process(id)
	if err != nil {
		return nil, err
	}
	p := *own
	p.Args, p.Terminal, p.NoNewPrivileges = argv, e.tty, p.NoNewPrivileges || e.noNewPrivs
	p.Env = append(slices.Clone(p.Env), e.env...)
	if e.cwd != "" {
		p.Cwd = e.cwd
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
func (e *ociExec) addUser(p *specs.Process) error {
	p.User.AdditionalGids = slices.Clone(p.User.AdditionalGids)
	for _, g := range e.groups {
		if g > math.MaxUint32 {
			return usagef("--additional-gids: expected the number of a group, got %d", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	if e.user == "" {
		return nil
	}
	uid, gid, hasGID := strings.Cut(e.user, ":")
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return usagef("--user: expected UID[:GID] in numbers, got %q", e.user)
	}
	p.User.UID = uint32(n)
	if hasGID {
		if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
			return usagef("--user: expected UID[:GID] in numbers, got %q", e.user)
		}
		p.User.GID = uint32(n)
	}
	return nil
}

// begun writes the pid file: this process ends as the command does. A command
// that nobody could find is ended.
func (e *ociExec) begun(ctx context.Context, c *sentry.Control, pid int32) error {
	if e.pidFile == "" {
		return nil
	}
	err := oci.WritePIDFile(e.pidFile, os.Getpid())
	if err != nil {
		err = errors.Join(err, c.SignalPID(ctx, unix.SIGKILL, pid))
	}
	return err
}

func (e *ociExec) addCaps(p *specs.Process) error {
	if len(e.caps) == 0 {
		return nil
	}
	var c specs.LinuxCapabilities
	if p.Capabilities != nil {
		c = *p.Capabilities
	}
	for _, n := range e.caps {
		n = strings.ToUpper(n)
		if !slices.Contains(setup.CapabilityNames(), n) {
			return usagef("--cap: expected a capability such as CAP_NET_ADMIN, got %q", n)
		}
		// Ambient, and inheritable for that: a command that is not root's keeps it.
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
			*set = append(slices.Clone(*set), n)
		}
	}
	p.Capabilities = &c
	return nil
}

// processFile is a file in memory that describes a process.
func processFile(p *specs.Process) (*os.File, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode process: %w", err)
	}
	fd, err := unix.MemfdCreate("process", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "process")
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(fmt.Errorf("write process: %w", err), f.Close())
	}
	return f, nil
}

// detachExec starts this program again. That process waits for the command, and an
// OCI client takes it for the command.
func (a *app) detachExec(f *ociFlags, e *ociExec, id string, argv []string, p *specs.Process, more []*os.File) error {
	if err := pair.PrepareProcess(); err != nil {
		return err
	}
	streams, err := a.streams()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("create pipe: %w", err)
	}
	defer r.Close()
	args := []string{
		"oci", "--root", f.root, "--sentry", f.programs.sentry, "--gofer", f.programs.gofer, "exec",
		"--preserve-fds", strconv.Itoa(len(more)), "--started-fd", strconv.Itoa(3 + len(more)),
	}
	extra := append(slices.Clone(more), w)
	if e.process != "" {
		// It is read once: a pipe, such as <(...) of a shell, has no second time.
		described, err := processFile(p)
		if err != nil {
			return errors.Join(err, w.Close())
		}
		defer described.Close()
		args = append(args, "--process", fmt.Sprintf("/proc/self/fd/%d", 3+len(extra)))
		extra = append(extra, described)
	}
	for _, v := range []struct{ flag, value string }{
		{"--console-socket", e.console}, {"--cwd", e.cwd}, {"--user", e.user}, {"--pid-file", e.pidFile},
	} {
		if v.value != "" {
			args = append(args, v.flag, v.value)
		}
	}
	for _, v := range e.env {
		args = append(args, "--env", v)
	}
	for _, v := range e.caps {
		args = append(args, "--cap", v)
	}
	for _, v := range e.groups {
		args = append(args, "--additional-gids", strconv.FormatUint(uint64(v), 10))
	}
	if e.tty {
		args = append(args, "--tty")
	}
	if e.paused {
		args = append(args, "--ignore-paused")
	}
	if e.noNewPrivs {
		args = append(args, "--no-new-privs")
	}
	cmd := exec.Command("/proc/self/exe", append(append(args, id), argv...)...)
	cmd.Args[0] = "sandboxctl"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams[0], streams[1], streams[2]
	cmd.ExtraFiles = extra
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start waiting process: %w", err)
	}
	// Nothing if it has started, else why not.
	said, err := io.ReadAll(io.LimitReader(r, 4096))
	if err == nil && len(said) == 0 {
		err = errors.New("the waiting process ended")
	}
	if err == nil && string(said) != execStarted {
		err = errors.New(clean(string(said)))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("exec failed: %w", err), cmd.Wait())
	}
	return cmd.Process.Release()
}

// execStarted is what the waiting process says when its command runs.
const execStarted = "started"

// execDetached runs a command on our own streams or on a terminal that is sent
// away, tells when it runs, and ends as it does.
func (a *app) execDetached(ctx context.Context, r *oci.Runtime, id string, e *ociExec, c *sentry.Control, args wire.ExecArgs) error {
	started := os.NewFile(uintptr(e.started), "started")
	if started == nil {
		return usagef("--started-fd: no such descriptor")
	}
	unix.CloseOnExec(e.started)
	relayed, err := newRelay()
	if err != nil {
		return err
	}
	pid, err := a.executeOn(ctx, e, c, args, relayed)
	if err == nil {
		err = e.begun(ctx, c, pid)
	}
	if err != nil {
		_, werr := fmt.Fprintf(started, "%v", execError(args.Argv[0], err))
		return errors.Join(&exitError{code: exitFailure}, werr, relayed.abort())
	}
	if _, err := started.WriteString(execStarted); err != nil {
		return fmt.Errorf("tell that it runs: %w", err)
	}
	if err := started.Close(); err != nil {
		return fmt.Errorf("tell that it runs: %w", err)
	}
	ctx = context.WithoutCancel(ctx)
	x := &execution{a: a, store: r.Store(), name: id, c: c, oci: true}
	if args.StdioIsPty {
		defer x.forwardTerminal(ctx, pid)()
	} else {
		defer x.forwardSignals(ctx, pid, x.listen(), relayed.broken)()
	}
	status, err := c.WaitPID(ctx, pid)
	if err = errors.Join(err, relayed.finish()); err != nil {
		return err
	}
	return exitStatus(status)
}

func (a *app) executeOn(ctx context.Context, e *ociExec, c *sentry.Control, args wire.ExecArgs, relayed *relay) (int32, error) {
	if !args.StdioIsPty {
		streams, err := relayed.streams(a)
		if err != nil {
			return 0, err
		}
		pid, err := c.Execute(ctx, args, streams[:]...)
		if err != nil {
			return 0, err
		}
		return pid, relayed.started()
	}
	if e.console == "" {
		return 0, errors.New("a terminal needs --console-socket")
	}
	tty, err := oci.OpenTerminal(e.console, e.size)
	if err != nil {
		return 0, err
	}
	// The kernel turns its keys and its change of size into signals for the
	// session that has it.
	if err := unix.IoctlSetInt(int(tty.Fd()), unix.TIOCSCTTY, 0); err != nil {
		return 0, errors.Join(fmt.Errorf("take terminal: %w", err), tty.Close())
	}
	pid, err := c.Execute(ctx, args, tty, tty, tty)
	return pid, errors.Join(err, tty.Close())
}

// forwardTerminal passes the signals of a terminal on to what the command has in
// its foreground.
func (x *execution) forwardTerminal(ctx context.Context, pid int32) (stop func()) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH, unix.SIGHUP)
	go func() {
		for s := range ch {
			x.signalForeground(ctx, pid, s.(unix.Signal))
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
}
