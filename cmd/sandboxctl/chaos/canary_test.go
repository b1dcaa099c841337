// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// canaryName is the name under which this test binary is a canary: a process
// that nobody has any business with, and that tells if it was signalled.
const canaryName = "sandboxctl-chaos-canary"

const canarySignalled = 3

// canary waits for the end of its input, or for a signal.
func canary() int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals)
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
		return 1
	}
	for {
		select {
		case s := <-signals:
			if s != unix.SIGURG { // of Go's scheduler
				fmt.Fprintf(os.Stderr, "canary %d: %v\n", os.Getpid(), s)
				return canarySignalled
			}
		case <-done:
			return 0
		}
	}
}

// canaries are processes that must not be signalled.
type canaries struct {
	t    testing.TB
	list []*exec.Cmd
	in   []io.Closer
}

// add starts one that listens, and returns its pid.
func (c *canaries) add() int {
	c.t.Helper()
	self, err := os.Executable()
	must(c.t, err)
	cmd := &exec.Cmd{Path: self, Args: []string{canaryName}, Stderr: os.Stderr}
	in, err := cmd.StdinPipe()
	must(c.t, err)
	out, err := cmd.StdoutPipe()
	must(c.t, err)
	must(c.t, cmd.Start())
	c.list, c.in = append(c.list, cmd), append(c.in, in)
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		c.t.Fatalf("canary: %v", err)
	}
	return cmd.Process.Pid
}

// recycle starts one under a number that has just been a sandbox's, and says
// whether that came about: others start processes too.
func (c *canaries) recycle(pid int) bool {
	c.t.Helper()
	// The pid is free when the parent that inherited the process has reaped it.
	for range 200 {
		if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for range 3 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			c.t.Logf("no number can be given again here: %v", err)
			return false
		}
		if c.add() == pid {
			return true
		}
	}
	return false
}

// release ends the oldest until n are left: each must be there unharmed.
func (c *canaries) release(n int) {
	c.t.Helper()
	for len(c.list) > n {
		must(c.t, c.in[0].Close())
		if err := c.list[0].Wait(); err != nil {
			c.t.Errorf("a process that is none of ours was signalled: %v", err)
		}
		c.list, c.in = c.list[1:], c.in[1:]
	}
}
