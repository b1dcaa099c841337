// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/pty"
)

// fake is a process of this test: do is what it does, with its ends.
type fake struct {
	ends  [3]*os.File
	do    func(ends [3]*os.File) (int, error)
	hung  error
	mu    sync.Mutex
	heard []unix.Signal
	told  chan unix.Signal
	gone  chan struct{} // its terminal
}

func newFake(t *testing.T, ends [3]*os.File, do func([3]*os.File) (int, error)) *fake {
	t.Helper()
	f := &fake{do: do, told: make(chan unix.Signal, 100), gone: make(chan struct{}, 1)}
	for i := range ends {
		f.ends[i] = inSandbox(t, ends[i])
	}
	return f
}

func (f *fake) Signal(_ context.Context, sig unix.Signal) {
	f.mu.Lock()
	f.heard = append(f.heard, sig)
	f.mu.Unlock()
	f.told <- sig
}

func (f *fake) HangUp(context.Context) error {
	f.gone <- struct{}{}
	return f.hung
}

func (f *fake) Wait(ctx context.Context) (int, error) {
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		code, err := f.do(f.ends)
		for _, e := range f.ends {
			e.Close()
		}
		ended <- end{code, err}
	}()
	select {
	case e := <-ended:
		return e.code, e.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func aSession(t *testing.T, streams Streams, opts Options) (context.Context, *Session) {
	t.Helper()
	ctx, s, err := Open(t.Context(), streams, opts)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return ctx, s
}

// A process reads our input to its end, writes to our streams, and its exit code is
// that of the session.
func TestSessionPipes(t *testing.T) {
	for _, input := range []bool{true, false} {
		var out, errs bytes.Buffer
		ctx, s := aSession(t, Streams{strings.NewReader("typed"), &out, &errs}, Options{})
		ends, err := s.Pipes(input)
		must(t, err)
		code, err := s.Run(ctx, newFake(t, ends, func(e [3]*os.File) (int, error) {
			b, err := io.ReadAll(e[0])
			_, err1 := e[1].WriteString("out " + string(b))
			_, err2 := e[2].WriteString("err")
			return 7, errors.Join(err, err1, err2)
		}))
		want := map[bool]string{true: "out typed", false: "out "}[input]
		if code != 7 || err != nil || out.String() != want || errs.String() != "err" {
			t.Errorf("input %t: %d %v, %q %q", input, code, err, out.String(), errs.String())
		}
	}
}

// What a process that did not start would have read is there for others.
func TestSessionLeavesInput(t *testing.T) {
	r, w, err := blockingPipe()
	must(t, err)
	_, err = w.WriteString("for another")
	must(t, errors.Join(err, w.Close()))
	_, s, err := Open(t.Context(), Streams{r, io.Discard, io.Discard}, Options{})
	must(t, err)
	ends, err := s.Pipes(true)
	must(t, err)
	must(t, s.Close())
	for _, e := range ends {
		if err := e.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("an end was left open: %v", err)
		}
	}
	b, err := io.ReadAll(r)
	if err != nil || string(b) != "for another" {
		t.Errorf("%q is left: %v", b, err)
	}
}

// Signals are passed on in their order, also those that came before the process was
// there; others are not, and afterwards none is.
func TestSessionSignals(t *testing.T) {
	// What is not passed on must not end the test.
	others := make(chan os.Signal, 10)
	signal.Notify(others, unix.SIGUSR2, unix.SIGUSR1)
	defer signal.Stop(others)
	self, err := os.FindProcess(os.Getpid())
	must(t, err)
	send := func(sig unix.Signal) {
		t.Helper()
		must(t, self.Signal(sig))
		<-others // it has arrived everywhere
	}
	ctx, s := aSession(t, Streams{strings.NewReader(""), io.Discard, io.Discard}, Options{Signals: []os.Signal{unix.SIGUSR1}})
	ends, err := s.Pipes(true)
	must(t, err)
	send(unix.SIGUSR1)
	send(unix.SIGUSR2)
	var f *fake
	f = newFake(t, ends, func([3]*os.File) (int, error) {
		<-f.told
		send(unix.SIGUSR2)
		send(unix.SIGUSR1)
		<-f.told
		return 0, nil
	})
	_, err = s.Run(ctx, f)
	must(t, err)
	if len(f.heard) != 2 || f.heard[0] != unix.SIGUSR1 || f.heard[1] != unix.SIGUSR1 {
		t.Errorf("heard %v", f.heard)
	}
}

// A process whose output nobody takes gets SIGPIPE.
func TestSessionBroken(t *testing.T) {
	ctx, s := aSession(t, Streams{strings.NewReader(""), closedPipe(t), io.Discard}, Options{})
	ends, err := s.Pipes(true)
	must(t, err)
	var f *fake
	f = newFake(t, ends, func(e [3]*os.File) (int, error) {
		_, err := e[1].WriteString("x")
		return 128 + int(<-f.told), err
	})
	if code, err := s.Run(ctx, f); code != 128+int(unix.SIGPIPE) || err != nil {
		t.Errorf("%d, %v", code, err)
	}
}

