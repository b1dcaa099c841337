// SPDX-License-Identifier: Apache-2.0

// Package processtest has processes for tests of what recognises and watches processes.
// It is apart from package process, whose own tests use it too.
package processtest

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Child starts a process that lives until its input ends, cat if no command is given. The
// pidfd is closed, and the process killed, at the end of the test.
func Child(t *testing.T, command ...string) (cmd *exec.Cmd, pidfd int) {
	t.Helper()
	if len(command) == 0 {
		command = []string{"cat"}
	}
	cmd = exec.Command(command[0], command[1:]...)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // its end is no news: it was killed
	})
	pidfd, err = unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd) })
	return cmd, pidfd
}
