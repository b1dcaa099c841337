// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/pty"
)

// ownTerminal makes the terminal of an application that nobody sits at. The gofer reads
// its master side as it reads a pipe: what the application writes goes into a log, so
// that a newline stays one, and what it reads is not there. It has the size that
// programs take for granted.
func ownTerminal(toGofer *proc.Donation) (masterFD int, _ *stdio, err error) {
	master, slave, err := pty.Open()
	if err != nil {
		return -1, nil, err
	}
	masterFD = toGofer.Give(master)
	defer slave.Close()
	if err := setTerminal(int(slave.Fd())); err != nil {
		return -1, nil, fmt.Errorf("set up terminal: %w", err)
	}
	s, err := (&Streams{Files: [3]*os.File{slave, slave, slave}}).dup()
	return masterFD, s, err
}

func setTerminal(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return err
	}
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
}