// Somebody who has had enough is not kept by a process that does not end.
func TestSessionImpatience(t *testing.T) {
	self, err := os.FindProcess(os.Getpid())
	must(t, err)
	ctx, s := aSession(t, Streams{strings.NewReader(""), io.Discard, io.Discard}, Options{Signals: []os.Signal{unix.SIGTERM}, Impatience: 2})
	ends, err := s.Pipes(true)
	must(t, err)
	over := make(chan struct{})
	defer close(over)
	var f *fake
	f = newFake(t, ends, func([3]*os.File) (int, error) {
		for range 2 {
			must(t, self.Signal(unix.SIGTERM))
			<-f.told
		}
		<-over
		return 0, nil
	})
	if _, err := s.Run(ctx, f); err == nil || !strings.Contains(err.Error(), "interrupted 2 times") {
		t.Errorf("%v", err)
	}
}

// ourTerminal is a terminal of ours, with its other side.
func ourTerminal(t *testing.T) (person, tty *os.File) {
	t.Helper()
	person, tty, err := pty.Open()
	must(t, err)
	t.Cleanup(func() { person.Close(); tty.Close() })
	must(t, unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 31, Col: 91}))
	return person, tty
}

// hangUp ends a terminal, and waits until the session of a process reads from it no
// more: it would read from the next file that gets the number of its descriptor.
func hangUp(t *testing.T, person *os.File, f *fake) {
	t.Helper()
	must(t, person.Close())
	<-f.gone
}

// A process gets a terminal that is like ours and is told its keys; ours is what it was
// when the session is over.
func TestSessionTerminal(t *testing.T) {
	for _, keys := range []bool{true, false} {
		person, tty := ourTerminal(t)
		before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		must(t, err)
		ctx, s := aSession(t, Streams{tty, tty, tty}, Options{Keys: keys})
		ends, err := s.Terminal()
		must(t, err)
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, unix.SIGWINCH)
		var f *fake
		f = newFake(t, ends, func(e [3]*os.File) (int, error) {
			c, err := console.ConsoleFromFile(e[0])
			must(t, err)
			if size, err := c.Size(); err != nil || size.Width != 91 || size.Height != 31 {
				t.Errorf("its size is %+v, %v", size, err)
			}
			_, err = person.WriteString("\x03typed\r")
			must(t, err)
			b := make([]byte, 100)
			n, err := e[0].Read(b)
			if got := string(b[:n]); err != nil || !strings.HasSuffix(got, "typed\n") {
				t.Errorf("read %q, %v", got, err)
			}
			// The kernel has signals for the session that has it as its terminal.
			must(t, unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 22, Col: 77}))
			self, err := os.FindProcess(os.Getpid())
			must(t, err)
			must(t, self.Signal(unix.SIGWINCH))
			<-resized
			for deadline := time.Now().Add(10 * time.Second); ; {
				if size, err := c.Size(); err == nil && size.Width == 77 && size.Height == 22 {
					break
				}
				if time.Now().After(deadline) {
					t.Error("it was not resized")
					break
				}
				time.Sleep(time.Millisecond)
			}
			if keys {
				// The key and the size are passed on beside each other.
				if a, b := <-f.told, <-f.told; min(a, b) != unix.SIGINT || max(a, b) != unix.SIGWINCH {
					t.Errorf("told %v, %v", a, b)
				}
			}
			_, err = e[1].WriteString("shown")
			return 3, err
		})
		code, err := s.Run(ctx, f)
		signal.Stop(resized)
		if code != 3 || err != nil {
			t.Errorf("%d, %v", code, err)
		}
		after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil || *after != *before {
			t.Errorf("our terminal is %+v, %v", after, err)
		}
		hangUp(t, person, f)
		if !keys && len(f.heard) != 0 {
			t.Errorf("told %v", f.heard)
		}
	}
}

// A terminal that is gone ends a session whose process wants that.
func TestSessionTerminalCloses(t *testing.T) {
	person, tty := ourTerminal(t)
	ctx, s := aSession(t, Streams{tty, tty, tty}, Options{})
	ends, err := s.Terminal()
	must(t, err)
	over := make(chan struct{})
	defer close(over)
	f := newFake(t, ends, func([3]*os.File) (int, error) { person.Close(); <-over; return 0, nil })
	f.hung = errTerminalClosed
	if _, err := s.Run(ctx, f); !errors.Is(err, errTerminalClosed) && !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
	if _, err := (&Session{streams: Streams{In: strings.NewReader("")}}).Terminal(); err == nil {
		t.Error("what is no terminal became one")
	}
}

