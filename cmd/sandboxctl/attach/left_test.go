// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		own, err := Reopen(c.f, c.access)
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
	own, err := Reopen(null, unix.O_WRONLY)
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
		if own, err := Reopen(f, unix.O_RDONLY); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v, %v", what, own, err)
		}
	}
}
