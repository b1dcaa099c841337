// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
)

// A container that nobody waits for has streams of its own, whatever its creator's
// are, and what it writes arrives.
func TestCreateStreams(t *testing.T) {
	c := newClient(t)
	must(t, os.WriteFile(filepath.Join(c.work, "config.json"), []byte(`{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{
"args":["/bin/sh","-c","busybox cat; echo out; echo err >&2"],"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]},"linux":{"namespaces":[{"type":"network"},{"type":"pid"}]}}`), 0o644))
	runtime := filepath.Join(c.work, "bin", ocicmd.Name)
	pair := func() (*os.File, *os.File) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	}
	input := filepath.Join(t.TempDir(), "in")
	must(t, os.WriteFile(input, []byte("skipped\ninput\n"), 0o600))
	for name, streams := range map[string]func() (in, out *os.File, read func() string){
		"pipes": func() (*os.File, *os.File, func() string) {
			in, feed, err := blockingPipe()
			must(t, err)
			_, err = feed.WriteString("input\n")
			must(t, err)
			feed.Close()
			r, w, err := blockingPipe()
			must(t, err)
			return in, w, func() string { b, _ := io.ReadAll(r); r.Close(); return string(b) }
		},
		"sockets": func() (*os.File, *os.File, func() string) {
			in, feed := pair()
			_, err := feed.WriteString("input\n")
			must(t, err)
			feed.Close()
			r, w := pair()
			return in, w, func() string { b, _ := io.ReadAll(r); r.Close(); return string(b) }
		},
		"files": func() (*os.File, *os.File, func() string) {
			in, err := os.Open(input)
			must(t, err)
			_, err = in.Seek(int64(len("skipped\n")), io.SeekStart)
			must(t, err)
			out, err := os.CreateTemp(t.TempDir(), "out")
			must(t, err)
			_, err = out.WriteString("before\n")
			must(t, err)
			return in, out, func() string {
				deadline := time.Now().Add(20 * time.Second)
				for {
					b, err := os.ReadFile(out.Name())
					must(t, err)
					if strings.Count(string(b), "\n") == 4 || time.Now().After(deadline) {
						return strings.TrimPrefix(string(b), "before\n")
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in, out, read := streams()
			cmd := exec.Command(runtime, "create", "--bundle", c.work, name)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
			must(t, cmd.Run())
			t.Cleanup(func() {
				if out, err := exec.Command(runtime, "delete", "--force", name).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
			for _, f := range []*os.File{in, out} {
				if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
					t.Errorf("flags are %#x, %v", flags, err)
				}
			}
			in.Close()
			must(t, exec.Command(runtime, "start", name).Run())
			out.Close()
			got := read()
			if !strings.HasPrefix(got, "input\n") || !strings.Contains(got, "out\n") || !strings.Contains(got, "err\n") {
				t.Errorf("%q", got)
			}
		})
	}
	// What can't be opened twice is not preserved.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	must(t, err)
	defer ln.Close()
	socket, err := ln.File()
	must(t, err)
	defer socket.Close()
	cmd := exec.Command(runtime, "create", "--preserve-fds", "1", "--bundle", c.work, "preserved")
	cmd.ExtraFiles = []*os.File{socket}
	b, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(b), "descriptor 3 is a socket") {
		t.Errorf("a socket is preserved: %v %s", err, b)
	}
}
