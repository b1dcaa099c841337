// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/pty"
)

// errTerminalClosed ends a command whose terminal is no more.
var errTerminalClosed = errors.New("the terminal was closed")

// onTerminal runs a command on a terminal of its own, connected to ours.
func (x *execution) onTerminal(ctx context.Context, cancel context.CancelCauseFunc) (status unix.WaitStatus, err error) {
	x.args.StdioIsPty = true
	if os.Getenv("TERM") != "" {
		x.args.Envv = append(x.args.Envv, "TERM="+os.Getenv("TERM"))
	}
	in, ok := x.a.stdin.(*os.File)
	if !ok {
		return 0, errors.New("standard input is not a file")
	}
	ours, err := console.ConsoleFromFile(in)
	if err != nil {
		return 0, fmt.Errorf("open terminal: %w", err)
	}
	master, tty, err := pty.Open()
	if err != nil {
		return 0, err
	}
	defer master.Close()
	theirs, err := console.ConsoleFromFile(master)
	if err == nil {
		err = matchTerminal(theirs, ours)
	}
	if err != nil {
		return 0, errors.Join(err, tty.Close())
	}
	signals := x.listen()
	pid, err := x.c.Execute(ctx, x.args, tty, tty, tty)
	// The sandbox has it now: when it closes it, ours reads the end.
	if err = errors.Join(err, tty.Close()); err != nil {
		return 0, err
	}
	if err := x.start(pid); err != nil {
		return 0, err
	}
	defer x.forwardSignals(ctx, pid, signals, nil)()
	if err := ours.SetRaw(); err != nil {
		return 0, fmt.Errorf("set terminal raw: %w", err)
	}
	defer func() {
		if rerr := ours.Reset(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("reset terminal: %w", rerr))
		}
	}()
	defer x.a.resize(ours, theirs)()

	r, err := newRelay()
	if err != nil {
		return 0, err
	}
	if err := r.terminal(theirs, x.a.stdout); err != nil {
		return 0, err
	}
	keys := &keyboard{pty: theirs, signal: func(sig unix.Signal) { x.signalForeground(ctx, pid, sig) }}
	go func() {
		// A terminal never ends but for good.
		_, _ = io.Copy(keys, reader(in))
		cancel(errTerminalClosed)
	}()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case told := <-r.broken:
			cancel(errTerminalClosed)
			close(told)
		case <-ended:
		}
	}()
	if status, err = x.c.WaitPID(ctx, pid); err != nil {
		return 0, err
	}
	return status, r.finish()
}

// matchTerminal makes a terminal what goes with ours: of its size, and with ends of
// lines as they are, as ours turns them into those of a terminal also when it is raw.
func matchTerminal(pty, ours console.Console) error {
	if err := pty.ResizeFrom(ours); err != nil {
		return fmt.Errorf("set size of terminal: %w", err)
	}
	if err := console.ClearONLCR(pty.Fd()); err != nil {
		return fmt.Errorf("set up terminal: %w", err)
	}
	return nil
}

// keyboard passes what is typed to the terminal of a command. The kernel would
// turn keys such as Ctrl-C into signals for the processes that have it as their
// terminal, but those are not its own: they are in the sandbox. So this does,
// under the same conditions.
type keyboard struct {
	pty    console.Console
	signal func(unix.Signal)
}

func (k *keyboard) Write(b []byte) (int, error) {
	n, err := k.pty.Write(b)
	// Those of the command: an editor turns them off.
	t, terr := unix.IoctlGetTermios(int(k.pty.Fd()), unix.TCGETS)
	if terr != nil || t.Lflag&unix.ISIG == 0 {
		return n, err
	}
	for _, c := range b[:n] {
		switch c {
		case t.Cc[unix.VINTR]:
			k.signal(unix.SIGINT)
		case t.Cc[unix.VQUIT]:
			k.signal(unix.SIGQUIT)
		case t.Cc[unix.VSUSP]:
			k.signal(unix.SIGTSTP)
		}
	}
	return n, err
}

// resize keeps the size of the command's terminal that of ours.
func (a *app) resize(ours, pty console.Console) (stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGWINCH)
	go func() {
		for range ch {
			_ = pty.ResizeFrom(ours) // the next change has another chance
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
}