// Who starts a process and waits for what it does, before it runs the session, waits
// for none that stands still: it is fed and its output is taken.
func TestSessionStarted(t *testing.T) {
	big := strings.Repeat("0123456789", 20_000) // more than a pipe or a terminal holds
	t.Run("pipes", func(t *testing.T) {
		var out, errs bytes.Buffer
		ctx, s := aSession(t, Streams{strings.NewReader(big), &out, &errs}, Options{})
		ends, err := s.Pipes(true)
		must(t, err)
		f := newFake(t, ends, func([3]*os.File) (int, error) { return 7, nil })
		must(t, s.Started())
		b, err := io.ReadAll(f.ends[0])
		_, err1 := f.ends[1].WriteString(big)
		_, err2 := f.ends[2].WriteString(big)
		must(t, errors.Join(err, err1, err2))
		code, err := s.Run(ctx, f)
		if code != 7 || err != nil || string(b) != big || out.String() != big || errs.String() != big {
			t.Errorf("%d %v: %d, %d, %d bytes of %d", code, err, len(b), out.Len(), errs.Len(), len(big))
		}
	})
	t.Run("terminal", func(t *testing.T) {
		person, tty := ourTerminal(t)
		var out bytes.Buffer
		ctx, s := aSession(t, Streams{tty, &out, &out}, Options{})
		ends, err := s.Terminal()
		must(t, err)
		f := newFake(t, ends, func([3]*os.File) (int, error) { return 7, nil })
		must(t, s.Started())
		_, err = f.ends[1].WriteString(big)
		must(t, err)
		code, err := s.Run(ctx, f)
		if code != 7 || err != nil || out.String() != big {
			t.Errorf("%d %v: %d bytes of %d", code, err, out.Len(), len(big))
		}
		hangUp(t, person, f)
	})
}

// slowWriter takes nothing before somebody waits for the rest of the output.
type slowWriter struct {
	asked, over chan struct{}
	text        []byte
}

func (w *slowWriter) Write(b []byte) (int, error) {
	if w.text == nil {
		close(w.asked)
		<-w.over
	}
	w.text = append(w.text, b...)
	return len(b), nil
}

// What a process has written is there also if it was lost and nobody knows its end, or
// if its start failed.
func TestSessionLastOutput(t *testing.T) {
	lost := errors.New("the connection was lost")
	for _, terminal := range []bool{false, true} {
		for _, ran := range []bool{true, false} {
			person, tty := ourTerminal(t)
			out := &slowWriter{asked: make(chan struct{})}
			ctx, s, err := Open(t.Context(), Streams{tty, out, io.Discard}, Options{})
			must(t, err)
			out.over = s.relay.over
			open := map[bool]func() ([3]*os.File, error){true: s.Terminal, false: func() ([3]*os.File, error) { return s.Pipes(false) }}[terminal]
			ends, err := open()
			must(t, err)
			f := newFake(t, ends, func(e [3]*os.File) (int, error) {
				_, err := e[1].WriteString("the last words")
				<-out.asked
				return 0, errors.Join(err, lost)
			})
			must(t, s.Started())
			if ran {
				_, err = s.Run(ctx, f)
			} else {
				_, err = f.Wait(ctx) // its start failed
			}
			if !errors.Is(err, lost) {
				t.Errorf("terminal %t, ran %t: %v", terminal, ran, err)
			}
			must(t, errors.Join(s.Close(), s.Close()))
			if terminal && ran {
				hangUp(t, person, f)
			}
			if string(out.text) != "the last words" {
				t.Errorf("terminal %t, ran %t: copied %q", terminal, ran, out.text)
			}
		}
	}
}

// Who has had enough is not kept by a reader that takes nothing.
func TestSessionGivenUp(t *testing.T) {
	out := &slowWriter{asked: make(chan struct{}), over: make(chan struct{})}
	ctx, s, err := Open(t.Context(), Streams{nil, out, io.Discard}, Options{})
	must(t, err)
	ends, err := s.Pipes(false)
	must(t, err)
	enough := errors.New("enough")
	over := make(chan struct{})
	defer close(over)
	defer close(out.over)
	_, err = s.Run(ctx, newFake(t, ends, func(e [3]*os.File) (int, error) {
		_, err := e[1].WriteString("x")
		<-out.asked
		s.cancel(enough)
		<-over
		return 0, err
	}))
	if err = errors.Join(err, s.Close()); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

// unrestored is a terminal that does not become what it was.
type unrestored struct {
	console.Console
	err error
}

func (u unrestored) Reset() error { return errors.Join(u.Console.Reset(), u.err) }

// That our terminal is left raw is told; that it is gone is not, as nobody sees it.
func TestSessionTerminalLeftRaw(t *testing.T) {
	for _, broken := range []error{unix.EPERM, unix.EIO} {
		person, tty := ourTerminal(t)
		ctx, s := aSession(t, Streams{tty, tty, tty}, Options{})
		ends, err := s.Terminal()
		must(t, err)
		s.terminal.ours = unrestored{s.terminal.ours, broken}
		f := newFake(t, ends, func([3]*os.File) (int, error) { return 3, nil })
		code, err := s.Run(ctx, f)
		if code != 3 || errors.Is(err, broken) != (broken == unix.EPERM) {
			t.Errorf("%v: %d, %v", broken, code, err)
		}
		hangUp(t, person, f)
	}
}
