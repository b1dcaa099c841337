// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RunGroup runs a command as the leader of a process group, which is killed whole
// when ctx is done, and waits for it. oomScore is the score of the group, from -1000
// to 1000; nil leaves it this process's. A child of the command that keeps its output
// open is waited for a second, and then the error is exec.ErrWaitDelay.
func RunGroup(ctx context.Context, cmd *exec.Cmd, oomScore *int) error {
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}
	cmd.WaitDelay = time.Second
	if err := StartCommand(cmd); err != nil {
		return err
	}
	if oomScore != nil {
		// One that is over already has none any more.
		_ = setOOMScore(cmd.Process.Pid, *oomScore)
	}
	return waitGroup(ctx, cmd, pidfd)
}

// waitGroup waits for a command that leads a process group. When ctx is done it
// kills the group.
func waitGroup(ctx context.Context, cmd *exec.Cmd, pidfd int) error {
	if pidfd < 0 {
		return errors.Join(errors.New("the kernel gives no pidfd"), cmd.Process.Kill(), cmd.Wait())
	}
	defer unix.Close(pidfd)
	// It stays a zombie, and with it the group what it is, until Wait.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = RetryEINTR(func() error { return unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOWAIT, nil) })
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		if err := killGroup(cmd.Process.Pid); err != nil {
			return errors.Join(fmt.Errorf("kill: %w", err), cmd.Wait())
		}
		<-ended
	}
	return cmd.Wait()
}

// killGroup kills the process group that a child of this process leads. The child
// must not have been waited for: it is a zombie at least, so that neither its number
// nor that of the group can be another one's. A pidfd can stand for its group since
// Linux 6.9 only; before, what a hook has started would survive it.
func killGroup(leader int) error {
	if leader <= 1 {
		return fmt.Errorf("%d leads no group of a child", leader) // -1 is every process
	}
	if err := unix.Kill(-leader, unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
