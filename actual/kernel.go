// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Kernel is what is asked of a kernel about processes. The simulator has one of its
// own.
type Kernel interface {
	// BootID identifies the running boot of the host.
	BootID() (string, error)
	// PIDNamespace is the inode of this program's pid namespace, 0 if it can't be
	// told.
	PIDNamespace() uint64
	// PidfdOpen opens the process that has the number now.
	PidfdOpen(pid int) (Pidfd, error)
	// StartTime is that of the process that has the number now, in clock ticks since
	// boot.
	StartTime(pid int) (uint64, error)
}

// Pidfd is a descriptor of one process: it can't come to mean another.
type Pidfd interface {
	// Inode is 0 where inodes do not tell processes apart.
	Inode() (uint64, error)
	// Dead is true of a zombie.
	Dead() (bool, error)
	// Wait blocks until it is dead (nil) or ctx is done.
	Wait(ctx context.Context) error
	Signal(sig unix.Signal) error
	// Reap collects a dead child of this program (see Reap).
	Reap() bool
	// FD is the descriptor, -1 of a simulated process.
	FD() int
	Close() error
}

// Processes finds the processes of one kernel.
type Processes struct{ Kernel }

// Host are the processes of the kernel that this program runs on.
var Host = Processes{kernel{}}

type kernel struct{}

func (kernel) BootID() (string, error)           { return BootID() }
func (kernel) PIDNamespace() uint64              { return pidNamespace() }
func (kernel) StartTime(pid int) (uint64, error) { return startTime(pid) }

func (kernel) PidfdOpen(pid int) (Pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	return pidfd(fd), nil
}

// pidfd is a descriptor of the kernel's.
type pidfd int

func (p pidfd) Inode() (uint64, error) { return pidfdInode(int(p)) }

func (p pidfd) Dead() (bool, error) { return p.poll(0) }

// waitSlice is how often Wait looks at its context.
const waitSlice = 50 // ms

func (p pidfd) Wait(ctx context.Context) error {
	for {
		switch dead, err := p.poll(waitSlice); {
		case dead:
			return nil
		case err != nil:
			return fmt.Errorf("wait for process: %w", err)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// poll says whether the process is dead, or dies within so many milliseconds.
func (p pidfd) poll(patience int) (dead bool, err error) {
	fds := [1]unix.PollFd{{Fd: int32(p), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds[:], patience)
		if errors.Is(err, unix.EINTR) {
			if patience == 0 {
				continue
			}
			return false, nil
		}
		return n > 0, err
	}
}

func (p pidfd) Reap() bool   { return Reap(int(p)) }
func (p pidfd) FD() int      { return int(p) }
func (p pidfd) Close() error { return unix.Close(int(p)) }
