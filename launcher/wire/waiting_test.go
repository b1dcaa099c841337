// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// This test binary is also a process that waits.
func TestMain(m *testing.M) {
	if os.Args[0] != WaitingName {
		os.Exit(m.Run())
	}
	BeginWait()
	args, accept, err := Wait(os.Args)
	if errors.Is(err, io.EOF) {
		os.Exit(ExitGateClosed)
	}
	if err == nil {
		err = accept()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var open []int
	for fd := 3; fd < firstWaiting+waitingFDs; fd++ {
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); errno == 0 {
			open = append(open, fd)
		}
	}
	cmdline, err := os.ReadFile("/proc/self/cmdline")
	fmt.Fprintf(os.Stderr, "%q %q %v %v", args, bytes.TrimRight(cmdline, "\x00"), err, open)
	fmt.Fprint(os.NewFile(4, "second"), "second")
	os.Exit(7)
}

// waiter starts a process that waits, and returns our end of its socket.
func waiter(t *testing.T) (*exec.Cmd, *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	files, err := WaitingFDs(theirs, null)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args, cmd.ExtraFiles, cmd.Stderr = WaitingArgv("test", "/s"), files, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); _ = cmd.Wait() })
	var b [1]byte
	if n, err := syscall.Read(int(ours.Fd()), b[:]); n != 1 || err != nil || b[0] != prepared {
		t.Fatal(n, err, b)
	}
	return cmd, ours
}

// It has the command line and the descriptors of a process that was started with them, and
// nothing else.
func TestWait(t *testing.T) {
	t.Parallel()
	cmd, socket := waiter(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r2, w2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r2.Close()
	args := []string{"sandboxctl-sentry", "--x=1", "web"}
	err = Hand(socket, args, w, []*os.File{r2, w2})
	w.Close()
	w2.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := ReadTaken(socket); err != nil {
		t.Error(err)
	}
	if err := ReadTaken(socket); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the socket is open after the answer: %v", err)
	}
	if want := fmt.Sprintf("%q %q <nil> [3 4]", args, strings.Join(args, "\x00")); string(out) != want {
		t.Errorf("it says\n%s\nexpected\n%s", out, want)
	}
	if out, err := io.ReadAll(r2); err != nil || string(out) != "second" {
		t.Errorf("%q %v", out, err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Error(err)
	}
}

// One that nobody needs any more leaves.
func TestWaitClosed(t *testing.T) {
	t.Parallel()
	cmd, socket := waiter(t)
	socket.Close()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != ExitGateClosed {
		t.Error(err)
	}
}

func TestFits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", waitingRoom/2-1)
	for _, c := range []struct {
		args []string
		fds  int
		want string
	}{
		{[]string{"a"}, waitingFDs, ""},
		{[]string{long, long}, 0, ""},
		{[]string{long, long + "x"}, 0, "command line"},
		{[]string{"a"}, waitingFDs + 1, "descriptors"},
	} {
		if why := Fits(c.args, c.fds); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%d arguments, %d descriptors: %q", len(c.args), c.fds, why)
		}
	}
	if argv := WaitingArgv("sentry", "/s"); !slices.Equal(argv[:3], []string{WaitingName, "sentry", "/s"}) {
		t.Error(argv[:3])
	}
	if err := Hand(nil, []string{long, long, long}, nil, nil); err == nil {
		t.Error("too long, and handed over")
	}
}
