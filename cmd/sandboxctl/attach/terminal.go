// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/pty"
)

// terminal is ours, and one of a process that is kept like it.
type terminal struct {
	in           *os.File
	ours, theirs console.Console
	master       *os.File

	// mu keeps the number of the master's descriptor from being another file's: keys
	// and changes of size come until this program ends.
	mu     sync.Mutex
	closed bool
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

func (t *terminal) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	_ = t.master.Close()
}

// raw has our terminal pass on each key as it is.
func (t *terminal) raw() (restore func() error, err error) {
	if err := t.ours.SetRaw(); err != nil {
		return nil, fmt.Errorf("set terminal raw: %w", err)
	}
	return func() error {
		// EIO: it was hung up, and there is nothing to reset.
		if err := t.ours.Reset(); err != nil && !errors.Is(err, unix.EIO) {
			return fmt.Errorf("reset terminal: %w", err)
		}
		return nil
	}, nil
}

// resize gives the process's terminal the size of ours. The next change has another
// chance.
func (t *terminal) resize() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		_ = t.theirs.ResizeFrom(t.ours)
	}
}

// settings are those of the process's terminal, nil if there are none any more.
func (t *terminal) settings() *unix.Termios {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	s, err := unix.IoctlGetTermios(int(t.master.Fd()), unix.TCGETS)
	if err != nil {
		return nil
	}
	return s
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
	terminal *terminal
	signal   func(unix.Signal)
}

func (k *keyboard) Write(b []byte) (int, error) {
	n, err := k.terminal.master.Write(b)
	// Those of the command: an editor turns them off.
	t := k.terminal.settings()
	if t == nil || t.Lflag&unix.ISIG == 0 {
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
