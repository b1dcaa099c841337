// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Kernel is what is asked of a kernel about processes. The simulator has one of its
// own.
type Kernel interface {
	// BootID identifies the running boot of the host.
	BootID() (string, error)
	// PIDNamespace is the inode of this program's pid namespace.
	PIDNamespace() (uint64, error)
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
func (kernel) PIDNamespace() (uint64, error)     { return pidNamespace() }
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

// waitSlice is how often Wait looks at its context where the poller can't be used.
const waitSlice = 50 // ms

// Wait implements Pidfd. The runtime's poller waits for all of them: a thread for each,
// blocked in a system call, would cost a daemon that ends many sandboxes megabytes.
func (p pidfd) Wait(ctx context.Context) error {
	for patience := 0; ; {
		switch dead, err := p.poll(patience); {
		case dead:
			return nil
		case err != nil:
			return fmt.Errorf("wait for process: %w", err)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if p.park(ctx) != nil {
			patience = waitSlice // no descriptor, or no room in the poller
		}
	}
}

// park waits in the runtime's poller until the process is dead or ctx is done.
func (p pidfd) park(ctx context.Context) error {
	// The poller closes its descriptor, and this one is the caller's.
	fd, err := unix.FcntlInt(uintptr(p), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	// A deadline that is over is how the poller is told to give up.
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	err = conn.Read(func(uintptr) bool {
		dead, err := p.Dead()
		return dead || err != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
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

// Ended says of a number that no process has it now, but perhaps a zombie. Not knowing
// is no.
func Ended(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	p := Handle{pidfd(fd)}
	defer p.Close()
	return p.Alive() == Dead
}
