// SPDX-License-Identifier: Apache-2.0

package ocicmd

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/attach"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/oci"
	"sandboxctl.dev/launcher/pair"
	"sandboxctl.dev/launcher/proc"
)

// handOver is what the process that waits for a detached command gets of the one that
// was called: everything. It is not told again on a command line, where a flag that
// somebody forgot would be lost in silence. (TestExecHandsOver)
type handOver struct {
	Flags Flags
	Exec  execFlags
	ID    string
	// Process is the command. It is described once: --process may be a pipe, such as
	// <(...) of a shell, and has no second time.
	Process process
}

// Descriptors of the waiting process beside its streams.
const (
	handOverFD  = 3 + iota // a file in memory with the handOver
	startedFD              // a pipe, to tell that the command runs, or why not
	preservedFD            // and those that follow: --preserve-fds
)

// attendVerb is the verb of the waiting process.
const attendVerb = "attend-exec"

// commandRuns is what the waiting process writes when its command runs.
const commandRuns = "started"

// file is a file in memory with what is handed over. It is encoded with gob, as JSON
// replaces what is not UTF-8, which paths may be.
func (h *handOver) file() (*os.File, error) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(h); err != nil {
		return nil, fmt.Errorf("encode exec: %w", err)
	}
	return proc.MemFile("exec", b.Bytes())
}

// process is the description of a command, as JSON within gob: gob makes no difference
// between an umask of 0 and none.
type process struct{ *specs.Process }

// GobEncode implements gob.GobEncoder.
func (p process) GobEncode() ([]byte, error) { return json.Marshal(p.Process) }

// GobDecode implements gob.GobDecoder.
func (p *process) GobDecode(b []byte) error { return json.Unmarshal(b, &p.Process) }

// detach starts this program again. That process waits for the command, and an
// OCI client takes it for the command.
func (v *Verbs) detach(h *handOver, more []*os.File) error {
	if err := pair.PrepareProcess(); err != nil {
		return err
	}
	streams, err := v.streams.Files()
	if err != nil {
		return err
	}
	given, err := h.file()
	if err != nil {
		return err
	}
	defer given.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("create pipe: %w", err)
	}
	defer r.Close()
	// --root and the id are for people who look at the processes of the host.
	cmd := exec.Command("/proc/self/exe", Verb, "--root", h.Flags.Root, attendVerb, h.ID)
	cmd.Args[0] = "sandboxctl"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams[0], streams[1], streams[2]
	cmd.ExtraFiles = append([]*os.File{given, w}, more...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start waiting process: %w", err)
	}
	report, err := io.ReadAll(io.LimitReader(r, 4096))
	switch {
	case err != nil:
	case len(report) == 0:
		err = errors.New("the waiting process ended")
	case string(report) != commandRuns:
		err = errors.New(show.Clean(string(report)))
	default:
		return cmd.Process.Release()
	}
	return errors.Join(fmt.Errorf("exec failed: %w", err), cmd.Wait())
}

func (v *Verbs) attendCommand() *cobra.Command {
	return &cobra.Command{
		Use: attendVerb + " ID", Hidden: true, Args: exit.Args("ID"),
		Short:   "Wait for a detached command (not for people)",
		Long:    "Wait for a detached command and end as it does. `exec --detach` leaves this process behind.",
		Example: "  sandboxctl oci exec --detach web sleep 60",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, started, err := received()
			if err != nil {
				return err
			}
			v.flags = h.Flags
			return v.with(func(r *oci.Runtime) error { return v.attend(cmd.Context(), r, h, started) })
		},
	}
}

// received is what detach has handed over.
func received() (*handOver, *os.File, error) {
	f, started := os.NewFile(handOverFD, "exec"), os.NewFile(startedFD, "started")
	for fd := handOverFD; fd <= startedFD; fd++ {
		unix.CloseOnExec(fd)
	}
	h, err := decodeHandOver(f)
	return h, started, errors.Join(err, f.Close())
}

func decodeHandOver(r io.Reader) (*handOver, error) {
	h := &handOver{}
	err := gob.NewDecoder(r).Decode(h)
	if err == nil && (h.Process.Process == nil || len(h.Process.Args) == 0) {
		err = errors.New("no command was handed over")
	}
	if err != nil {
		return nil, exit.Usagef("this verb is for the program itself: %w", err)
	}
	return h, nil
}

// attend runs a command on our own streams or on a terminal that is sent away, tells
// when it runs, and ends as it does.
func (v *Verbs) attend(ctx context.Context, r *oci.Runtime, h *handOver, started *os.File) (err error) {
	// What goes wrong before the command runs is told by the process that was called.
	told := func(err error) error {
		_, werr := fmt.Fprintf(started, "%v", err)
		return errors.Join(&exit.Error{Code: exit.Failure}, werr)
	}
	c, err := h.Exec.command(ctx, r, h.ID, h.Process.Process)
	if err != nil {
		return told(err)
	}
	defer c.Control.Close()
	more, err := preserved(preservedFD, h.Exec.Preserve)
	if err != nil {
		return told(err)
	}
	c.Control.Preserve(more)
	signals := c.Signals()
	if h.Process.Terminal {
		// Those that the kernel sends for its keys and its size.
		signals = []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH, unix.SIGHUP}
	}
	ctx, s, err := attach.Open(ctx, v.streams, attach.Options{Signals: signals})
	if err != nil {
		return told(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := h.start(ctx, s, c); err != nil {
		return told(attach.CommandError(h.Process.Args[0], err))
	}
	if _, err := started.WriteString(commandRuns); err != nil {
		return fmt.Errorf("tell that it runs: %w", err)
	}
	if err := started.Close(); err != nil {
		return fmt.Errorf("tell that it runs: %w", err)
	}
	code, err := s.Run(ctx, c)
	if err != nil {
		return c.Explain(ctx, err)
	}
	return exit.Code(code)
}

// start starts the command with the ends of its streams.
func (h *handOver) start(ctx context.Context, s *attach.Session, c *attach.Command) error {
	if !h.Process.Terminal {
		ends, err := s.Pipes(true)
		if err != nil {
			return err
		}
		return c.Start(ctx, ends)
	}
	if h.Exec.Console == "" {
		return errors.New("a terminal needs --console-socket")
	}
	tty, err := oci.OpenTerminal(h.Exec.Console, h.Process.ConsoleSize)
	if err != nil {
		return err
	}
	// The kernel turns its keys and its change of size into signals for the
	// session that has it.
	if err := unix.IoctlSetInt(int(tty.Fd()), unix.TIOCSCTTY, 0); err != nil {
		return errors.Join(fmt.Errorf("take terminal: %w", err), tty.Close())
	}
	return errors.Join(c.Start(ctx, [3]*os.File{tty, tty, tty}), tty.Close())
}
