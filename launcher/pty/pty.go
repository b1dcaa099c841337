// SPDX-License-Identifier: Apache-2.0

// Package pty opens pseudo-terminals. The terminal of an application, of a
// container and of a command that somebody sits at are all made here: each is
// opened by its master's descriptor, never by a path below /dev/pts. Which devpts
// is mounted there does not matter then, and a terminal of another one with the
// same number is never opened in its place.
package pty

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Open makes a terminal and returns both of its sides.
func Open() (master, slave *os.File, err error) {
	// Not blocking: closing the file ends a read, as with one that os has opened.
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make terminal: %w", err)
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(m)
		return nil, nil, fmt.Errorf("unlock terminal: %w", err)
	}
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		unix.Close(m)
		return nil, nil, fmt.Errorf("open terminal: %w", errno)
	}
	return os.NewFile(uintptr(m), "/dev/ptmx"), os.NewFile(s, "terminal"), nil
}
