// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/pty"
)

// terminal is ours, and one of a process that is kept like it.
type terminal struct {
	in           *os.File
	ours, theirs console.Console
	master       *os.File
}

// openTerminal makes a terminal that is like ours, and returns what a process gets of it.
func openTerminal(stream io.Reader) (_ *terminal, tty *os.File, err error) {
	in, ok := stream.(*os.File)
	if !ok {
		return nil, nil, errors.New("standard input is not a file")
	}
	ours, err := console.ConsoleFromFile(in)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	master, tty, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	theirs, err := console.ConsoleFromFile(master)
	if err == nil {
		err = matchTerminal(theirs, ours)
	}
	if err != nil {
		return nil, nil, errors.Join(err, tty.Close(), master.Close())
	}
	return &terminal{in: in, ours: ours, theirs: theirs, master: master}, tty, nil
}

func (t *terminal) close() { _ = t.master.Close() }

// raw has our terminal pass on each key as it is.
func (t *terminal) raw() (restore func() error, err error) {
	if err := t.ours.SetRaw(); err != nil {
		return nil, fmt.Errorf("set terminal raw: %w", err)
	}
	return func() error {
		if err := t.ours.Reset(); err != nil {
			return fmt.Errorf("reset terminal: %w", err)
		}
		return nil
	}, nil
}

// resize gives the process's terminal the size of ours. The next change has another
// chance.
func (t *terminal) resize() { _ = t.theirs.ResizeFrom(t.ours) }

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
