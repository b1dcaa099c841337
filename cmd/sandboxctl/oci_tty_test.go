// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/console"

	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
)

// A container with a terminal, and a command in one: ours is connected to it,
// with its size, keys that are signals, and lines that end once.
func TestRuntimeTerminal(t *testing.T) {
	c := newClient(t)
	must(t, os.WriteFile(filepath.Join(c.work, "config.json"), []byte(`{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"terminal":true,
"args":["/bin/sh","-c","trap 'echo interrupted' INT; trap 'busybox stty size' WINCH; test -t 0 && test -t 1 && echo a tty; busybox stty size; echo ready; read line; echo line $line; while ! test -e /over; do sleep 0.1; done; exit 5"],
"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]},"linux":{"namespaces":[{"type":"network"},{"type":"pid"}]}}`), 0o644))
	runtime := filepath.Join(c.work, "bin", ocicmd.Name)
	t.Cleanup(func() {
		if out, err := exec.Command(runtime, "delete", "--force", "c").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	x := newTerminal(t)
	before := x.settings()
	start := func(args ...string) *exec.Cmd {
		cmd := exec.Command(runtime, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = x.tty, x.tty, x.tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		must(t, cmd.Start())
		return cmd
	}
	over := func(cmd *exec.Cmd, want int) {
		t.Helper()
		if code := exitCode(cmd.Wait()); code != want {
			t.Errorf("exit code %d", code)
		}
		if now := x.settings(); now != before {
			t.Errorf("the terminal is not what it was: %+v, before %+v", now, before)
		}
	}
	run := start("run", "--bundle", c.work, "c")
	x.see("a tty\r\n31 91\r\nready\r\n")
	x.typed("hello\r")
	x.see("line hello\r\n")
	x.typed("\x03")
	x.see("interrupted\r\n")
	must(t, x.pty.Resize(console.WinSize{Width: 77, Height: 22}))
	x.see("22 77\r\n")
	must(t, exec.Command(runtime, "exec", "c", "/bin/touch", "/over").Run())
	over(run, 5)

	must(t, os.Remove(filepath.Join(c.work, "rootfs", "over")))
	socket := filepath.Join(c.work, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	defer ln.Close()
	must(t, exec.Command(runtime, "run", "--detach", "--console-socket", socket, "--bundle", c.work, "c").Run())
	in := start("exec", "-t", "c", "/bin/sh", "-c", "trap 'echo stopped' INT; echo second; while ! read line; do :; done; busybox stty size; exit 6")
	x.see("second\r\n")
	x.interrupt("stopped\r\n")
	x.typed("\r")
	x.see("stopped\r\n\r\n22 77\r\n")
	over(in, 6)
	if text := x.text(); strings.Contains(text, "\r\r") {
		t.Errorf("a line ends twice:\n%q", text)
	}
}
