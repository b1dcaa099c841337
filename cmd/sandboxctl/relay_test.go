// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/console"

	"golang.org/x/sys/unix"
)

// inSandbox is a copy of a descriptor, as the sandbox has one of what it was
// given.
func inSandbox(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	c := os.NewFile(uintptr(fd), "copy")
	t.Cleanup(func() { c.Close() })
	return c
}

// start gives the sandbox its copies and releases ours.
func start(t *testing.T, r *relay, fs ...*os.File) []*os.File {
	t.Helper()
	var out []*os.File
	for _, f := range fs {
		out = append(out, inSandbox(t, f))
	}
	must(t, r.started())
	return out
}

// What can be shared is given as it is, and stays open.
func TestRelayDirect(t *testing.T) {
	t.Parallel()
	pr, pw, err := os.Pipe()
	must(t, err)
	defer pr.Close()
	defer pw.Close()
	for _, f := range []*os.File{pr, pw} {
		var r relay
		in, err1 := r.input(f)
		out, err2 := r.output(f)
		if in != f || out != f || err1 != nil || err2 != nil {
			t.Errorf("%s is not given as it is: %v %v", f.Name(), err1, err2)
		}
		must(t, errors.Join(r.started(), r.finish(), r.abort()))
		if _, err := f.Stat(); err != nil {
			t.Errorf("%s is closed: %v", f.Name(), err)
		}
	}
	closed, err := os.Open(os.DevNull)
	must(t, err)
	must(t, closed.Close())
	if direct(closed) != nil || direct(strings.NewReader("")) != nil || direct(nil) != nil {
		t.Error("what is no open file is given")
	}
}

// A terminal is readable through every stream that leads to it: what a sandbox
// left behind would read what its owner types.
func TestRelayTerminal(t *testing.T) {
	t.Parallel()
	pty, path, err := console.NewPty()
	must(t, err)
	defer pty.Close()
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer tty.Close()
	var r relay
	in, err1 := r.input(tty)
	out, err2 := r.output(tty)
	must(t, errors.Join(err1, err2))
	for _, f := range []*os.File{in, out} {
		info, err := f.Stat()
		must(t, err)
		if info.Mode().Type() != os.ModeNamedPipe {
			t.Errorf("the sandbox gets a %s", info.Mode().Type())
		}
	}
	must(t, errors.Join(r.started(), r.finish()))
}

func TestRelayInput(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789", 50_000) // more than a pipe holds
	p := filepath.Join(t.TempDir(), "in")
	must(t, os.WriteFile(p, []byte("read already\n"+big), 0o600))
	file, err := os.Open(p)
	must(t, err)
	defer file.Close()
	_, err = file.Seek(int64(len("read already\n")), io.SeekStart)
	must(t, err)
	for name, stream := range map[string]io.Reader{"a file, from where it is": file, "no file": strings.NewReader(big)} {
		var r relay
		in, err := r.input(stream)
		must(t, err)
		if info, err := in.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			t.Errorf("%s: not through a pipe: %v", name, err)
		}
		b, err := io.ReadAll(start(t, &r, in)[0])
		if err != nil || string(b) != big {
			t.Errorf("%s: %d bytes of %d: %v", name, len(b), len(big), err)
		}
		must(t, r.finish())
	}
}

// signalling is input that tells how far it was asked for.
type signalling struct{ asked chan struct{} }

func (s signalling) Read(b []byte) (int, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	return len(b), nil
}

// A command that does not read its input keeps nobody from ending.
func TestRelayInputUnread(t *testing.T) {
	t.Parallel()
	var r relay
	s := signalling{make(chan struct{}, 1)}
	in, err := r.input(s)
	must(t, err)
	cmd := start(t, &r, in)[0]
	<-s.asked
	must(t, cmd.Close())
	must(t, r.finish())
}

func TestRelayOutput(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789", 50_000)
	p := filepath.Join(t.TempDir(), "out")
	file, err := os.Create(p)
	must(t, err)
	defer file.Close()
	_, err = file.WriteString("before\n")
	must(t, err)
	var (
		r   relay
		buf bytes.Buffer
	)
	out, err1 := r.output(file)
	errs, err2 := r.output(&buf)
	must(t, errors.Join(err1, err2))
	cmd := start(t, &r, out, errs)
	if _, err := out.Write(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("our copy is open: %v", err)
	}
	_, err1 = cmd[0].WriteString(big)
	_, err2 = cmd[1].WriteString("diagnostics" + big)
	must(t, errors.Join(err1, err2, cmd[0].Close(), cmd[1].Close()))
	must(t, r.finish())
	b, err := os.ReadFile(p)
	if err != nil || string(b) != "before\n"+big {
		t.Errorf("%d bytes in the file: %v", len(b), err)
	}
	if buf.String() != "diagnostics"+big {
		t.Errorf("%d bytes in the buffer", buf.Len())
	}
	must(t, r.abort()) // nothing is left of it to release
}

// Output that can't be written is told at the end, and the command gets what
// it would get from a pipe.
func TestRelayOutputFull(t *testing.T) {
	t.Parallel()
	var r relay
	out, err := r.output(fullWriter{})
	must(t, err)
	cmd := start(t, &r, out)[0]
	for {
		// The first write is taken by the pipe.
		if _, err := cmd.WriteString("x"); err != nil {
			if !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%v, expected EPIPE", err)
			}
			break
		}
	}
	if err := r.finish(); !errors.Is(err, errFull) {
		t.Errorf("%v, expected the error of the stream", err)
	}
}

// A command that did not start leaves no descriptor and no copy.
func TestRelayAbort(t *testing.T) {
	t.Parallel()
	var (
		r   relay
		buf bytes.Buffer
	)
	in, err1 := r.input(strings.NewReader("x"))
	out, err2 := r.output(&buf)
	null, err3 := r.open(os.DevNull)
	must(t, errors.Join(err1, err2, err3))
	must(t, r.abort())
	for _, f := range []*os.File{in, out, null} {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s was left open: %v", f.Name(), err)
		}
	}
	must(t, r.abort())
	if _, err := r.open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	must(t, r.finish())
}
