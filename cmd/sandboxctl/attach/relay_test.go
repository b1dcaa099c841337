// SPDX-License-Identifier: Apache-2.0

package attach

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

// sameOpenFile says whether two descriptors share flags and offset.
func sameOpenFile(a, b *os.File) (bool, error) {
	const kcmpFile = 0
	pid := uintptr(os.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, a.Fd(), b.Fd(), 0)
	if errno != 0 {
		return false, errno
	}
	return order == 0, nil
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

// aRelay returns a relay that leaves nothing when the test is over.
func aRelay(t *testing.T) *relay {
	t.Helper()
	r, err := newRelay()
	must(t, err)
	return r
}

// Nothing of ours is given to a sandbox, whatever it is: a sentry would make it
// non-blocking for everybody, and read what is typed at a terminal.
func TestRelayGivesItsOwn(t *testing.T) {
	t.Parallel()
	pr, pw, err := os.Pipe()
	must(t, err)
	pty, path, err := console.NewPty()
	must(t, err)
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	socket, peer := os.NewFile(uintptr(sockets[0]), "socket"), os.NewFile(uintptr(sockets[1]), "peer")
	streams := map[string]*os.File{"pipe to read": pr, "pipe to write": pw, "terminal": tty, "file": file, "device": null, "socket": socket}
	t.Cleanup(func() {
		for _, f := range streams {
			f.Close()
		}
		peer.Close()
		pty.Close()
	})
	for name, f := range streams {
		r := aRelay(t)
		in, err1 := r.input(f)
		out, err2 := r.output(f)
		must(t, errors.Join(err1, err2))
		for _, given := range []*os.File{in, out} {
			info, err := given.Stat()
			must(t, err)
			same, err := sameOpenFile(f, given)
			must(t, err)
			if same || info.Mode().Type() != os.ModeNamedPipe {
				t.Errorf("%s: the sandbox gets a %s, the same open file: %t", name, info.Mode().Type(), same)
			}
			// What a sentry does with what it gets.
			must(t, unix.SetNonblock(int(given.Fd()), true))
		}
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("%s is not what it was: flags %#x, %v", name, flags, err)
		}
		must(t, errors.Join(r.started(), r.finish()))
		if _, err := f.Stat(); err != nil {
			t.Errorf("%s is closed: %v", name, err)
		}
	}
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
		r := aRelay(t)
		in, err := r.input(stream)
		must(t, err)
		if info, err := in.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			t.Errorf("%s: not through a pipe: %v", name, err)
		}
		b, err := io.ReadAll(start(t, r, in)[0])
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
	r := aRelay(t)
	s := signalling{make(chan struct{}, 1)}
	in, err := r.input(s)
	must(t, err)
	cmd := start(t, r, in)[0]
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
	var buf bytes.Buffer
	r := aRelay(t)
	out, err1 := r.output(file)
	errs, err2 := r.output(&buf)
	must(t, errors.Join(err1, err2))
	cmd := start(t, r, out, errs)
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

// Output that can't be written is told at once, and the pipe is open until that
// was heard: the command gets its signal first, and then the error.
func TestRelayOutputFull(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		to   io.Writer
		told bool
		want error
	}{
		"full":                     {fullWriter{}, true, errFull},
		"full, and nobody listens": {fullWriter{}, false, errFull},
		"no reader":                {closedPipe(t), true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := aRelay(t)
			out, err := r.output(c.to)
			must(t, err)
			cmd := start(t, r, out)[0]
			_, err = cmd.WriteString("x")
			must(t, err)
			if c.told {
				told := <-r.broken
				if _, err := cmd.WriteString("x"); err != nil {
					t.Errorf("%v before the signal", err)
				}
				close(told)
				for err == nil {
					_, err = cmd.WriteString("x")
				}
				if !errors.Is(err, syscall.EPIPE) {
					t.Errorf("%v, expected EPIPE", err)
				}
			}
			if err := r.finish(); !errors.Is(err, c.want) {
				t.Errorf("%v, expected %v", err, c.want)
			}
		})
	}
}

// closedPipe is the end of a pipe that nobody reads.
func closedPipe(t *testing.T) *os.File {
	t.Helper()
	pr, pw, err := os.Pipe()
	must(t, err)
	must(t, pr.Close())
	t.Cleanup(func() { pw.Close() })
	return pw
}

// What a command has written before its end is copied, also if something that it
// left keeps the pipe open, and goes on writing.
func TestRelayBackground(t *testing.T) {
	t.Parallel()
	for name, noisy := range map[string]bool{"silent": false, "noisy": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var buf bytes.Buffer
			r := aRelay(t)
			out, err := r.output(&buf)
			must(t, err)
			cmd := start(t, r, out)[0]
			_, err = cmd.WriteString("the last words\n")
			must(t, err)
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				for noisy {
					if _, err := cmd.WriteString("noise\n"); err != nil {
						return // nobody reads any more
					}
				}
			}()
			must(t, r.finish())
			<-gone
			if !strings.HasPrefix(buf.String(), "the last words\n") {
				t.Errorf("copied %.40q", buf.String())
			}
		})
	}
}

// Streams may be made non-blocking by those who share them.
func TestRelayNonblocking(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789", 50_000)
	inR, inW, err1 := blockingPipe()
	outR, outW, err2 := blockingPipe()
	must(t, errors.Join(err1, err2, unix.SetNonblock(int(inR.Fd()), true), unix.SetNonblock(int(outW.Fd()), true)))
	r := aRelay(t)
	in, err1 := r.input(inR)
	out, err2 := r.output(outW)
	must(t, errors.Join(err1, err2))
	cmd := start(t, r, in, out)
	go func() {
		_, _ = inW.WriteString(big)
		inW.Close()
	}()
	go func() {
		_, _ = io.Copy(cmd[1], cmd[0])
		cmd[1].Close()
	}()
	read := make(chan int)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(outR, int64(len(big))))
		read <- len(b)
	}()
	if n := <-read; n != len(big) {
		t.Errorf("%d bytes of %d", n, len(big))
	}
	must(t, r.finish())
	must(t, errors.Join(inR.Close(), outR.Close(), outW.Close()))
}

// What a command does not read is left to the next reader of the stream.
func TestRelayInputLeft(t *testing.T) {
	t.Parallel()
	pr, pw, err := blockingPipe()
	must(t, err)
	defer pr.Close()
	r := aRelay(t)
	_, err = r.input(pr)
	must(t, err)
	must(t, r.started())
	ended := r.feed(closedPipe(t), pr) // one whose command has ended
	<-ended
	_, err = pw.WriteString("for another")
	must(t, errors.Join(err, pw.Close()))
	b, err := io.ReadAll(pr)
	if err != nil || string(b) != "for another" {
		t.Errorf("%q is left: %v", b, err)
	}
	must(t, r.finish())
}

// A command that did not start leaves no descriptor and no copy.
func TestRelayAbort(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	r := aRelay(t)
	in, err1 := r.input(strings.NewReader("x"))
	out, err2 := r.output(&buf)
	null, err3 := r.empty()
	must(t, errors.Join(err1, err2, err3))
	must(t, r.abort())
	for _, f := range []*os.File{in, out, null} {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s was left open: %v", f.Name(), err)
		}
	}
	must(t, r.abort())
}
