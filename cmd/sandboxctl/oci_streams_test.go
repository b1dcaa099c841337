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

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// What is opened anew is the same file, and not the same open file.
func TestReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pr, pw, err := blockingPipe()
	must(t, err)
	defer pr.Close()
	defer pw.Close()
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	both, err := os.OpenFile(fifo, os.O_RDWR, 0)
	must(t, err)
	defer both.Close()
	for name, c := range map[string]struct {
		f      *os.File
		access int
	}{"read end": {pr, unix.O_RDONLY}, "write end": {pw, unix.O_WRONLY}, "fifo to read": {both, unix.O_RDONLY}, "fifo to write": {both, unix.O_WRONLY}} {
		own, err := reopen(c.f, c.access)
		must(t, err)
		same, err := sameOpenFile(c.f, own)
		must(t, err)
		a, err := c.f.Stat()
		must(t, err)
		b, err := own.Stat()
		must(t, err)
		if same || !os.SameFile(a, b) {
			t.Errorf("%s: the same open file: %t, the same file: %t", name, same, os.SameFile(a, b))
		}
		if flags, err := unix.FcntlInt(c.f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("%s: flags of the caller's are %#x, %v", name, flags, err)
		}
		// The application inherits them: it would not wait for input.
		if flags, err := unix.FcntlInt(own.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("%s: flags of the new one are %#x, %v", name, flags, err)
		}
		must(t, own.Close())
	}
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	own, err := reopen(null, unix.O_WRONLY)
	must(t, err)
	own.Close()

	pty, path, err := console.NewPty()
	must(t, err)
	defer pty.Close()
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer tty.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	socket, peer := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "peer")
	defer socket.Close()
	defer peer.Close()
	folder, err := os.Open(dir)
	must(t, err)
	defer folder.Close()
	for what, f := range map[string]*os.File{"device": tty, "socket": socket, "directory": folder} {
		if own, err := reopen(f, unix.O_RDONLY); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v, %v", what, own, err)
		}
	}
}

// A container that nobody waits for has streams of its own, whatever its creator's
// are, and what it writes arrives.
func TestCreateStreams(t *testing.T) {
	c := newClient(t)
	must(t, os.WriteFile(filepath.Join(c.work, "config.json"), []byte(`{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{
"args":["/bin/sh","-c","busybox cat; echo out; echo err >&2"],"cwd":"/","user":{"uid":0,"gid":0},"env":["PATH=/bin"]},"linux":{"namespaces":[{"type":"network"},{"type":"pid"}]}}`), 0o644))
	runtime := filepath.Join(c.work, "bin", ociName)
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
