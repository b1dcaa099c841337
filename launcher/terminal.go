// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/proc"
)

// newTerminal makes a terminal for an application that nobody sits at: what it
// writes goes into a log, so that a newline stays one, and what it reads is not
// there. It has the size that programs take for granted.
func newTerminal() (master, slave *os.File, err error) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make terminal: %w", err)
	}
	master = os.NewFile(uintptr(m), "terminal")
	fail := func(what string, err error) (*os.File, *os.File, error) {
		return nil, nil, errors.Join(fmt.Errorf("%s terminal: %w", what, err), master.Close())
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		return fail("unlock", err)
	}
	// By descriptor: which devpts is mounted at /dev/pts does not matter.
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fail("open", errno)
	}
	slave = os.NewFile(s, "terminal")
	if err := setTerminal(int(s)); err != nil {
		err = errors.Join(err, slave.Close())
		return fail("set up", err)
	}
	return master, slave, nil
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

// ownTerminal makes the terminal of an application that has no client. The gofer
// reads its master side as it reads a pipe.
func ownTerminal(toGofer *proc.Donation) (masterFD int, _ *stdio, err error) {
	master, slave, err := newTerminal()
	if err != nil {
		return -1, nil, err
	}
	masterFD = toGofer.Give(master)
	defer slave.Close()
	s, err := (&streams{files: [3]*os.File{slave, slave, slave}}).dup()
	return masterFD, s, err
}
